"""Which utterances k-means learns from: the same ones whatever else is going on.

Every utterance has a number that follows from seed, data directory and key, as good as random. The
utterances with the smallest numbers are taken, at most n of a speaker, until the hours are used
up. What is not taken is forgotten at once, so memory grows with the hours, not with the corpora.
"""

import hashlib
import heapq
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.durations import utterance_samples
from espnet_spire.units.sources import Source, iter_sources
from espnet_spire.utils.atomic import PathLike
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


def digest(utterances: Iterable[Sampled]) -> str:
    """Changes when other utterances, lengths or files are drawn."""
    total = hashlib.blake2b(digest_size=8)
    for item in utterances:
        total.update(repr((item.rank, item.key, item.num_samples, item.source)).encode())
    return total.hexdigest()


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
        utterances = _ranked(data_dir, corpus, seed)
        if limit:
            utterances = _few_of_a_speaker(utterances, data_dir, limit)
        for utterance in utterances:
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


def _few_of_a_speaker(
    utterances: Iterator[Sampled], data_dir: PathLike, limit: int
) -> Iterator[Sampled]:
    """The ``limit`` utterances of each speaker that come first in the random order."""
    kept: Dict[str, List[Tuple[int, Sampled]]] = {}
    path = f"{data_dir}/{UTT2SPK}"
    speakers = iter_table(path)
    found, speaker = next(speakers, (None, ""))
    for utterance in utterances:
        while found is not None and found < utterance.key:  # both are sorted
            found, speaker = next(speakers, (None, ""))
        if found != utterance.key:
            raise SpireError(f"{path}: utterance {utterance.key} is missing")
        heap = kept.setdefault(speaker, [])
        heapq.heappush(heap, (-utterance.rank, utterance))
        if len(heap) > limit:
            heapq.heappop(heap)
    for heap in kept.values():
        yield from (utterance for _, utterance in heap)
