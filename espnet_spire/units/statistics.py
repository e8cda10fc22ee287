"""How many units speech became: the row of the paper's Table 1 for a data directory.

Both tables are read side by side, one utterance in memory at a time.
"""

from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.durations import Duration, utterance_samples
from espnet_spire.units.encoder import FILTER_BANK_TYPES, Pooling
from espnet_spire.units.framing import HUBERT_FRAMING
from espnet_spire.units.models import FilterBankModel
from espnet_spire.units.notation import line_to_units, merge_repeats
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import iter_table
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.human import human_number
from espnet_spire.utils.progress import progress

TOTAL = "Total"


class UnitTotals(NamedTuple):
    """Sums over utterances that have units.

    ``samples``: of audio, at 16 kHz; ``frames``: units before merging; ``units``: after;
    ``without_units``: utterances that have none and stand in no other sum.
    """

    name: str
    utterances: int = 0
    samples: int = 0
    frames: int = 0
    units: int = 0
    without_units: int = 0

    @property
    def hours(self) -> float:
        return self.samples / SAMPLE_RATE / 3600

    @property
    def units_per_second(self) -> Optional[float]:
        return self.units * SAMPLE_RATE / self.samples if self.samples else None

    @property
    def reduction(self) -> Optional[float]:
        """Share of the frames that merging removes (0-1)."""
        return 1 - self.units / self.frames if self.frames else None


def frame_counter(description: Optional[Dict[str, Any]] = None) -> Callable[[int], int]:
    """Samples at 16 kHz → frames that the encoder of a ``codebook.json`` makes of them.

    Without a description, or where it does not say: 25 ms each 20 ms.
    """
    description = description or {}
    framing = HUBERT_FRAMING
    if description.get("encoder_type") in FILTER_BANK_TYPES:
        framing = FilterBankModel.framing
    pooling = Pooling(frames=description.get("pool_frames") or 1)
    return lambda num_samples: pooling.num_frames(framing.num_frames(num_samples))


def _join(
    durations: Iterable[Duration], table: Iterable[Tuple[str, str]], data_dir: str, unit_file: str
) -> Iterator[Tuple[Duration, Optional[str]]]:
    """Each utterance with its line of the unit file; both are sorted by key."""
    rows = iter(table)
    row = next(rows, None)
    for duration in durations:
        if row is not None and row[0] < duration.key:
            break
        if row is not None and row[0] == duration.key:
            yield duration, row[1]
            row = next(rows, None)
        else:
            yield duration, None
    if row is not None:
        raise SpireError(
            f"{unit_file}: utterance {row[0]} is not in {data_dir}; give each --data_dir its own"
            " unit file, in the same order"
        )


def count_units(
    name: str,
    data_dir: PathLike,
    unit_file: PathLike,
    *,
    frames_of: Callable[[int], int],
    on_missing: Callable[[str, str], None],
) -> UnitTotals:
    """Sums over a data directory and its unit file, repeats merged in it or not.

    Args:
        name: what to call the row.
        frames_of: samples → frames, see :func:`frame_counter`.
        on_missing: called with key and reason for each utterance without units.

    Raises:
        SpireError: an utterance of the unit file is not in the data directory, or has more units
            than its audio has frames: they do not belong together.
    """
    utterances = samples = frames = count = missing = 0
    table = iter_table(unit_file, allow_empty_value=True)
    pairs = _join(utterance_samples(data_dir), table, str(data_dir), str(unit_file))
    for duration, line in progress(pairs, desc=f"counting {name}", unit="utt"):
        if not line:
            missing += 1
            said = "has no units in" if line is not None else "is not in"
            on_missing(duration.key, duration.reason or f"{said} {unit_file}")
            continue
        if duration.reason is not None:
            raise SpireError(
                f"{data_dir}: utterance {duration.key} has units, but its length cannot be"
                f" known: {duration.reason}"
            )
        units = line_to_units(line, f"{unit_file}: {duration.key}")
        expected = frames_of(duration.num_samples)
        if len(units) > expected:
            raise SpireError(
                f"{unit_file}: utterance {duration.key} has {len(units)} units, but its"
                f" {duration.num_samples} samples make {expected} frames; these units are of"
                " other audio, or of an encoder that --codebook describes"
            )
        utterances += 1
        samples += duration.num_samples
        frames += expected
        count += len(merge_repeats(units))
    return UnitTotals(name, utterances, samples, frames, count, missing)


def total_of(rows: Iterable[UnitTotals]) -> UnitTotals:
    """The sum of some rows."""
    return UnitTotals(
        TOTAL, *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))
    )


def as_json(row: UnitTotals) -> Dict[str, Any]:
    """A row with all digits."""
    return {
        "name": row.name,
        "utterances": row.utterances,
        "hours": row.hours,
        "units_before_merging": row.frames,
        "units": row.units,
        "units_per_second": row.units_per_second,
        "reduction": row.reduction,
        "utterances_without_units": row.without_units,
    }


def markdown_table(rows: Iterable[UnitTotals]) -> str:
    """Rows as a Markdown table, numbers as in the paper."""
    header = (
        *("Dataset", "Utterances", "Hours", "Units before merging", "Units", "Units a second"),
        *("Reduction", "Without units"),
    )
    lines = [header] + [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "".join(
        "| " + " | ".join(_padded(line, widths)) + " |\n" for line in (lines[0], rule, *lines[1:])
    )


def _cells(row: UnitTotals) -> Tuple[str, ...]:
    rate, reduction = row.units_per_second, row.reduction
    return (
        row.name.replace("|", "\\|"),
        human_number(row.utterances),
        human_number(row.hours),
        human_number(row.frames),
        human_number(row.units),
        "-" if rate is None else f"{rate:.1f}",
        "-" if reduction is None else f"{100 * reduction:.1f} %",
        human_number(row.without_units),
    )


def _padded(cells: Iterable[str], widths: List[int]) -> List[str]:
    first, *others = cells
    return [first.ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)
    ]
