"""Whisper by transformers: transcription, greedy.

Up to 30 s the prompt is ``<|startoftranscript|><|en|><|transcribe|><|notimestamps|>``; longer audio
is transcribed in windows that follow each other by predicted timestamps, as transformers does it
(Radford et al. 2022, Section 4.5), without its temperature fallback: greedy.
"""

from typing import List, Optional, Sequence

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from espnet_spire.baselines.systems import Input, Said, System, load_or_explain, one_line
from espnet_spire.text.jobs import Job
from espnet_spire.text.languages import common_code
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError


class Whisper(System):
    """``openai/whisper-*`` and models of its kind.

    Args:
        name: directory or hub name.
        max_new_tokens: limit of an answer, for longer audio of each window.
    """

    title = "Whisper"
    tasks = ("asr",)

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self._processor = load_or_explain(WhisperProcessor.from_pretrained, name)
        model = load_or_explain(
            lambda name: WhisperForConditionalGeneration.from_pretrained(
                name, dtype=getattr(torch, dtype)
            ),
            name,
        )
        self._model = model.eval().to(device)
        self._name = name
        # Of prompt and answer; the prompt has 4 tokens.
        room = model.config.max_target_positions - 4
        self._max_new_tokens = min(max_new_tokens, room)
        self._window = self._processor.feature_extractor.n_samples

    def _language(self, job: Job) -> Optional[str]:
        """The model's name of a language; ``None`` in models that know English alone."""
        generation = self._model.generation_config
        code = common_code(job.src)
        if not getattr(generation, "is_multilingual", True):
            if code != "en":
                raise SpireError(f"job {job.name}: --model {self._name} knows English alone")
            return None
        if f"<|{code}|>" not in generation.lang_to_id:
            raise SpireError(f"job {job.name}: --model {self._name} does not know {job.src}")
        return code

    def check(self, job: Job) -> None:
        super().check(job)
        self._language(job)

    def padded_samples(self, num_samples: int) -> int:
        """Audio is padded to whole windows."""
        return -(-num_samples // self._window) * self._window

    def answer(self, job: Job, batch: Sequence[Input]) -> List[Said]:
        short = [i for i, samples in enumerate(batch) if len(samples) <= self._window]
        found = dict(zip(short, self._answer(job, [batch[i] for i in short], False), strict=True))
        for i, samples in enumerate(batch):
            if i not in found:
                found[i] = self._answer(job, [samples], True)[0]
        return [found[i] for i in range(len(batch))]

    @torch.inference_mode()
    def _answer(self, job: Job, batch: Sequence[Input], is_long: bool) -> List[Said]:
        if not batch:
            return []
        language = self._language(job)
        features = self._processor.feature_extractor(
            list(batch),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if is_long else {}),
        ).to(self._model.device, self._model.dtype)
        how = {"return_segments": True, "return_timestamps": True}
        if not is_long:
            how = {"return_dict_in_generate": True, "force_unique_generate_call": True}
            how["return_timestamps"] = False
        if language is not None:
            how.update(language=language, task="transcribe")
        output = self._model.generate(
            **features, **how, do_sample=False, num_beams=1, max_new_tokens=self._max_new_tokens
        )
        ids = output["sequences"].tolist()
        windows = [[row] for row in ids]
        if is_long:  # segments that were written in one window share what was written there
            windows = [[segment["result"].tolist() for segment in output["segments"][0]]]
        prompt = len(self.prompt(job, is_long))
        cuts = [max((self._cut(row[prompt:]) for row in rows), default=0) for rows in windows]
        texts = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Said(one_line(text), cut or None) for text, cut in zip(texts, cuts, strict=True)]

    def _cut(self, ids: Sequence[int]) -> int:
        """Their number if there are as many as there may be and no end, else 0."""
        end = self._model.generation_config.eos_token_id
        return 0 if end in ids else len(ids)

    def prompt(self, job: Job, is_long: bool) -> List[str]:
        """The tokens that the decoder starts with."""
        language = self._language(job)
        tokens = ["<|startoftranscript|>"]
        tokens += [] if language is None else [f"<|{language}|>", "<|transcribe|>"]
        return tokens + ([] if is_long else ["<|notimestamps|>"])
