"""Frames for k-means on disk: collected batch by batch, in shards, through kills.

A work directory holds, for each job, a file of frames (fixed-size records) and a journal with one
line for each batch whose frames are safely in it. Batches are cut from the whole sample before
jobs share them, and which frames of an utterance are kept follows from seed and utterance. So
neither the number of jobs nor kills change what is collected.
"""

import fcntl
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.batching import batches
from espnet_spire.units.reader import Decoded, read_ahead
from espnet_spire.units.sampling import Sampled, random_number
from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.datadir import shard_of
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import Journal, read_journal
from espnet_spire.utils.progress import progress

# Frames that are read at once.
_READ_BYTES = 4 * 2**20


class Collection(NamedTuple):
    """What to collect. ``keep``: share of the frames; ``dtype``: how they are held."""

    batches: List[List[Sampled]]
    keep: float
    dtype: np.dtype
    dim: int
    seed: int


class Stretch(NamedTuple):
    """The frames of one batch: ``count`` records of ``path`` from number ``first``."""

    path: Path
    first: int
    count: int


class Collected(NamedTuple):
    """All frames, in the order of the sample; samples read at 16 kHz; what could not be read."""

    stretches: List[Stretch]
    num_samples: int
    rejected: Dict[str, str]

    @property
    def num_frames(self) -> int:
        return sum(stretch.count for stretch in self.stretches)


def sample_batches(utterances: Sequence[Sampled], batch_seconds: float) -> List[List[Sampled]]:
    """Cut a sample into encoder batches by the lengths that are known beforehand."""
    # Only lengths matter here: a range has one and holds nothing.
    items = ((utterance, range(utterance.num_samples)) for utterance in utterances)
    cut = batches(items, max_samples=int(batch_seconds * SAMPLE_RATE))
    return [[utterance for utterance, _ in batch] for batch in cut]


def kept_frames(utterance: Sampled, count: int, keep: float, seed: int) -> np.ndarray:
    """Which of an utterance's ``count`` frames are kept; bool, (count,)."""
    if keep >= 1:
        return np.ones(count, dtype=bool)
    number = random_number(seed, utterance.corpus, utterance.key, "frames")
    return np.random.default_rng(number).random(count) < keep


def _paths(work: PathLike, num_shards: int, shard: int) -> Tuple[Path, Path]:
    stem = Path(work) / f"frames.{shard}-of-{num_shards}"
    return stem.with_name(stem.name + ".bin"), stem.with_name(stem.name + ".jsonl")


def collect_frames(
    encoder,
    collection: Collection,
    work: PathLike,
    *,
    num_shards: int = 1,
    shard: int = 1,
    num_workers: int = 2,
) -> None:
    """Encode the batches of one job that are not in the work directory yet.

    Raises:
        SpireError: features that the type does not hold; another process at the same job.
    """
    numbered = shard_of(list(enumerate(collection.batches)), num_shards, shard)
    data, journal_path = _paths(work, num_shards, shard)
    data.parent.mkdir(parents=True, exist_ok=True)
    with open(data, "ab") as stream:
        _lock(stream, data)
        journal = Journal(journal_path, {"dim": collection.dim, "dtype": collection.dtype.name})
        records = list(journal.records())
        size = sum(record["frames"] for record in records)
        _cut(stream, data, size * collection.dim * collection.dtype.itemsize)
        todo = numbered[len(records) :]
        items = ((item.key, item.source) for _, batch in todo for item in batch)
        decoded = read_ahead(
            items, num_workers=num_workers, max_ahead_samples=_ahead(collection.batches)
        )
        total = sum(len(batch) for _, batch in numbered)
        done = total - sum(len(batch) for _, batch in todo)
        with progress(total=total, initial=done, desc="frames for k-means", unit="utt") as bar:
            try:
                for number, batch in todo:
                    frames, record = _encode(encoder, collection, batch, decoded)
                    with disk_errors(data):
                        stream.write(frames.tobytes())
                        stream.flush()
                        os.fsync(stream.fileno())
                    journal.append({"batch": number, **record})
                    bar.update(len(batch))
            finally:
                decoded.close()


def _ahead(cut: List[List[Sampled]]) -> int:
    """Audio that may wait: about two batches."""
    return 2 * max((sum(item.num_samples for item in batch) for batch in cut), default=0)


def _lock(stream, path: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SpireError(f"{path}: another process is at this job; wait for it or end it") from None


def _cut(stream, path: Path, size: int) -> None:
    """Drop what was written after the last line of the journal."""
    there = os.fstat(stream.fileno()).st_size
    if there < size:
        raise SpireError(
            f"{path}: holds {there} bytes, its journal says {size}; remove {path.parent} to begin"
            " anew"
        )
    stream.truncate(size)


def _encode(
    encoder, collection: Collection, batch: List[Sampled], decoded: Iterator[Decoded]
) -> Tuple[np.ndarray, Dict[str, Any]]:
    """The frames of one batch that are kept, and what the journal says of it."""
    rejected: Dict[str, str] = {}
    usable: List[Tuple[Sampled, np.ndarray]] = []
    for utterance, found in zip(batch, (next(decoded) for _ in batch), strict=True):
        if found.samples is None:
            rejected[utterance.key] = found.reason
        elif encoder.num_frames(len(found.samples)) < 1:
            rejected[utterance.key] = f"{len(found.samples)} samples are shorter than one frame"
        else:
            usable.append((utterance, found.samples))
    features = encoder([samples for _, samples in usable]) if usable else []
    parts, num_samples = [np.zeros((0, collection.dim), collection.dtype)], 0
    for (utterance, samples), rows in zip(usable, features, strict=True):
        rows = rows.cpu().numpy()
        if not np.isfinite(rows).all():
            rejected[utterance.key] = "its features are not finite"
            continue
        kept = kept_frames(utterance, len(rows), collection.keep, collection.seed)
        parts.append(_converted(rows[kept], collection.dtype, utterance.key))
        num_samples += len(samples)
    frames = np.concatenate(parts)
    return frames, {"frames": len(frames), "samples": num_samples, "rejected": rejected}


def _converted(rows: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    largest = float(np.abs(rows).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        raise SpireError(
            f"{key}: a feature of {largest:g} does not fit {dtype.name}; use --backend sklearn,"
            " which holds float32"
        )
    return rows.astype(dtype)


def read_collection(work: PathLike, collection: Collection, num_shards: int) -> Collected:
    """What all jobs collected.

    Raises:
        SpireError: a job has not finished; it names the job.
    """
    places: Dict[int, Stretch] = {}
    rejected: Dict[str, str] = {}
    num_samples = 0
    for shard in range(1, num_shards + 1):
        data, journal = _paths(work, num_shards, shard)
        expected = len(shard_of(collection.batches, num_shards, shard))
        first = found = 0
        for record in read_journal(journal) if journal.exists() else ():
            places[record["batch"]] = Stretch(data, first, record["frames"])
            first += record["frames"]
            num_samples += record["samples"]
            rejected.update(record["rejected"])
            found += 1
        if found < expected:
            raise SpireError(
                f"{data}: job {shard} of {num_shards} has not finished ({found} of {expected}"
                " batches); run it again"
            )
    return Collected([places[number] for number in sorted(places)], num_samples, rejected)


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
