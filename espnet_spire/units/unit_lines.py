"""Many lines of a unit file at once, in numpy."""

from typing import Callable, Sequence, Tuple

import numpy as np

from espnet_spire.units.notation import line_to_units
from espnet_spire.utils.errors import SpireError

_ZERO, _SPACE = ord("0"), ord(" ")
_MOST_DIGITS = 9  # of an int32


def no_such_unit(where: str, unit: int, num_units: int) -> SpireError:
    """To be raised for a unit that a model does not have; ``where`` names its place."""
    return SpireError(
        f"{where}: unit {unit}, but the model has units 0 to {num_units - 1} (num_units in its"
        " spire.json); units and model must be of the same codebook"
    )


def parse_lines(
    lines: Sequence[str], num_units: int, where: Callable[[int], str]
) -> Tuple[np.ndarray, np.ndarray]:
    """:func:`line_to_units` of many lines.

    Args:
        lines: values of a unit file.
        num_units: what every unit is to be below.
        where: names the file and the key of line i, for errors.

    Returns:
        ``(values, offsets)``, int32 and int64: line i is ``values[offsets[i] : offsets[i + 1]]``.

    Raises:
        SpireError: what is no unit, or one that is not below ``num_units``; it names the line.
    """
    values, offsets = _parse(lines, where)
    if len(values) and int(values.max()) >= num_units:
        place = int(np.argmax(values >= num_units))
        line = int(np.searchsorted(offsets, place, side="right")) - 1
        raise no_such_unit(where(line), int(values[place]), num_units)
    return values, offsets


def _parse(lines: Sequence[str], where: Callable[[int], str]) -> Tuple[np.ndarray, np.ndarray]:
    text = "".join(f"{line} " for line in lines)
    data = np.frombuffer(text.encode(), np.uint8)
    digits = data - _ZERO  # below zero wraps around to above nine
    spaces = np.flatnonzero(data == _SPACE)
    widths = np.diff(spaces, prepend=-1) - 1
    well_formed = np.count_nonzero(digits < 10) + len(spaces) == len(data)
    if not well_formed or widths.max(initial=0) > _MOST_DIGITS:
        return _parse_slowly(lines, where)
    if widths.min(initial=1) == 0:  # an empty line, two spaces
        spaces, widths = spaces[widths > 0], widths[widths > 0]
    values = np.zeros(len(spaces), np.int32)
    for place in range(widths.max(initial=0)):
        # units have about as many digits each: most rows are used
        digit = digits[spaces - 1 - place].astype(np.int32)
        values += np.where(widths > place, digit, 0) * 10**place
    ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1)
    offsets = np.concatenate([[0], np.searchsorted(spaces, ends)])
    return values, offsets


def _parse_slowly(
    lines: Sequence[str], where: Callable[[int], str]
) -> Tuple[np.ndarray, np.ndarray]:
    rows = [line_to_units(line, where(number)) for number, line in enumerate(lines)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return np.array([unit for row in rows for unit in row], np.int32), offsets
