"""How many units speech became: the row of the paper's Table 1 for a data directory.

Both tables are read side by side, one utterance in memory at a time; who may be without units
is for :func:`~espnet_spire.units.unit_files.join_units` to say.
"""

from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.durations import utterance_samples
from espnet_spire.units.encoder import FILTER_BANK_TYPES, Pooling
from espnet_spire.units.framing import HUBERT_FRAMING
from espnet_spire.units.models import FilterBankModel
from espnet_spire.units.notation import line_to_units, merge_repeats
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.atomic import PathLike
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
        unit_file: may have more utterances than the data directory: a subset is counted as such.
        frames_of: samples → frames, see :func:`frame_counter`.
        on_missing: called with key and reason for each utterance without units.

    Raises:
        SpireError: an utterance is neither in the unit file nor in its list of what was rejected,
            or has more units than its audio has frames: they do not belong together.
    """
    utterances = samples = frames = count = missing = 0
    rows = ((duration.key, duration) for duration in utterance_samples(data_dir))
    joined = join_units(rows, unit_file, data_dir)
    for key, duration, line, rejected in progress(joined, desc=f"counting {name}", unit="utt"):
        if line is None:
            missing += 1
            on_missing(key, rejected)
            continue
        if duration.reason is not None:
            raise SpireError(
                f"{data_dir}: utterance {key} has units, but its length cannot be known:"
                f" {duration.reason}"
            )
        units = line_to_units(line, f"{unit_file}: {key}")
        if len(units) > frames_of(duration.num_samples + duration.slack):
            raise SpireError(
                f"{unit_file}: utterance {key} has {len(units)} units, but its"
                f" {duration.num_samples} samples make {frames_of(duration.num_samples)} frames;"
                " these units are of other audio, or of an encoder that --codebook describes"
            )
        utterances += 1
        samples += duration.num_samples
        # a rounded length may promise fewer frames than there are units
        frames += max(frames_of(duration.num_samples), len(units))
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
