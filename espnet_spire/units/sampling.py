"""Which utterances k-means learns from: the same ones whatever else is going on.

Every utterance has a number that follows from seed, data directory and key, as good as random. The
utterances with the smallest numbers are taken, at most n of a speaker, until the hours are used
up. What is not taken is forgotten at once, so memory grows with the hours, not with the corpora;
only a limit on speakers takes some bytes for each utterance of the directory at hand.

The sample is drawn once and written down. Other jobs and later starts read it: audio that was
mended meanwhile has another length, and must not give another sample.
"""

import hashlib
import heapq
import json
from array import array
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.durations import utterance_samples
from espnet_spire.units.sources import Source, iter_sources
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.datadir import UTT2SPK, iter_table
from espnet_spire.utils.errors import SpireError


class Sampled(NamedTuple):
    """An utterance that was drawn.

    ``rank``: its place in the random order; ``corpus``: index of its data directory;
    ``num_samples``: length at 16 kHz, 0 where ``reason`` says why it has none.
    """

    rank: int
    corpus: int
    key: str
    num_samples: int
    source: Source
    reason: Optional[str] = None


def random_number(*parts: object) -> int:
    """64 bits that follow from ``parts`` alone, on every machine."""
    text = "\t".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def speaker_limits(
    data_dirs: Sequence[PathLike], max_per_speaker: Sequence[int]
) -> List[Optional[int]]:
    """One limit a data directory, from none, one for all, or one for each; 0 is no limit."""
    limits = list(max_per_speaker) or [0]
    if min(limits) < 0:
        raise SpireError(f"--max_per_speaker {min(limits)}: give a number from 0 (no limit)")
    if len(limits) == 1:
        limits = limits * len(data_dirs)
    if len(limits) != len(data_dirs):
        raise SpireError(
            f"{len(limits)} values of --max_per_speaker for {len(data_dirs)} --data_dir; give one,"
            " or one for each"
        )
    return [limit or None for limit in limits]


def sample_utterances(
    data_dirs: Sequence[PathLike],
    *,
    hours: float,
    max_per_speaker: Sequence[int] = (),
    seed: int,
) -> List[Sampled]:
    """Draw utterances of all directories, in one random order, until ``hours`` are used up.

    Args:
        data_dirs: Kaldi data directories; the same speaker name in two is two speakers.
        hours: of audio; the utterance that crosses the limit still belongs.
        max_per_speaker: see :func:`speaker_limits`; a limit needs ``utt2spk``.
        seed: another gives other utterances in another order.

    Returns:
        utterances in their random order, those without a length (``reason``) among them.
    """
    if not hours > 0:
        raise SpireError(f"--hours {hours:g}: more than 0 hours of audio are needed")
    chosen = _First(hours * 3600 * SAMPLE_RATE)
    limits = speaker_limits(data_dirs, max_per_speaker)
    for corpus, (data_dir, limit) in enumerate(zip(data_dirs, limits, strict=True)):
        few = _few_of_a_speaker(data_dir, corpus, seed, limit) if limit else None
        for number, utterance in enumerate(_ranked(data_dir, corpus, seed)):
            if few is None or few[number]:
                chosen.offer(utterance)
    return chosen.in_order()


class _First:
    """Keeps those of the smallest rank that together reach a number of samples."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._total = 0
        self._heap: List[Tuple[int, Sampled]] = []  # the last in order on top

    def offer(self, utterance: Sampled) -> None:
        if self._total >= self._budget and utterance.rank > self._heap[0][1].rank:
            return
        heapq.heappush(self._heap, (-utterance.rank, utterance))
        self._total += utterance.num_samples
        while self._total - self._heap[0][1].num_samples >= self._budget:
            self._total -= heapq.heappop(self._heap)[1].num_samples

    def in_order(self) -> List[Sampled]:
        return [utterance for _, utterance in sorted(self._heap, reverse=True)]


def _ranked(data_dir: PathLike, corpus: int, seed: int) -> Iterator[Sampled]:
    lengths = utterance_samples(data_dir)
    for (key, source), length in zip(iter_sources(data_dir), lengths, strict=True):
        rank = random_number(seed, corpus, key)
        yield Sampled(rank, corpus, key, length.num_samples, source, length.reason)


def _few_of_a_speaker(data_dir: PathLike, corpus: int, seed: int, limit: int) -> np.ndarray:
    """Whether an utterance is among its speaker's first ``limit`` in the random order.

    Two numbers for each utterance are in memory, however many speakers there are.

    Returns:
        bool, (utterances,), in file order.
    """
    ranks, speakers = array("Q"), array("Q")
    path = f"{data_dir}/{UTT2SPK}"
    lines = iter_table(path)
    found, speaker = next(lines, (None, ""))
    for key, _ in iter_sources(data_dir):
        while found is not None and found < key:  # both are sorted
            found, speaker = next(lines, (None, ""))
        if found != key:
            raise SpireError(f"{path}: utterance {key} is missing")
        ranks.append(random_number(seed, corpus, key))
        speakers.append(random_number(speaker))
    speaker_of = np.frombuffer(speakers, np.uint64)
    order = np.lexsort((np.frombuffer(ranks, np.uint64), speaker_of))
    sorted_speakers = speaker_of[order]
    # The n-th of a speaker is one whose n-th before it is not the same speaker.
    beyond = np.zeros(len(order), dtype=bool)
    beyond[limit:] = sorted_speakers[limit:] == sorted_speakers[:-limit]
    few = np.empty(len(order), dtype=bool)
    few[order] = ~beyond
    return few


def write_sample(path: PathLike, utterances: Iterable[Sampled]) -> None:
    """Write a sample down, a line an utterance, atomically."""
    with atomic_write(path) as stream:
        for item in utterances:
            fields = [item.rank, item.corpus, item.key, item.num_samples, item.reason]
            line = json.dumps([*fields, *_place(item.source)], ensure_ascii=False)
            stream.write(line + "\n")


def read_sample(path: PathLike, data_dirs: Sequence[PathLike]) -> List[Sampled]:
    """Read what :func:`write_sample` wrote.

    Lengths are those that were written. Where audio is comes from the data directories, which
    must say what they said then; what they promise of its length may have been corrected.

    Raises:
        SpireError: an utterance is gone, or its audio is another file or part of one.
    """
    anew = f"remove {Path(path).parent} to begin anew"
    sample: List[Sampled] = []
    numbers: List[Dict[str, int]] = [{} for _ in data_dirs]
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream):
                rank, corpus, key, num_samples, reason, *place = json.loads(line)
                sample.append(Sampled(rank, corpus, key, num_samples, Source(*place), reason))
                numbers[corpus][key] = number
    except (ValueError, TypeError, IndexError):
        raise SpireError(f"{path}: not a sample; {anew}") from None
    for data_dir, left in zip(data_dirs, numbers, strict=True):
        for key, source in iter_sources(data_dir):
            number = left.pop(key, None)
            if number is None:
                continue
            if _place(source) != _place(sample[number].source):
                raise SpireError(
                    f"{data_dir}: the audio of utterance {key} was {_place(sample[number].source)}"
                    f" when the sample was drawn, now it is {_place(source)}; undo that, or {anew}"
                )
            sample[number] = sample[number]._replace(source=source)
        for key in left:
            raise SpireError(
                f"{data_dir}: utterance {key} of the sample is gone; put it back, or {anew}"
            )
    return sample


def _place(source: Source) -> Tuple[str, float, Optional[float]]:
    return source.rxfilename, source.start, source.end
