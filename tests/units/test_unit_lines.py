"""Unit lines parsed at once, against one at a time."""

import numpy as np
import pytest

from espnet_spire.units.notation import MAX_UNITS, line_to_units
from espnet_spire.units.unit_lines import parse_lines
from espnet_spire.utils.errors import SpireError


def rows(lines, num_units=5000):
    values, offsets = parse_lines(lines, num_units, lambda i: f"file: utt{i}")
    assert values.dtype == np.int32 and len(offsets) == len(lines) + 1
    return [values[offsets[i] : offsets[i + 1]].tolist() for i in range(len(lines))]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["", "", "7", ""],
        ["0"],
        ["4999 0 12", "7", "", "1 2 3 4 5 6 7 8 9 10 100 1000"],
        ["  3   4 ", "5"],
        ["3\u20034", "5"],
        ["007 0000000001"],
        ["+5 1_0"],
    ],
)
def test_as_one_at_a_time(lines):
    assert rows(lines) == [line_to_units(line) for line in lines]


def test_random_lines():
    draw = np.random.default_rng(0)
    expected = [
        draw.integers(0, 10 ** draw.integers(1, 5), draw.integers(0, 40)).tolist()
        for _ in range(300)
    ]
    assert rows([" ".join(map(str, row)) for row in expected], 10**4) == expected


def test_the_largest_unit():
    assert rows([f"{MAX_UNITS - 1}"], MAX_UNITS) == [[MAX_UNITS - 1]]


@pytest.mark.parametrize("line", ["3 x 4", "-1", "3,4", "1e3", "3.0", "٣ x", str(MAX_UNITS)])
def test_what_is_no_unit_is_named(line):
    with pytest.raises(SpireError, match=r"^file: utt1: "):
        rows(["1 2", line, "5"], MAX_UNITS)


@pytest.mark.parametrize("lines", [["1 2", "3 4", "1 20 3"], ["", "", "20"], ["19", "0", "99 20"]])
def test_a_unit_that_the_model_has_not(lines):
    unit = 99 if "99" in lines[2] else 20
    with pytest.raises(SpireError, match=rf"file: utt2: unit {unit}, but the model has .* 0 to 19"):
        rows(lines, 20)
