"""Cut a data directory into chunks that stay what they are when it is changed elsewhere.

A chunk is a run of utterances, and the piece of work that jobs share out and take up again. It
ends where a checksum of the utterance's name says so: when a line is added, removed or changed,
its own chunk and perhaps the next are other ones, and all the rest are as before.
"""

import hashlib
import itertools
import zlib
from functools import lru_cache
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from espnet_spire.units.rxfilename import file_state
from espnet_spire.units.sources import Source

# Utterances a chunk: at least, at most; 32 on average.
_FEWEST, _MOST = 16, 128
_ONE_IN = 16


class Chunk(NamedTuple):
    """``utterances``: (key, source); ``tags``: of each key, a digest of where its audio is and,
    for files, of their size and time of change."""

    utterances: List[Tuple[str, Source]]
    tags: Dict[str, str]

    @property
    def name(self) -> str:
        return self.utterances[0][0]

    @property
    def digest(self) -> str:
        return _digest("\n".join(self.tags) + "\t" + " ".join(self.tags.values()))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=64)  # segments of a recording follow each other
def _state(rxfilename: str) -> Optional[str]:
    return file_state(rxfilename)


def tag(source: Source) -> str:
    """What must be as it was for the units of an utterance to be still its units."""
    where = f"{source.rxfilename}\t{source.start}\t{source.end}\t{source.expected}"
    if source.channel is not None:
        where += f"\t{source.channel}"
    return _digest(f"{where}\t{_state(source.rxfilename)}")


def chunks(
    sources: Iterable[Tuple[str, Source]], num_shards: int = 1, shard: int = 1
) -> Iterator[Chunk]:
    """Cut utterances, in the order of the data directory; one chunk is in memory at a time.

    Of job ``shard`` of ``num_shards`` there is every ``num_shards``-th chunk: a set sorted by
    speaker or length gives jobs of about equal work. Tags are taken as a chunk comes, before its
    audio can be read: what changes meanwhile has changed since.
    """
    _state.cache_clear()
    for utterances in itertools.islice(_cut(sources), shard - 1, None, num_shards):
        yield Chunk(utterances, {key: tag(source) for key, source in utterances})


def _cut(sources: Iterable[Tuple[str, Source]]) -> Iterator[List[Tuple[str, Source]]]:
    utterances: List[Tuple[str, Source]] = []
    for key, source in sources:
        utterances.append((key, source))
        ends = zlib.crc32(key.encode()) % _ONE_IN == 0
        if (ends and len(utterances) >= _FEWEST) or len(utterances) == _MOST:
            yield utterances
            utterances = []
    if utterances:
        yield utterances


class DataDigest:
    """A digest of all chunks that were added, in their order."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=8)

    def add(self, chunk: Chunk) -> None:
        self._digest.update(chunk.digest.encode())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
