"""Frames for k-means on disk: what jobs collect in a work directory, and how it is loaded.

A work directory holds, for each job, a file of frames (fixed-size records) and a journal with one
line for each batch whose frames are safely in it: ``batch`` (its number; none for one of
utterances that were unusable at first), ``frames`` and ``samples`` (counts), ``audio`` (data
directory, key and stamp of each utterance in it), ``rejected`` (data directory, key, reason).
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.batching import batches
from espnet_spire.units.rxfilename import file_state
from espnet_spire.units.sampling import Sampled, random_number
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import shard_of
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import read_journal_offsets

# Frames that are read at once.
_READ_BYTES = 4 * 2**20

# Number of the data directory, and key: two directories may have the same key.
Name = Tuple[int, str]


class Collection(NamedTuple):
    """What to collect.

    ``batches``: utterances whose length is known; ``unknown``: the others, which are tried after
    them; ``max_samples``: of a padded batch; ``keep``: share of the frames; ``dtype``: how they
    are held; ``sample``: a digest of all utterances.
    """

    batches: List[List[Sampled]]
    unknown: List[Sampled]
    max_samples: int
    keep: float
    dtype: np.dtype
    dim: int
    seed: int
    sample: str

    @property
    def header(self) -> Dict[str, Any]:
        """What a journal is of."""
        return {"dim": self.dim, "dtype": self.dtype.name, "sample": self.sample}

    def part(self, num_shards: int, shard: int) -> "Collection":
        """The share of one job."""
        return self._replace(
            batches=shard_of(self.batches, num_shards, shard),
            unknown=shard_of(self.unknown, num_shards, shard),
        )

    def by_name(self) -> Dict[Name, Sampled]:
        """All utterances."""
        known = (item for batch in self.batches for item in batch)
        return {name_of(item): item for part in (known, self.unknown) for item in part}


class Stretch(NamedTuple):
    """The frames of one batch: ``count`` records of ``path`` from number ``first``."""

    path: Path
    first: int
    count: int


class Collected(NamedTuple):
    """All frames, in the order of the sample; samples read at 16 kHz; what could not be used.

    ``digest`` tells these frames from others.
    """

    stretches: List[Stretch]
    num_samples: int
    rejected: Dict[Name, str]
    digest: str

    @property
    def num_frames(self) -> int:
        return sum(stretch.count for stretch in self.stretches)


def name_of(utterance: Sampled) -> Name:
    """What an utterance is known by among all data directories."""
    return utterance.corpus, utterance.key


def make_collection(
    utterances: Sequence[Sampled],
    *,
    batch_seconds: float,
    keep: float,
    dtype: np.dtype,
    dim: int,
    seed: int,
    sample: str = "",
) -> Collection:
    """Cut a sample into encoder batches, by the lengths that are known beforehand."""
    known = [utterance for utterance in utterances if utterance.reason is None]
    unknown = [utterance for utterance in utterances if utterance.reason is not None]
    max_samples = int(batch_seconds * SAMPLE_RATE)
    # Only lengths matter here: a range has one and holds nothing.
    items = ((utterance, range(utterance.num_samples)) for utterance in known)
    cut = batches(items, max_samples=max_samples)
    planned = [[utterance for utterance, _ in batch] for batch in cut]
    return Collection(planned, unknown, max_samples, keep, dtype, dim, seed, sample)


def kept_frames(utterance: Sampled, count: int, keep: float, seed: int) -> np.ndarray:
    """Which of an utterance's ``count`` frames are kept; bool, (count,)."""
    if keep >= 1:
        return np.ones(count, dtype=bool)
    number = random_number(seed, utterance.corpus, utterance.key, "frames")
    return np.random.default_rng(number).random(count) < keep


def job_files(work: PathLike, num_shards: int, shard: int) -> Tuple[Path, Path]:
    """Frames and journal of one job."""
    stem = Path(work) / f"frames.{shard}-of-{num_shards}"
    return stem.with_name(stem.name + ".bin"), stem.with_name(stem.name + ".jsonl")


def read_records(journal: Path, part: Collection) -> List[Tuple[int, Dict[str, Any]]]:
    """A job's journal, with places in the file; nothing where it is not there or of other work."""
    if not journal.exists():
        return []
    (_, header), *records = [*read_journal_offsets(journal)] or [(0, {})]
    return records if header.get("settings") == part.header else []


def changed_audio(record: Dict[str, Any], utterances: Dict[Name, Sampled]) -> Optional[Sampled]:
    """The first utterance of a journal's record whose audio was written anew since."""
    for corpus, key, before in record["audio"]:
        utterance = utterances[corpus, key]
        # What cannot be asked now, on a disk that is not mounted here, is taken to be the same.
        if before is not None and file_state(utterance.source.rxfilename) not in (before, None):
            return utterance
    return None


def unusable(part: Collection, records: Iterable[Dict[str, Any]]) -> Dict[Name, str]:
    """What cannot be used, and why, by a job's journal."""
    rejected = {name_of(item): item.reason for item in part.unknown}
    for record in records:
        for corpus, key, _ in record["audio"]:
            rejected.pop((corpus, key), None)
        rejected.update({(corpus, key): reason for corpus, key, reason in record["rejected"]})
    return rejected


def read_collection(work: PathLike, collection: Collection, num_shards: int) -> Collected:
    """What all jobs collected.

    Raises:
        SpireError: a job has not finished, or its audio has changed since; it names the job.
    """
    found: List[Tuple[Tuple, Stretch, Dict[str, Any]]] = []
    rejected: Dict[Name, str] = {}
    for shard in range(1, num_shards + 1):
        data, journal = job_files(work, num_shards, shard)
        part = collection.part(num_shards, shard)
        records = [record for _, record in read_records(journal, part)]
        _check_job(records, part, data, f"job {shard} of {num_shards}")
        rejected.update(unusable(part, records))
        first = 0
        for position, record in enumerate(records):
            number = record["batch"]
            order = (number is None, number or 0, shard, position)
            found.append((order, Stretch(data, first, record["frames"]), record))
            first += record["frames"]
    found.sort(key=lambda item: item[0])
    digest = hashlib.blake2b(digest_size=8)
    for _, stretch, record in found:
        if record["audio"]:  # the others only have reasons
            digest.update(json.dumps([stretch.count, record["audio"]]).encode())
    return Collected(
        [stretch for _, stretch, _ in found],
        sum(record["samples"] for _, _, record in found),
        rejected,
        digest.hexdigest(),
    )


def _check_job(records: List[Dict[str, Any]], part: Collection, data: Path, job: str) -> None:
    done = sum(record["batch"] is not None for record in records)
    if done < len(part.batches):
        raise SpireError(
            f"{data}: {job} has not finished ({done} of {len(part.batches)} batches); run it again"
        )
    utterances = part.by_name()
    for record in records:
        changed = changed_audio(record, utterances)
        if changed is not None:
            raise SpireError(
                f"{data}: the audio of utterance {changed.key} has changed since {job} read it;"
                " run the job again"
            )


def load_frames(
    collected: Collected, collection: Collection, *, capacity: int
) -> Tuple[np.ndarray, np.ndarray]:
    """All frames in random order, without their mean, in one array and little beside it.

    Args:
        capacity: at most so many frames; more of them are thinned out at random.

    Returns:
        frames of ``collection.dtype``, (n, D), and the mean that was taken off, float32, (D,).
    """
    total = np.zeros(collection.dim)
    for rows in _read(collected, collection):
        total += rows.sum(axis=0, dtype=np.float64)
    count = collected.num_frames
    mean = (total / max(1, count)).astype(np.float32)
    places = np.random.default_rng(random_number(collection.seed, "order")).permutation(count)
    frames = np.empty((min(count, capacity), collection.dim), collection.dtype)
    first = 0
    for rows in _read(collected, collection):
        to = places[first : first + len(rows)]
        inside = to < len(frames)
        frames[to[inside]] = rows[inside].astype(np.float32) - mean
        first += len(rows)
    return frames, mean


def _read(collected: Collected, collection: Collection) -> Iterator[np.ndarray]:
    record = collection.dim * collection.dtype.itemsize
    for stretch in collected.stretches:
        most = max(1, _READ_BYTES // record)
        for first in range(0, stretch.count, most):
            count = min(most, stretch.count - first)
            rows = np.fromfile(
                stretch.path,
                collection.dtype,
                count * collection.dim,
                offset=(stretch.first + first) * record,
            )
            if len(rows) != count * collection.dim:
                raise SpireError(
                    f"{stretch.path}: is cut off; remove {stretch.path.parent} to begin anew"
                )
            yield rows.reshape(count, collection.dim)
