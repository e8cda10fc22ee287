"""One job of collecting frames for k-means: batch by batch, through kills.

Batches are cut from the whole sample before jobs share them, and which frames of an utterance are
kept follows from seed and utterance. So neither the number of jobs nor kills change what is
collected.

Utterances that could not be used are tried again at every later start, and what has become usable
is appended in further batches; where all were usable, or none was mended, there are no such. From
the first batch whose audio was written anew since it was read, everything is collected again.
"""

import contextlib
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.units.batching import plan_batches, windows
from espnet_spire.units.frames import (
    Collection,
    Name,
    changed_audio,
    job_files,
    kept_frames,
    name_of,
    read_records,
    unusable,
)
from espnet_spire.units.reader import read_ahead
from espnet_spire.units.rxfilename import file_state
from espnet_spire.units.sampling import Sampled
from espnet_spire.units.sources import Source
from espnet_spire.units.unusable import NOT_FINITE, why_unusable
from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.datadir import shard_of
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import Journal
from espnet_spire.utils.lock import lock
from espnet_spire.utils.progress import progress

Write = Callable[[np.ndarray, Dict[str, Any]], None]


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
    part = collection.part(num_shards, shard)
    numbered = shard_of(list(enumerate(collection.batches)), num_shards, shard)
    data, journal_path = job_files(work, num_shards, shard)
    data.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        stream = held.enter_context(open(data, "ab"))
        lock(stream, data)
        records = _unchanged(journal_path, part)
        size = sum(record["frames"] for record in records)
        _cut(stream, data, size * part.dim * part.dtype.itemsize)
        journal = held.enter_context(contextlib.closing(Journal(journal_path, part.header)))

        def write(frames: np.ndarray, record: Dict[str, Any]) -> None:
            with disk_errors(data):
                stream.write(frames.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
            journal.append(record)

        before = unusable(part, records)
        done = sum(record["batch"] is not None for record in records)
        _collect(encoder, part, numbered, done, num_workers, write)
        if before:
            _retry(encoder, part, before, num_workers, write)


def _collect(
    encoder,
    part: Collection,
    numbered: List[Tuple[int, List[Sampled]]],
    done: int,
    num_workers: int,
    write: Write,
) -> None:
    """Write the batches from number ``done`` of the job on."""
    counts = [len(batch) for _, batch in numbered]
    items = (item for _, batch in numbered[done:] for item in batch)
    with (
        _Audio(items, part, num_workers) as audio,
        progress(
            total=sum(counts), initial=sum(counts[:done]), desc="frames for k-means", unit="utt"
        ) as bar,
    ):
        for number, batch in numbered[done:]:
            frames, record = _encode(encoder, part, [next(audio) for _ in batch])
            write(frames, {"batch": number, **record})
            bar.update(len(batch))


def _retry(
    encoder, part: Collection, before: Dict[Name, str], num_workers: int, write: Write
) -> None:
    """Write what was unusable ``before``, for these reasons, and is usable now."""
    utterances = part.by_name()
    items = sorted((utterances[name] for name in before), key=lambda item: item.rank)
    mended = 0
    with _Audio(items, part, num_workers) as audio:
        for window in windows(audio, size=_size, most=2 * part.max_samples):
            pairs = [(one, one.samples) for one in window if one.samples is not None]
            cut = [[one for one, _ in pair] for pair in plan_batches(pairs, part.max_samples)]
            for batch in [*cut, [one for one in window if one.samples is None]]:
                frames, record = _encode(encoder, part, batch)
                # A start that finds all as it was leaves all as it was.
                if record["audio"] or any(
                    before[corpus, key] != reason for corpus, key, reason in record["rejected"]
                ):
                    write(frames, {"batch": None, **record})
                mended += len(record["audio"])
    if mended:
        logging.info("%d of %d unusable utterances are usable now", mended, len(before))


def _unchanged(path: Path, part: Collection) -> List[Dict[str, Any]]:
    """The records of a journal; it is cut back to before the first whose audio has changed."""
    records = read_records(path, part)
    utterances = part.by_name() if records else {}
    for number, (place, record) in enumerate(records):
        changed = changed_audio(record, utterances)
        if changed is None:
            continue
        logging.warning(
            "%s: the audio of utterance %s has changed since it was read: the last %d of %d"
            " batches are collected again",
            path.parent,
            changed.key,
            len(records) - number,
            len(records),
        )
        # The frames behind are cut off by what the journal says then.
        os.truncate(path, place)
        return [record for _, record in records[:number]]
    return [record for _, record in records]


def _cut(stream, path: Path, size: int) -> None:
    """Drop what was written after the last line of the journal."""
    there = os.fstat(stream.fileno()).st_size
    if there < size:
        raise SpireError(
            f"{path}: holds {there} bytes, its journal says {size}; remove {path.parent} to begin"
            " anew"
        )
    stream.truncate(size)


class _Read(NamedTuple):
    """An utterance, its samples or the reason for none, and the stamp of its audio."""

    utterance: Sampled
    samples: Optional[np.ndarray]
    reason: Optional[str]
    stamp: Optional[str]


def _size(one: _Read) -> int:
    return 0 if one.samples is None else len(one.samples)


class _Audio:
    """Iterates over utterances that are decoded in the background; ends with its block."""

    def __init__(self, utterances: Iterator[Sampled], part: Collection, num_workers: int) -> None:
        self._begun: Deque[Tuple[Sampled, Optional[str]]] = deque()
        self._decoded = read_ahead(
            self._stamped(utterances),
            num_workers=num_workers,
            max_ahead_samples=2 * part.max_samples,
        )

    def _stamped(self, utterances: Iterator[Sampled]) -> Iterator[Tuple[str, Source]]:
        for utterance in utterances:
            # Before it is read: what changes meanwhile has changed since.
            self._begun.append((utterance, file_state(utterance.source.rxfilename)))
            yield utterance.key, utterance.source

    def __enter__(self) -> "_Audio":
        return self

    def __exit__(self, *_: object) -> None:
        self._decoded.close()

    def __iter__(self) -> "_Audio":
        return self

    def __next__(self) -> _Read:
        found = next(self._decoded)
        utterance, stamp = self._begun.popleft()
        return _Read(utterance, found.samples, found.reason, stamp)


def _encode(
    encoder, collection: Collection, batch: Sequence[_Read]
) -> Tuple[np.ndarray, Dict[str, Any]]:
    """The frames of one batch that are kept, and what the journal says of it."""
    rejected: Dict[Name, str] = {}
    usable: List[_Read] = []
    for one in batch:
        reason = why_unusable(encoder, one.samples, one.reason)
        if reason is None:
            usable.append(one)
        else:
            rejected[name_of(one.utterance)] = reason
    features = encoder([one.samples for one in usable]) if usable else []
    parts = [np.zeros((0, collection.dim), collection.dtype)]
    audio, num_samples = [], 0
    for one, rows in zip(usable, features, strict=True):
        rows = rows.cpu().numpy()
        if not np.isfinite(rows).all():
            rejected[name_of(one.utterance)] = NOT_FINITE
            continue
        kept = kept_frames(one.utterance, len(rows), collection.keep, collection.seed)
        parts.append(_converted(rows[kept], collection.dtype, one.utterance.key))
        audio.append([*name_of(one.utterance), one.stamp])
        num_samples += len(one.samples)
    frames = np.concatenate(parts)
    return frames, {
        "frames": len(frames),
        "samples": num_samples,
        "audio": audio,
        "rejected": [[*name, reason] for name, reason in rejected.items()],
    }


def _converted(rows: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    largest = float(np.abs(rows).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        raise SpireError(
            f"{key}: a feature of {largest:g} does not fit {dtype.name}; use --backend sklearn,"
            " which holds float32"
        )
    return rows.astype(dtype)
