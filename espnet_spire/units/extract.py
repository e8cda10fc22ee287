"""Data directories to unit files: restartable, in constant memory, in the directory's order.

Jobs share out the chunks of a data directory (some dozen utterances each), encode a chunk in
batches of similar length, and write each batch to a journal when it is done. What is in any
journal of a unit file is not done again, by however many jobs it was begun, as long as its audio
is what it was. When all chunks are there, the journals are joined into the unit file.
"""

import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

import torch
from torch import Tensor

from espnet_spire.units.assign import Assigned, Assigner
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.batching import plan_batches
from espnet_spire.units.chunks import Chunk, DataDigest, chunks
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.encoder import Encoder
from espnet_spire.units.notation import merge_repeats, units_to_line
from espnet_spire.units.reader import Decoded, read_ahead
from espnet_spire.units.sources import iter_sources
from espnet_spire.units.unit_files import rejected_file
from espnet_spire.units.unusable import NOT_FINITE, why_unusable
from espnet_spire.utils.atomic import PathLike, atomic_write, read_json, write_json
from espnet_spire.utils.digest import bytes_sha256
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import (
    Journal,
    read_journal,
    read_journal_offsets,
    read_record,
)
from espnet_spire.utils.progress import progress
from espnet_spire.utils.rejected import check_rejected, rejected_line
from espnet_spire.utils.shards import shard_file

# float32 features of a batch and of transformers' own pass differ by rounding: 5e-7 of a frame's
# length at most, measured on a CPU along the lines between centroids. Utterances with a frame
# nearer than this to the border of its unit are done again, alone.
SAFE_MARGIN = 1e-6
# Share of the audio that bfloat16 units are compared on with float32 ones.
CHECKED_SHARE = 0.0025
# Audio that waits decoded, in batches.
_AHEAD_BATCHES = 8


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


def settings_of(
    description: Dict[str, Any], codebook: Codebook, options: Options
) -> Dict[str, Any]:
    """All that units depend on, but for the audio."""
    return {
        **{name: value for name, value in description.items() if name != "encoder"},
        "codebook": bytes_sha256(codebook.centroids.contiguous().numpy().data)[:16],
        "keep_repeats": options.keep_repeats,
        "batch_seconds": options.batch_seconds,
    }


def journal_file(out: PathLike, num_shards: int, shard: int) -> Path:
    """Where job ``shard`` of ``num_shards`` notes what it has done for ``out``."""
    return shard_file(f"{out}.journal", num_shards, shard)


def summary_file(out: PathLike) -> Path:
    """Counts of a unit file and what it was made with; written last."""
    return Path(f"{out}.summary.json")


def _journals(out: PathLike) -> List[Path]:
    """All journals of a unit file, of whatever number of jobs."""
    out = Path(out)
    found = out.parent.glob(f".{out.name}.journal.*-of-*")
    return sorted(path for path in found if not path.name.endswith(".stale"))


class _Place(NamedTuple):
    """One record of a journal."""

    journal: Path
    offset: int


class _Found:
    """Where the records of one chunk are, and which of its utterances they hold."""

    def __init__(self) -> None:
        self.places: List[_Place] = []
        self.digest = ""
        self.utterances = -1
        self.has_rejected = False
        # Of a chunk that is whole the names are not kept: there are millions.
        self.keys: Optional[Set[str]] = set()

    def add(self, place: _Place, record: Dict[str, Any]) -> None:
        if record["digest"] != self.digest:
            # earlier records are of other audio, in part: they count only for what is unchanged
            self.digest, self.keys, self.has_rejected = record["digest"], set(), False
        self.places.append(place)
        self.utterances = record["utterances"]
        self.has_rejected = self.has_rejected or bool(record["rejected"])
        if self.keys is not None:
            self.keys.update(record["tags"])
            if len(self.keys) == self.utterances:
                self.keys = None

    def holds(self, chunk: Chunk) -> bool:
        """Whether all of a chunk is there, none of it to be looked at again."""
        return self.keys is None and not self.has_rejected and self.digest == chunk.digest


class Results(NamedTuple):
    """Of a chunk: key → line of the unit file, key → reason, key → (samples, frames)."""

    units: Dict[str, str]
    rejected: Dict[str, str]
    sizes: Dict[str, Tuple[int, int]]


class _Index(NamedTuple):
    """Of journals: chunk by name → what they hold of it, and the sums of their counts."""

    found: Dict[str, _Found]
    counts: Counter[str]


def _index(journals: Iterable[Path], settings: Dict[str, Any]) -> _Index:
    """What is in those of these settings."""
    index = _Index({}, Counter())
    for path in journals:
        for offset, record in read_journal_offsets(path):
            if offset == 0:
                if record.get("settings") != settings:
                    break
                continue
            if "chunk" in record:
                index.found.setdefault(record["chunk"], _Found()).add(_Place(path, offset), record)
                index.counts.update(record["counts"])
    return index


def _results(found: Optional[_Found], chunk: Chunk) -> Results:
    """What the journals hold of a chunk whose audio is what it was; a later record counts more."""
    results = Results({}, {}, {})
    if found is None:
        return results
    for place in found.places:
        record = read_record(*place)
        for key, known in record["tags"].items():
            if chunk.tags.get(key) != known:
                continue
            if key in record["units"]:
                results.units[key] = record["units"][key]
                results.sizes[key] = tuple(record["sizes"][key])
                results.rejected.pop(key, None)
            elif key not in results.units:
                results.rejected[key] = record["rejected"][key]
    return results


class Job:
    """Extracts units of data directories, or of a job's share of them."""

    def __init__(
        self, encoder: Encoder, assigner: Assigner, codebook: Codebook, options: Options
    ) -> None:
        codebook.check_encoder(encoder.description)
        self.encoder = encoder
        self.assigner = assigner
        self.options = options
        self.settings = settings_of(encoder.settings, codebook, options)
        self.max_samples = max(1, int(options.batch_seconds * SAMPLE_RATE))
        self._samples = 0
        self._checked = 0

    def run(
        self, data_dir: PathLike, out: PathLike, *, num_shards: int = 1, shard: int = 1
    ) -> None:
        """Do what is left of this job's share; journals beside ``out`` hold the result."""
        made = _finished(out, self.settings)
        if made is not None and made.get("data") == _digest_of(data_dir):
            logging.info("%s is up to date", out)
            return
        # Also finds whatever is wrong with the directory before the first minute of work.
        total = sum(1 for _ in iter_sources(data_dir))
        journal = Journal(journal_file(out, num_shards, shard), self.settings)
        try:
            index = _index(_journals(out), self.settings).found
            left = self._left(data_dir, index, num_shards, shard)
            with progress(total=total // num_shards, desc=f"units {data_dir}", unit="utt") as bar:
                for chunk, decoded in self._decoded(left, bar):
                    self._do(journal, chunk, decoded, index.get(chunk.name))
                    bar.update(len(chunk.utterances))
        finally:
            journal.close()

    def _left(
        self, data_dir: PathLike, index: Dict[str, _Found], num_shards: int, shard: int
    ) -> Iterator[Tuple[Chunk, bool]]:
        """This job's chunks, and whether there is anything to do for them."""
        for chunk in chunks(iter_sources(data_dir), num_shards, shard):
            found = index.get(chunk.name)
            yield chunk, found is None or not found.holds(chunk)

    def _decoded(self, left, bar) -> Iterator[Tuple[Chunk, List[Decoded]]]:
        """Chunks with their audio, read ahead over the borders of chunks."""
        waiting: List[Chunk] = []

        def sources():
            for chunk, needed in left:
                if not needed:
                    bar.update(len(chunk.utterances))
                    continue
                waiting.append(chunk)
                yield from chunk.utterances

        stream = read_ahead(
            sources(),
            num_workers=self.options.num_workers,
            max_ahead_samples=_AHEAD_BATCHES * self.max_samples,
        )
        decoded: List[Decoded] = []
        for one in stream:
            decoded.append(one)
            if len(decoded) == len(waiting[0].utterances):
                yield waiting.pop(0), decoded
                decoded = []

    def _do(
        self, journal: Journal, chunk: Chunk, decoded: List[Decoded], found: Optional[_Found]
    ) -> None:
        """Encode what is not there yet of a chunk, a record for each batch.

        Batches are cut from the whole chunk, so that one that a kill had interrupted is made of
        the same batches as one that was not.
        """
        before = _results(found, chunk)
        rejected: Dict[str, str] = {}
        usable: List[Tuple[str, Any]] = []
        for key, samples, reason in decoded:
            if key in before.units and samples is None:
                continue  # it was readable when it was encoded
            reason = why_unusable(self.encoder, samples, reason)
            if reason is None:
                usable.append((key, samples))
            else:
                rejected[key] = reason
        header = {
            "chunk": chunk.name,
            "digest": chunk.digest,
            "utterances": len(chunk.utterances),
        }

        def note(results: Results, counts: Dict[str, Any]) -> None:
            keys = results.units.keys() | results.rejected.keys()
            if keys:  # one write for all: a batch is there or not
                own = {key: chunk.tags[key] for key in sorted(keys)}
                journal.append({**header, **results._asdict(), "tags": own, "counts": counts})

        if found is None or found.digest != chunk.digest:
            note(Results(before.units, rejected, before.sizes), {})
        else:
            news = {k: why for k, why in rejected.items() if before.rejected.get(k) != why}
            note(Results({}, news, {}), {})
        for batch in plan_batches(usable, self.max_samples):
            missing = [(key, samples) for key, samples in batch if key not in before.units]
            if missing:
                started = time.monotonic()
                results, counts = self.encode(missing)
                note(results, {**counts, "wall": round(time.monotonic() - started, 4)})

    def encode(self, batch) -> Tuple[Results, Dict[str, int]]:
        """Units of a batch as lines of a unit file, and counts for the summary.

        Args:
            batch: pairs of utterance and samples, long enough for a frame.
        """
        keys = [key for key, _ in batch]
        waveforms = [samples for _, samples in batch]
        found: List[List[Assigned]] = [[] for _ in batch]
        for row, features in self.encoder.parts(waveforms):
            found[row].append(self._assign(features))
        results = Results({}, {}, {})
        counts = {"alone": 0, "checked": 0, "agreed": 0}
        for key, samples, parts in zip(keys, waveforms, found, strict=True):
            if any(part is None for part in parts):
                results.rejected[key] = NOT_FINITE
                continue
            units = torch.cat([part.units for part in parts])
            close = any(bool((part.margins < SAFE_MARGIN).any()) for part in parts)
            if self.encoder.compares_alone and close:
                units = self._alone(samples)
                counts["alone"] += 1
            if self._must_check(len(samples)):
                counts["checked"] += len(units)
                counts["agreed"] += int((units == self._alone(samples)).sum())
            line = units.numpy() if self.options.keep_repeats else merge_repeats(units.numpy())
            results.units[key] = units_to_line(line)
            results.sizes[key] = (len(samples), len(units))
        return results, counts

    def _assign(self, features: Tensor) -> Optional[Assigned]:
        return self.assigner(features) if bool(torch.isfinite(features).all()) else None

    def _alone(self, samples) -> Tensor:
        """Units by transformers' own pass over one utterance in float32."""
        return torch.cat([self.assigner(part).units for part in self.encoder.parts_alone(samples)])

    def _must_check(self, samples: int) -> bool:
        """Whether bfloat16 units of this utterance are compared with float32 ones."""
        self._samples += samples
        if self.encoder.rounds and self._checked <= CHECKED_SHARE * self._samples:
            self._checked += samples
            return True
        return False


def _finished(out: PathLike, settings: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The summary of a unit file that is there and was made with these settings."""
    if not (Path(out).exists() and summary_file(out).exists()):
        return None
    made = read_json(summary_file(out))
    known = made.get("settings", {})
    return made if all(known.get(name) == value for name, value in settings.items()) else None


def _digest_of(data_dir: PathLike) -> str:
    digest = DataDigest()
    for chunk in chunks(iter_sources(data_dir)):
        digest.add(chunk)
    return digest.hexdigest()


def join_jobs(
    data_dir: PathLike,
    out: PathLike,
    num_shards: int,
    *,
    max_rejected: float,
    settings: Dict[str, Any],
) -> Summary:
    """Join the journals of all jobs into the unit file and remove them.

    Also writes ``OUT.rejected.tsv`` (key, tab, reason) and ``OUT.summary.json``. A unit file that
    is there already, of these settings, is left as it is.

    Args:
        data_dir: what the units are of.
        out: unit file.
        num_shards: how many jobs there were.
        max_rejected: share of utterances that may be rejected, 0 to 1.
        settings: of :func:`settings_of`, or those of them that are known.

    Raises:
        SpireError: a job has not finished (it is named); more than ``max_rejected`` were rejected
            or none is left: then the journals stay, so that only what was rejected is done again
            once it is mended.
    """
    own = [journal_file(out, num_shards, shard) for shard in range(1, num_shards + 1)]
    if not any(path.exists() for path in own):
        made = _finished(out, settings)
        if made is not None:
            return Summary(**{name: made[name] for name in Summary._fields})
    made_with = _common_settings(out, own, settings)
    paths = _journals(out)
    index = _index(paths, made_with)
    totals = index.counts
    digest = DataDigest()
    first: Optional[Tuple[str, str]] = None
    rejected_out = rejected_file(out)
    aside = Path(out).with_name(f".{Path(out).name}.joined")
    # Into a file beside it first: whether the unit file may be there is known at the end.
    with atomic_write(rejected_out) as rejected_stream, atomic_write(aside) as stream:
        for number, chunk in enumerate(chunks(iter_sources(data_dir))):
            digest.add(chunk)
            found = _results(index.found.get(chunk.name), chunk)
            for key, _ in chunk.utterances:
                if key in found.units:
                    stream.write(f"{key} {found.units[key]}\n")
                    samples, frames = found.sizes[key]
                    totals["utterances"] += 1
                    totals["seconds"] += samples / SAMPLE_RATE
                    totals["frames"] += frames
                    totals["units"] += found.units[key].count(" ") + 1
                elif key in found.rejected:
                    reason = found.rejected[key]
                    first = first or (key, reason)
                    rejected_stream.write(rejected_line(key, reason))
                    totals["rejected"] += 1
                else:
                    raise SpireError(
                        f"{out}: job {number % num_shards + 1} of {num_shards} has not finished"
                        f" (utterance {key} is missing); run it again"
                    )
    summary = Summary(**totals)
    try:
        whole = summary.utterances + summary.rejected
        check_rejected(summary.rejected, whole, max_rejected, first=first, listed=rejected_out)
        if not summary.utterances:
            raise SpireError(f"{out}: no utterance is usable; see {rejected_out}")
    except SpireError:
        aside.unlink()
        raise
    aside.replace(out)
    made = {**summary._asdict(), "settings": made_with, "data": digest.hexdigest()}
    write_json(summary_file(out), made)
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".stale").unlink(missing_ok=True)
    return summary


def _common_settings(
    out: PathLike, journals: List[Path], settings: Dict[str, Any]
) -> Dict[str, Any]:
    """The settings that the journals of all jobs share; ``settings`` are those that are known."""
    common: Dict[str, Any] = {}
    for job, path in enumerate(journals, 1):
        if not path.exists():
            raise SpireError(f"{out}: job {job} of {len(journals)} has not finished; run it again")
        made_with = next(read_journal(path, header=True), {}).get("settings", {})
        for name, value in {**settings, **common}.items():
            if made_with.get(name) != value:
                raise SpireError(
                    f"{path}: job {job} of {len(journals)} ran with {name} {made_with.get(name)},"
                    f" not {value}; run all jobs with the same options"
                )
        common = made_with
    return common
