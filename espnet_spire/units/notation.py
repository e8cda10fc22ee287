"""Units as integers, as characters of the vocabulary, and as readable text.

On disk a unit is an integer. Inside a prompt unit *i* is the Private Use character
U+F0000 + *i*, as in the tokenizer that SPIRE's authors released; ``<extra_id_i>`` is how the
paper prints it (section 3.2.2).
"""

import re
from typing import Iterable, List, Sequence

import numpy as np

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import iter_table
from espnet_spire.utils.errors import SpireError

FIRST_CODE_POINT = 0xF0000
# The last two code points of the plane are noncharacters.
MAX_UNITS = 0xFFFFE - FIRST_CODE_POINT

# Characters of units, and those behind them in Unicode: no text of a corpus has them.
UNIT_CHARS = re.compile(f"[{chr(FIRST_CODE_POINT)}-\U0010ffff]+")

_READABLE = re.compile(r"<extra_id_(\d+)>")


def _check(unit: int) -> int:
    if not 0 <= unit < MAX_UNITS:
        raise SpireError(f"unit {unit} is not between 0 and {MAX_UNITS - 1}")
    return unit


def unit_to_char(unit: int) -> str:
    """The character that stands for ``unit`` in a prompt."""
    return chr(FIRST_CODE_POINT + _check(unit))


def units_to_chars(units: Sequence[int]) -> str:
    """A unit sequence as it stands in a prompt: one character a unit, no separators."""
    return "".join(unit_to_char(int(unit)) for unit in units)


def chars_to_units(text: str) -> List[int]:
    """Inverse of :func:`units_to_chars`; any other character is an error."""
    return [_check(ord(char) - FIRST_CODE_POINT) for char in text]


def units_to_readable(units: Sequence[int]) -> str:
    """``<extra_id_12><extra_id_7>…``, the notation of the paper."""
    return "".join(f"<extra_id_{_check(int(unit))}>" for unit in units)


def readable_to_units(text: str) -> List[int]:
    """Inverse of :func:`units_to_readable`; anything between the units is an error."""
    rest = _READABLE.sub("", text)
    if rest:
        raise SpireError(f"{rest[:20]!r} is not a unit; units look like <extra_id_12>")
    return [_check(int(number)) for number in _READABLE.findall(text)]


def units_to_line(units: Sequence[int]) -> str:
    """The value of a unit file: ``12 7 4999``."""
    return " ".join(str(int(unit)) for unit in units)


def line_to_units(value: str, where: str = "unit file") -> List[int]:
    """Inverse of :func:`units_to_line`; ``where`` names file and key in the error."""
    try:
        return [_check(int(word)) for word in value.split()]
    except ValueError:
        raise SpireError(f"{where}: {value[:40]!r} is not a sequence of integers") from None
    except SpireError as error:
        raise SpireError(f"{where}: {error}") from None


def merge_repeats(units: np.ndarray) -> np.ndarray:
    """Drop each unit that equals the one before it: [3 3 5 5 3] → [3 5 3].

    Args:
        units: integers, shape (frames,).

    Returns:
        integers, shape (runs,).
    """
    units = np.asarray(units)
    if units.ndim != 1:
        raise ValueError(f"units must have one dimension, not shape {units.shape}")
    if units.size == 0:
        return units
    keep = np.ones(units.size, dtype=bool)
    keep[1:] = units[1:] != units[:-1]
    return units[keep]


def unit_counts(unit_files: Iterable[PathLike], num_clusters: int) -> np.ndarray:
    """How often each unit occurs in unit files; int64, shape (K,)."""
    counts = np.zeros(num_clusters, dtype=np.int64)
    for path in unit_files:
        for key, value in iter_table(path, allow_empty_value=True):
            units = line_to_units(value, f"{path}: {key}")
            if units and max(units) >= num_clusters:
                raise SpireError(f"{path}: {key}: unit {max(units)}, but K is {num_clusters}")
            counts += np.bincount(units, minlength=num_clusters)
    return counts
