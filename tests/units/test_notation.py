import numpy as np
import pytest

from espnet_spire.units.notation import (
    MAX_UNITS,
    chars_to_units,
    line_to_units,
    merge_repeats,
    readable_to_units,
    unit_counts,
    unit_to_char,
    units_to_chars,
    units_to_line,
    units_to_readable,
)
from espnet_spire.utils.errors import SpireError

UNITS = [12, 0, 0, 4999, 7]


def test_characters_are_the_private_use_plane():
    assert unit_to_char(0) == "\U000f0000"
    assert unit_to_char(1) == "\U000f0001"
    assert unit_to_char(4999) == "\U000f1387"  # 0x1387 = 4999
    assert units_to_chars([12, 0, 4999]) == "\U000f000c\U000f0000\U000f1387"


def test_written_forms():
    assert units_to_readable([12, 0]) == "<extra_id_12><extra_id_0>"
    assert units_to_line(UNITS) == "12 0 0 4999 7"


@pytest.mark.parametrize("units", [[], [0], UNITS, list(range(5000)), [MAX_UNITS - 1]])
def test_round_trips(units):
    assert chars_to_units(units_to_chars(units)) == units
    assert readable_to_units(units_to_readable(units)) == units
    assert line_to_units(units_to_line(units)) == units
    as_array = np.array(units, dtype=np.int64)
    assert chars_to_units(units_to_chars(as_array)) == units
    assert line_to_units(units_to_line(as_array)) == units


def test_one_character_a_unit_outside_the_noncharacters():
    assert len(units_to_chars(range(5000))) == 5000
    assert ord(unit_to_char(MAX_UNITS - 1)) == 0xFFFFD  # U+FFFFE and U+FFFFF are noncharacters


@pytest.mark.parametrize("unit", [-1, MAX_UNITS, 10**9])
def test_units_out_of_range(unit):
    for write in (unit_to_char, lambda u: units_to_chars([u]), lambda u: units_to_readable([u])):
        with pytest.raises(SpireError, match=str(unit)):
            write(unit)


def test_other_characters_are_errors():
    with pytest.raises(SpireError):
        chars_to_units("\U000f0001 \U000f0002")
    with pytest.raises(SpireError):
        chars_to_units("a")
    with pytest.raises(SpireError, match="<extra_id_12>"):
        readable_to_units("<extra_id_1> <extra_id_2>")
    with pytest.raises(SpireError, match="'x'"):
        readable_to_units("x")


@pytest.mark.parametrize("value", ["1 two 3", "1.5", "1,2", "<extra_id_1>", "\U000f0001"])
def test_lines_that_are_not_integers(value):
    with pytest.raises(SpireError, match="text.rm: utt7: .*not a sequence of integers"):
        line_to_units(value, "text.rm: utt7")


def test_line_with_a_unit_out_of_range_is_named():
    with pytest.raises(SpireError, match="text.rm: utt7: unit -3 "):
        line_to_units("1 -3", "text.rm: utt7")


@pytest.mark.parametrize(
    ("units", "merged"),
    [
        ([], []),
        ([4], [4]),
        ([3, 3, 5, 5, 3], [3, 5, 3]),  # asr2's awk would keep both of the first 3 3
        ([0, 0, 0], [0]),
        ([1, 2, 1, 2], [1, 2, 1, 2]),
    ],
)
def test_merge_repeats(units, merged):
    result = merge_repeats(np.array(units, dtype=np.int64))
    assert result.tolist() == merged
    assert result.dtype == np.int64


def test_merge_repeats_against_itertools():
    from itertools import groupby

    units = np.random.default_rng(0).integers(0, 3, 1000)
    assert merge_repeats(units).tolist() == [unit for unit, _ in groupby(units.tolist())]


def test_merge_repeats_wants_one_dimension():
    with pytest.raises(ValueError, match="one dimension"):
        merge_repeats(np.zeros((2, 2), dtype=int))


def test_unit_counts(tmp_path):
    (tmp_path / "a").write_text("u1 0 2 2\nu2\n")
    (tmp_path / "b").write_text("u1 3\n")
    assert unit_counts([tmp_path / "a", tmp_path / "b"], 5).tolist() == [1, 0, 2, 1, 0]
    with pytest.raises(SpireError, match="b: u1: unit 3, but K is 3"):
        unit_counts([tmp_path / "b"], 3)
