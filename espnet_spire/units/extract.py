"""Data directories to unit files: restartable, in constant memory, in the directory's order.

A job reads its utterances a window at a time (some minutes of audio), encodes a window in batches
of similar length, and writes each batch to a journal when it is done. What was done before a kill
is not done again: the cuts and the batches depend on the data alone. When all jobs of a data set
have ended, their journals are joined into the unit file.
"""

import hashlib
import heapq
import itertools
import logging
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from espnet_spire.units.assign import Assigner
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.batching import plan_batches, windows
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.encoder import Encoder
from espnet_spire.units.notation import merge_repeats, units_to_line
from espnet_spire.units.reader import Decoded, read_ahead
from espnet_spire.units.sources import Source, iter_sources
from espnet_spire.units.unit_files import rejected_file
from espnet_spire.utils.atomic import PathLike, atomic_write, write_json
from espnet_spire.utils.datadir import SEGMENTS, WAV_SCP
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import Journal, read_journal
from espnet_spire.utils.progress import progress
from espnet_spire.utils.shards import shard_file, shard_files

# Batches a window: enough for lengths within a batch to be alike.
WINDOW_BATCHES = 16
# float32 features of a batch and of transformers' own pass differ by rounding: 5e-7 of a frame's
# length at most, seen over hours of speech, along the line between two centroids. Utterances with
# a frame nearer than this to the border of its unit are done again, alone.
SAFE_MARGIN = 2e-6
# Share of the audio that bfloat16 units are compared on with float32 ones.
CHECKED_SHARE = 0.0025


class Options(NamedTuple):
    """What, besides encoder and codebook, decides what is done.

    ``batch_seconds``: padded audio a batch. ``num_workers``: threads that decode audio.
    """

    keep_repeats: bool = False
    batch_seconds: float = 40.0
    num_workers: int = 2


class Summary(NamedTuple):
    """Counts of a unit file; ``seconds`` are of audio, ``wall`` of work (of all jobs together).

    ``alone``: utterances that were done again one at a time for exactness. ``checked`` and
    ``agreed``: frames whose bfloat16 unit was compared with the float32 one, and was the same.
    """

    utterances: int = 0
    rejected: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    frames: int = 0
    units: int = 0
    alone: int = 0
    checked: int = 0
    agreed: int = 0

    def plus(self, record: Dict[str, Any]) -> "Summary":
        counts = record["counts"]
        return Summary(*(have + counts.get(name, 0) for name, have in self._asdict().items()))

    def line(self) -> str:
        """For people."""
        parts = [
            f"{self.utterances:,} utterances",
            f"{self.seconds / 3600:,.2f} h",
            f"{self.frames:,} frames",
            f"{self.units:,} units",
            f"{self.rejected:,} rejected",
        ]
        if self.wall > 0:
            parts.append(f"{self.seconds / self.wall:,.1f} x real time a job")
        if self.alone:
            parts.append(f"{self.alone:,} done again alone")
        if self.checked:
            share = self.agreed / self.checked
            parts.append(f"bfloat16 agrees on {share:.2%} of {self.checked:,} frames with float32")
        return ", ".join(parts)


def journal_file(out: PathLike, num_shards: int, shard: int) -> Path:
    """Where job ``shard`` of ``num_shards`` notes what it has done for ``out``."""
    return shard_file(f"{out}.journal", num_shards, shard)


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()[:16]


def _settings(
    encoder: Encoder, codebook: Codebook, data_dir: Path, options: Options, num_shards: int
) -> Dict[str, Any]:
    centroids = codebook.centroids.contiguous().numpy().tobytes()
    return {
        **encoder.settings,
        "codebook": hashlib.sha256(centroids).hexdigest()[:16],
        "data": _digest(data_dir / WAV_SCP, data_dir / SEGMENTS),
        "keep_repeats": options.keep_repeats,
        "batch_seconds": options.batch_seconds,
        "num_shards": num_shards,
    }


class _Progress(NamedTuple):
    """What a journal says: whole windows, batches of the next one, rejected utterances."""

    windows: int
    utterances: int
    batches: List[int]
    rejected: Dict[str, str]
    finished: bool


def _read_progress(journal: Journal) -> _Progress:
    whole, utterances = 0, 0
    batches: List[int] = []
    rejected: Dict[str, str] = {}
    finished = False
    for record in journal.records():
        rejected.update(record["rejected"])
        for key in record["units"]:
            rejected.pop(key, None)
        finished = finished or record.get("finished", False)
        if "window" not in record:
            continue
        batches.append(record["batch"])
        if len(batches) == record["batches"]:
            whole, utterances, batches = whole + 1, utterances + record["utterances"], []
    return _Progress(whole, utterances, batches, rejected, finished)


class Job:
    """One job of the extraction of one data directory."""

    def __init__(
        self,
        encoder: Encoder,
        assigner: Assigner,
        codebook: Codebook,
        options: Options,
    ) -> None:
        codebook.check_encoder(encoder.description)
        self.encoder = encoder
        self.assigner = assigner
        self.codebook = codebook
        self.options = options
        self.max_samples = max(1, int(options.batch_seconds * SAMPLE_RATE))
        self._samples = 0
        self._checked = 0

    def run(
        self, data_dir: PathLike, out: PathLike, *, num_shards: int = 1, shard: int = 1
    ) -> None:
        """Do what is left of this job's part; the journal beside ``out`` holds the result."""
        data_dir = Path(data_dir)
        journal = Journal(
            journal_file(out, num_shards, shard),
            _settings(self.encoder, self.codebook, data_dir, self.options, num_shards),
        )
        done = _read_progress(journal)
        if done.finished:
            if done.rejected:
                self._retry(journal, data_dir, done.rejected)
            return
        if done.utterances or done.batches:
            logging.info("%s: goes on after %d utterances", out, done.utterances)
        # Also finds whatever is wrong with the directory before the first minute of work.
        total = sum(1 for _ in _part(iter_sources(data_dir), num_shards, shard))
        with progress(
            total=total, desc=f"units {data_dir}", unit="utt", initial=done.utterances
        ) as bar:
            sources = _part(iter_sources(data_dir), num_shards, shard)
            left = itertools.islice(sources, done.utterances, None)
            for number, window in enumerate(self._read(left), done.windows):
                skip = set(done.batches) if number == done.windows else set()
                self._window(journal, number, window, skip)
                bar.update(len(window))
        journal.append({"units": {}, "rejected": {}, "counts": {}, "finished": True})

    def _read(self, sources: Iterator[Tuple[str, Source]]) -> Iterator[List[Decoded]]:
        most = WINDOW_BATCHES * self.max_samples
        decoded = read_ahead(
            sources, num_workers=self.options.num_workers, max_ahead_samples=most // 2
        )
        return windows(
            decoded, size=lambda one: 0 if one.samples is None else len(one.samples), most=most
        )

    def _split(self, window: List[Decoded]):
        """What can be encoded of a window, as batches, and what cannot, with reasons."""
        rejected, usable = {}, []
        for key, samples, reason in window:
            if samples is None:
                rejected[key] = reason
            elif self.encoder.num_frames(len(samples)) < 1:
                rejected[key] = f"{len(samples)} samples are shorter than one frame"
            else:
                usable.append((key, samples))
        return plan_batches(usable, self.max_samples), rejected

    def _window(self, journal: Journal, number: int, window: List[Decoded], skip: set) -> None:
        batches, rejected = self._split(window)
        # a window of nothing but rejected utterances is noted as well
        for position, batch in enumerate(batches or [[]]):
            if position in skip:
                continue
            journal.append(
                {
                    "window": number,
                    "utterances": len(window),
                    "batch": position,
                    "batches": max(1, len(batches)),
                    **self._record(batch, rejected if position == 0 else {}),
                }
            )

    def _retry(self, journal: Journal, data_dir: Path, rejected: Dict[str, str]) -> None:
        """Look again at what was rejected: its audio may have been mended since."""
        sources = ((key, source) for key, source in iter_sources(data_dir) if key in rejected)
        for window in self._read(sources):
            batches, still = self._split(window)
            for batch in batches:
                record = self._record(batch, {})
                record["counts"]["rejected"] = -len(batch)
                journal.append(record)
            logging.info(
                "%d of %d rejected utterances are readable now",
                len(window) - len(still),
                len(window),
            )

    def _record(self, batch, rejected: Dict[str, str]) -> Dict[str, Any]:
        started = time.monotonic()
        units, counts = self._encode(batch) if batch else ({}, {})
        counts["rejected"] = len(rejected)
        counts["wall"] = round(time.monotonic() - started, 4)
        return {"units": units, "rejected": rejected, "counts": counts}

    def _encode(self, batch) -> Tuple[Dict[str, str], Dict[str, Any]]:
        """Units of a batch as lines of a unit file, and counts for the summary."""
        waveforms = [samples for _, samples in batch]
        features = self.encoder(waveforms)
        alone = 0
        lines = {}
        counts = {"utterances": len(batch), "frames": 0, "units": 0, "checked": 0, "agreed": 0}
        for (key, samples), frames in zip(batch, features, strict=True):
            units, margins = self.assigner(frames)
            if self.encoder.compares_alone and bool((margins < SAFE_MARGIN).any()):
                units = self.assigner(self.encoder.alone(samples)).units
                alone += 1
            if self._must_check(len(samples)):
                exact = self.assigner(self.encoder.alone(samples)).units
                counts["checked"] += len(exact)
                counts["agreed"] += int((units == exact).sum())
            line = units.numpy() if self.options.keep_repeats else merge_repeats(units.numpy())
            lines[key] = units_to_line(line)
            counts["frames"] += len(units)
            counts["units"] += len(line)
        counts["alone"] = alone
        counts["seconds"] = sum(map(len, waveforms)) / SAMPLE_RATE
        return lines, counts

    def _must_check(self, samples: int) -> bool:
        """Whether bfloat16 units of this utterance are compared with float32 ones."""
        self._samples += samples
        if self.encoder.rounds and self._checked <= CHECKED_SHARE * self._samples:
            self._checked += samples
            return True
        return False


def _part(items: Iterator, num_shards: int, shard: int) -> Iterator:
    """Interleaved, so that a set sorted by speaker or length gives jobs of about equal work."""
    return itertools.islice(items, shard - 1, None, num_shards)


def join_jobs(out: PathLike, num_shards: int, *, max_rejected: float) -> Summary:
    """Join the journals of all jobs into the unit file and remove them.

    Also writes ``OUT.rejected.tsv`` (key, tab, reason) and ``OUT.summary.json``.

    Args:
        out: unit file.
        num_shards: how many jobs there were.
        max_rejected: share of utterances that may be rejected, 0 to 1.

    Raises:
        SpireError: a job has not finished (it is named); more than ``max_rejected`` were rejected
            or none is left: then the journals stay, so that only what was rejected is done again
            once it is mended.
    """
    journals = shard_files(f"{out}.journal", num_shards)
    summary = Summary()
    mended: Dict[str, str] = {}
    settings = [next(read_journal(path, header=True)) for path in journals]
    for shard, path in enumerate(journals, 1):
        if settings[shard - 1] != settings[0]:
            raise SpireError(
                f"{path}: job {shard} of {num_shards} ran with other options or data than job 1;"
                " run them all with the same"
            )
        finished = False
        for record in read_journal(path):
            summary = summary.plus(record)
            if finished:  # retried
                mended.update(record["units"])
            finished = finished or record.get("finished", False)
        if not finished:
            raise SpireError(f"{path}: job {shard} of {num_shards} has not finished; run it again")
    first: Optional[Tuple[str, str]] = None
    rejected_out = rejected_file(out)
    few = summary.rejected <= max_rejected * (summary.utterances + summary.rejected)
    with atomic_write(rejected_out) as rejected_stream:
        with atomic_write(out) if few and summary.utterances else open(os.devnull, "w") as stream:
            for key, line, reason in heapq.merge(
                *(_sorted_lines(path, mended) for path in journals)
            ):
                if line:
                    stream.write(f"{key} {line}\n")
                else:
                    first = first or (key, reason)
                    rejected_stream.write(f"{key}\t{' '.join(reason.split())}\n")
    if not few:
        raise SpireError(
            f"{summary.rejected} of {summary.utterances + summary.rejected} utterances are"
            f" unusable, first {first[0]}: {first[1]} (all in {rejected_out}; --max_rejected allows"
            " a share; mend them and start again: only they are done again)"
        )
    if not summary.utterances:
        raise SpireError(f"{out}: no utterance is usable; see {rejected_out}")
    write_json(f"{out}.summary.json", summary._asdict())
    for path in Path(out).parent.glob(f".{Path(out).name}.journal.*-of-*"):
        path.unlink()
    return summary


def _sorted_lines(
    path: Path, mended: Dict[str, str]
) -> Iterator[Tuple[str, Optional[str], Optional[str]]]:
    """Yield ``(key, line, reason)`` of a journal, sorted: a window's batches are put in order."""
    window: List[Dict[str, Any]] = []
    for record in read_journal(path):
        if "window" not in record:
            continue
        window.append(record)
        if len(window) < record["batches"]:
            continue
        units: Dict[str, str] = {}
        rejected: Dict[str, str] = {}
        for part in window:
            units.update(part["units"])
            rejected.update(part["rejected"])
        for key in sorted(units.keys() | rejected.keys()):
            yield key, units.get(key, mended.get(key)), rejected.get(key)
        window = []
