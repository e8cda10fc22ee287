"""Decode test sets with a baseline, into the directories that SPIRE's own decoding leaves.

Layout, shards and how a killed job goes on: :mod:`espnet_spire.decode.results`.
"""

from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from espnet_spire.baselines.systems import OF_TEXT, Input, Said, System
from espnet_spire.decode.jobs import order_jobs, source_texts
from espnet_spire.decode.results import (
    CUT,
    KeptAnswers,
    check_speech,
    is_done,
    keys_of_job,
    own_rejected,
    own_transcripts,
    write_results,
)
from espnet_spire.text.jobs import Job
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.batching import plan_batches
from espnet_spire.units.durations import utterance_samples
from espnet_spire.units.reader import read_ahead
from espnet_spire.units.rxfilename import file_state
from espnet_spire.units.sources import Source, utterance_sources
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cache import content_key
from espnet_spire.utils.datadir import REJECTED, TEXT, shard_of, utterance_keys
from espnet_spire.utils.errors import SpireError

_AHEAD_SECONDS = 600


def decode(
    make_system: Callable[[], System],
    jobs: Sequence[Job],
    *,
    data_dir: PathLike,
    out: PathLike,
    identity: Any = None,
    speech_lang: str = "en",
    batch_seconds: float = 240.0,
    batch_characters: int = 8192,
    num_workers: int = 2,
    num_shards: int = 1,
    shard: int = 1,
) -> None:
    """Decode (a shard of) a test set; one ``<out>/<task>.<src>-<tgt>/text`` a job.

    As in SPIRE's own decoding, audio that cannot be read or is too short has an empty hypothesis,
    and ``rejected.tsv`` says why; ``cut`` lists answers that reached their limit.

    Args:
        make_system: called if there is anything to do.
        jobs: what to decode; ``st_cascade`` translates what ``asr`` left in ``out``.
        data_dir: the test set.
        out: directory of the set's results.
        identity: JSON that tells model and settings from others, for answers that an interrupted
            job left.
        batch_seconds: of a batch of audio, padded; batch_characters: of texts.
        num_workers: threads that decode audio.
    """
    data_dir, out = Path(data_dir), Path(out)
    check_speech(jobs, data_dir)
    utterances = utterance_keys(data_dir)
    own = shard_of(utterances, num_shards, shard)
    left = [
        job for job in order_jobs(jobs) if not is_done(out / job.name / TEXT, num_shards, shard)
    ]
    if not left:
        return
    system = make_system()
    for job in left:  # before any is decoded
        system.check(job)
        if job.task not in OF_TEXT and job.src != speech_lang:
            raise SpireError(f"job {job.name}: the speech is in {speech_lang}")
    for job in left:
        target = out / job.name / TEXT
        about = set(keys_of_job(job, data_dir, utterances, speech_lang))
        keys = [key for key in own if key in about]
        rejected: Dict[str, str] = {}
        if job.task == "st_cascade":
            failed = own_rejected(out, speech_lang, num_shards, shard)
            rejected = {key: failed[key] for key in keys if key in failed}
        if job.task in OF_TEXT:
            texts = (
                own_transcripts(out, speech_lang, num_shards, shard)
                if job.task == "st_cascade"
                else source_texts(data_dir, job.src, speech_lang)
            )
            asked = {key: texts[key] for key in keys if key not in rejected}
            contents = {key: content_key(identity, job.name, text) for key, text in asked.items()}
            ask = _Texts(system, job, asked, batch_characters)
        else:
            sources = utterance_sources(data_dir)
            contents = {key: _audio_key(identity, job, sources[key]) for key in keys}
            ask = _Audio(system, job, data_dir, sources, batch_seconds, num_workers)
        with KeptAnswers(target, num_shards, shard) as kept:
            answers = kept.complete(contents, ask, job.name)
        rejected |= {key: reason for key, (_, _, reason) in answers.items() if reason}
        tables = {
            REJECTED: rejected,
            CUT: {key: str(cut) for key, (_, cut, _) in answers.items() if cut},
            TEXT: {key: answers[key][0] if key in answers else "" for key in keys},
        }
        write_results(job, target, tables, len(keys), num_shards, shard)


def _audio_key(identity: Any, job: Job, source: Source) -> str:
    """A hash of all that an answer depends on; of the audio, name and state of its file."""
    place = [source.rxfilename, source.start, source.end, source.channel]
    return content_key(identity, job.name, place, file_state(source.rxfilename))


def _record(said: Optional[Said], reason: Optional[str] = None) -> List[Any]:
    """An answer as it is kept: text, length if it was cut, why there is none."""
    return ["", None, reason] if said is None else [said.text, said.cut, None]


class _Texts:
    """Answers to texts, batches of similar length, the shortest first."""

    def __init__(
        self, system: System, job: Job, texts: Mapping[str, str], batch_characters: int
    ) -> None:
        self._system, self._job, self._texts = system, job, texts
        self._batch_characters = batch_characters

    def __call__(self, keys: Sequence[str]) -> Iterator[Dict[str, List[Any]]]:
        # Nothing said is nothing to translate; a model would make something up.
        empty = [key for key in keys if not self._texts[key]]
        if empty:
            yield {key: _record(Said("")) for key in empty}
        texts = [(key, self._texts[key]) for key in keys if self._texts[key]]
        for batch in plan_batches(texts, self._batch_characters):
            yield _answered(self._system, self._job, batch)


class _Audio:
    """Answers to audio, batches of similar length, the shortest first."""

    def __init__(
        self,
        system: System,
        job: Job,
        data_dir: Path,
        sources: Mapping[str, Source],
        batch_seconds: float,
        num_workers: int,
    ) -> None:
        self._system, self._job = system, job
        self._data_dir, self._sources = data_dir, sources
        self._batch_samples = round(batch_seconds * SAMPLE_RATE)
        self._num_workers = num_workers

    def __call__(self, keys: Sequence[str]) -> Iterator[Dict[str, List[Any]]]:
        wanted = set(keys)
        lengths = {d.key: d for d in utterance_samples(self._data_dir) if d.key in wanted}
        bad = {key: lengths[key].reason for key in keys if lengths[key].reason}
        if bad:
            yield {key: _record(None, reason) for key, reason in bad.items()}
        # What takes so many samples in a batch, without the samples.
        sized = [
            (key, range(self._system.padded_samples(lengths[key].num_samples)))
            for key in keys
            if key not in bad
        ]
        plan = plan_batches(sized, self._batch_samples)
        items = ((key, self._sources[key]) for batch in plan for key, _ in batch)
        stream = read_ahead(
            items,
            num_workers=self._num_workers,
            max_ahead_samples=_AHEAD_SECONDS * SAMPLE_RATE,
        )
        for planned in plan:
            found: Dict[str, List[Any]] = {}
            batch = []
            for _ in planned:
                key, samples, reason = next(stream)
                reason = reason or self._system.why_unusable(samples)
                if reason:
                    found[key] = _record(None, reason)
                else:
                    batch.append((key, samples))
            if batch:
                found.update(_answered(self._system, self._job, batch))
            yield found


def _answered(system: System, job: Job, batch: Sequence[Any]) -> Dict[str, List[Any]]:
    inputs: List[Input] = [value for _, value in batch]
    answers = system.answer(job, inputs)
    return {key: _record(said) for (key, _), said in zip(batch, answers, strict=True)}
