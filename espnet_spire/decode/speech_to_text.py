"""Speech to text from Python, in the manner of ESPnet's ``Speech2Text``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from espnet_spire.decode.answers import Answer
from espnet_spire.decode.generate import Generator
from espnet_spire.decode.jobs import encode_turns, translation_turn
from espnet_spire.decode.listen import Heard, Listener
from espnet_spire.decode.search import GREEDY, Search
from espnet_spire.text import prompts
from espnet_spire.text.jobs import Job, check_job
from espnet_spire.text.prompts import Turn
from espnet_spire.units.audio import load_audio
from espnet_spire.units.resampling import SAMPLE_RATE, check_rate, resample
from espnet_spire.units.sources import Source
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cli import MAX_NEW_TOKENS, default_device
from espnet_spire.utils.errors import SpireError

# An audio file, or samples: float (-1 to 1) or int16, shape (samples,) or (samples, channels).
Audio = Union[str, Path, np.ndarray]
TASKS = ("asr", "st", "st_multi_turn", "st_cascade")


@dataclass(frozen=True)
class SpeechToTextResult:
    """What was heard or translated, and what it was made of.

    Attributes:
        text: the transcript or the translation, one line.
        task, src_lang, tgt_lang: what was asked for.
        transcript: what was heard before it was translated (``st_multi_turn``, ``st_cascade``).
        units: of the speech, repeats merged; empty where a text was translated.
        timings: seconds, where each unit begins and ends.
        tokens: pieces of the vocabulary that the model wrote as ``text``.
        token_ids: their ids.
        token_logprobs: natural logarithm of the probability of each of them.
        end_logprob: that of the end behind them; ``None`` if ``cut``.
        cut: whether the limit of new tokens came before the end.
    """

    text: str
    task: str
    src_lang: str
    tgt_lang: str
    transcript: Optional[str]
    units: List[int]
    timings: List[Tuple[float, float]]
    tokens: List[str]
    token_ids: List[int]
    token_logprobs: List[float]
    end_logprob: Optional[float]
    cut: bool


class SpeechToText:
    """Transcribes and translates; see :meth:`from_pretrained`.

    Example:
        >>> stt = SpeechToText.from_pretrained("exp/spire_it_spirefull_mini/hf")  # doctest: +SKIP
        >>> stt("a.wav").text  # doctest: +SKIP
        'the cook cuts bread'
        >>> stt("a.wav", task="st", tgt_lang="de").text  # doctest: +SKIP
        'der Koch schneidet Brot'

    Args:
        generator: the LM.
        listener: called when audio comes for the first time; gives what makes units of it.
        speech_lang: language that is spoken.
    """

    def __init__(self, generator: Generator, listener, *, speech_lang: str = "en") -> None:
        self.generator = generator
        self.speech_lang = speech_lang
        self._make_listener = listener
        self._listener: Optional[Listener] = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: PathLike,
        *,
        device: str = "auto",
        dtype: str = "float32",
        codebook: Optional[PathLike] = None,
        encoder: Optional[str] = None,
        layer: Optional[int] = None,
        encoder_dtype: str = "float32",
        speech_lang: str = "en",
        batch_tokens: int = 16384,
        max_new_tokens: int = MAX_NEW_TOKENS,
        search: Search = GREEDY,
    ) -> "SpeechToText":
        """Load a model; its encoder is loaded with the first audio.

        Args:
            name_or_dir: directory or hub name of an instruction-tuned model.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype, encoder_dtype: ``float32`` or ``bfloat16``, of the LM and of the encoder.
            codebook: directory; by default the one in the model's directory. The published models
                have none: ``import_codebook`` makes one of their k-means file.
            encoder, layer: by default what the codebook says.
            speech_lang: language that is spoken, ISO 639.
            batch_tokens: room for prompts and answers that are worked on at a time.
            max_new_tokens: limit of an answer.
            search: how answers are looked for; greedy by default.

        Raises:
            SpireError: there is no such model, or a setting is impossible.
        """
        name, where = str(name_or_dir), default_device(device)
        generator = Generator(
            name,
            device=where,
            dtype=dtype,
            batch_tokens=batch_tokens,
            max_new_tokens=max_new_tokens,
            search=search,
            logprobs=True,
        )

        def listener() -> Listener:
            return Listener(
                name,
                generator.tokenizer,
                codebook=codebook,
                encoder=encoder,
                layer=layer,
                device=where,
                dtype=encoder_dtype,
            )

        return cls(generator, listener, speech_lang=speech_lang)

    def __call__(
        self,
        audio: Audio,
        *,
        task: str = "asr",
        tgt_lang: Optional[str] = None,
        rate: int = SAMPLE_RATE,
    ) -> SpeechToTextResult:
        """Transcribe or translate one utterance, see :meth:`batch`."""
        return self.batch([audio], task=task, tgt_lang=tgt_lang, rate=rate)[0]

    def batch(
        self,
        audios: Sequence[Audio],
        *,
        task: str = "asr",
        tgt_lang: Optional[str] = None,
        rate: int = SAMPLE_RATE,
    ) -> List[SpeechToTextResult]:
        """Transcribe or translate utterances, each as if it were alone.

        Args:
            audios: files, or samples.
            task: ``asr``; ``st``: direct translation; ``st_multi_turn``: transcript and translation
                in one conversation; ``st_cascade``: the transcript translated as a text.
            tgt_lang: language to translate into, ISO 639.
            rate: of samples, in Hz; files say it themselves.

        Raises:
            SpireError: an audio cannot be used (it is named), or the task is unknown or lacks its
                language.
        """
        job = self._job(task, tgt_lang)
        waveforms = [_samples(audio, rate, place) for place, audio in enumerate(audios)]
        heard = self._listen(waveforms, audios)
        first = Job("asr", job.src, job.src) if task in ("st_multi_turn", "st_cascade") else job
        turns = {
            str(place): [Turn("user", prompts.speech_instruction(one.units, first.tgt))]
            for place, one in enumerate(heard)
        }
        asked = encode_turns(self.generator.tokenizer, turns, job, of_units=True)
        for place, reason in self.generator.refused(asked).items():
            raise SpireError(f"{_name(audios[int(place)], int(place))}: {reason}")
        ids = list(asked.values())
        if task == "st_multi_turn":
            follow_up = translation_turn(self.generator, list(turns.values()), job.tgt)
            found = dict(pair for part in self.generator.converse(ids, follow_up) for pair in part)
            answers = [found[place] for place in range(len(ids))]
        else:
            answers = [[answer] for answer in self._ask(ids)]
            if task == "st_cascade":
                texts = [self.generator.text(answer) for (answer,) in answers]
                second = self._ask(self._translation_prompts(texts, job.src, job.tgt))
                answers = [[*one, other] for one, other in zip(answers, second, strict=True)]
        return [self._result(job, *pair) for pair in zip(answers, heard, strict=True)]

    def translate(
        self, texts: Union[str, Sequence[str]], *, src_lang: str, tgt_lang: str
    ) -> Union[SpeechToTextResult, List[SpeechToTextResult]]:
        """Translate a text, or several; languages are ISO 639."""
        job = check_job(Job("mt", src_lang, tgt_lang))
        several = [texts] if isinstance(texts, str) else list(texts)
        answers = self._ask(self._translation_prompts(several, src_lang, tgt_lang))
        results = [self._result(job, [answer], Heard([], [])) for answer in answers]
        return results[0] if isinstance(texts, str) else results

    def _ask(self, ids: Sequence[List[int]]) -> List[Answer]:
        found = dict(pair for part in self.generator.stream(ids) for pair in part)
        return [found[place] for place in range(len(ids))]

    def _job(self, task: str, tgt_lang: Optional[str]) -> Job:
        if task not in TASKS:
            raise SpireError(f"task {task!r} is unknown; known are {', '.join(TASKS)}")
        if task != "asr" and tgt_lang is None:
            raise SpireError(f"task {task} needs tgt_lang: the language to translate into")
        return check_job(Job(task, self.speech_lang, tgt_lang or self.speech_lang))

    def _listen(self, waveforms: Sequence[np.ndarray], audios: Sequence[Audio]) -> List[Heard]:
        if self._listener is None:
            self._listener = self._make_listener()
        heard = self._listener(waveforms)
        for place, one in enumerate(heard):
            if one.reason is not None:
                raise SpireError(f"{_name(audios[place], place)}: {one.reason}")
        return heard

    def _translation_prompts(self, texts: Sequence[str], src: str, tgt: str) -> List[List[int]]:
        turns = {
            str(place): [Turn("user", prompts.mt_instruction(src, tgt, text))]
            for place, text in enumerate(texts)
        }
        return list(encode_turns(self.generator.tokenizer, turns, Job("mt", src, tgt)).values())

    def _result(self, job: Job, answers: List[Answer], heard: Heard) -> SpeechToTextResult:
        answer = answers[-1]
        logprobs: List[float] = answer.logprobs or []
        count = len(answer.ids)
        return SpeechToTextResult(
            text=self.generator.text(answer),
            task=job.task,
            src_lang=job.src,
            tgt_lang=job.tgt,
            transcript=self.generator.text(answers[0]) if len(answers) > 1 else None,
            units=heard.units,
            timings=heard.timings,
            tokens=self.generator.tokenizer.convert_ids_to_tokens(answer.ids),
            token_ids=answer.ids,
            token_logprobs=logprobs[:count],
            end_logprob=logprobs[count] if len(logprobs) > count else None,
            cut=answer.cut,
        )


def _name(audio: Any, place: int) -> str:
    return str(audio) if isinstance(audio, (str, Path)) else f"audio {place}"


def _samples(audio: Audio, rate: int, place: int) -> np.ndarray:
    """float32 at 16 kHz, shape (samples,)."""
    if isinstance(audio, (str, Path)):
        if not Path(audio).is_file():
            raise SpireError(f"{audio}: no such file")
        return load_audio(Source(str(audio)))
    name, samples = _name(audio, place), np.asarray(audio)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise SpireError(
            f"{name}: shape {samples.shape}; (samples,) or (samples, channels) was expected"
        )
    if samples.dtype == np.int16:
        samples = samples / np.float32(2**15)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise SpireError(f"{name}: samples are {samples.dtype}; float or int16 was expected")
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if not np.isfinite(samples).all():
        raise SpireError(f"{name}: not all samples are finite")
    check_rate(name, rate)
    return resample(np.ascontiguousarray(samples), rate)
