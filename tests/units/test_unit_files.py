"""Rows and their units: what may be missing, in constant memory."""

import itertools

import pytest

from espnet_spire.units import unit_files
from espnet_spire.units.unit_files import copy_rejected, join_units, rejected_file
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def units(tmp_path):
    path = tmp_path / "units"
    path.write_text("b 1 2\nc 3\ne 4 4\nf\n")
    return path


def rows(keys):
    return [(key, key.upper()) for key in keys]


def test_each_row_gets_its_line(units):
    found = list(join_units(rows("bcef"), units, "text"))
    assert found == [
        *(("b", "B", "1 2", None), ("c", "C", "3", None)),
        *(("e", "E", "4 4", None), ("f", "F", None, f"its line in {units} is empty")),
    ]
    assert (found[0].key, found[0].row, found[0].line, found[0].reason) == found[0]
    assert [row.line for row in join_units(rows("ce"), units, "text")] == ["3", "4 4"]
    assert list(join_units([], units, "text")) == []


def test_what_is_listed_may_be_missing(units):
    rejected_file(units).write_text("a\tno samples\nd\ttoo short: 3 samples\ne\told\nz\tgone\n")
    found = [(row.key, row.line, row.reason) for row in join_units(rows("abcdez"), units, "text")]
    assert found == [
        ("a", None, "no samples"),
        ("b", "1 2", None),
        ("c", "3", None),
        ("d", None, "too short: 3 samples"),
        ("e", "4 4", None),  # the unit file has it: that it was listed once does not matter
        ("z", None, "gone"),
    ]


@pytest.mark.parametrize("keys, first", [("abc", "a"), ("bdc", "d"), ("bcefg", "g")])
def test_anything_else_is_an_error_that_names_it(units, keys, first):
    message = (
        f"{units}: utterance {first} of data/text is missing and units.rejected.tsv does not list"
        " it; make the units again"
    )
    with pytest.raises(SpireError) as caught:
        list(join_units(rows(keys), units, "data/text"))
    assert message in str(caught.value)
    rejected_file(units).write_text("x\tno samples\n")
    with pytest.raises(SpireError, match=f"utterance {first} of"):
        list(join_units(rows(keys), units, "data/text"))


def test_files_that_cannot_be_read(units, tmp_path):
    with pytest.raises(SpireError, match="none: no such file"):
        list(join_units(rows("b"), tmp_path / "none", "text"))
    rejected_file(units).write_text("a no tab\n")
    with pytest.raises(SpireError, match="units.rejected.tsv, line 1"):
        list(join_units(rows("a"), units, "text"))
    rejected_file(units).write_text("d\tno samples\na\ttoo short\n")
    with pytest.raises(SpireError, match="units.rejected.tsv: not sorted by key"):
        list(join_units(rows("ad"), units, "text"))
    rejected_file(units).unlink()
    units.write_text("b 1\na 2\n")
    with pytest.raises(SpireError, match="units, line 2: key a comes after b"):
        list(join_units(rows("bc"), units, "text"))


def test_a_part_reads_no_more_of_the_list_than_it_needs(units, monkeypatch):
    keys = [f"k{number:05d}" for number in range(0, 4000, 2)]
    rejected_file(units).write_text("".join(f"{key}\treason {key}\n" for key in keys))
    asked = []
    real = unit_files.iter_rejected

    def count(path, first=None):
        for line in real(path, first):
            asked.append(line)
            yield line

    monkeypatch.setattr(unit_files, "iter_rejected", count)
    some = keys[1500:1504] + keys[1600:1602]
    found = [(row.key, row.reason) for row in join_units(rows(some), units, "text")]
    assert found == [(key, f"reason {key}") for key in some]
    assert asked[0][0] == keys[1500] and len(asked) == 102
    assert [row.line for row in join_units(rows("bc"), units, "text")] == ["1 2", "3"]
    assert len(asked) == 102  # not opened where nobody is missing
    for missing in ("k01001", "k09999", "a"):
        with pytest.raises(SpireError, match=f"utterance {missing} of text is missing"):
            list(join_units(rows([missing]), units, "text"))


def test_it_streams(units):
    endless = ((f"b{number:06d}", None) for number in itertools.count())
    (units.parent / "many").write_text("".join(f"b{number:06d} 1\n" for number in range(100)))
    joined = join_units(endless, units.parent / "many", "text")
    assert [row.key for row in itertools.islice(joined, 3)] == ["b000000", "b000001", "b000002"]


def test_a_copy_of_the_list(units, tmp_path):
    out = tmp_path / "bpe"
    copy_rejected(units, out)
    assert not rejected_file(out).exists()
    rejected_file(units).write_text("a\tno samples\n")
    copy_rejected(units, out)
    assert (tmp_path / "bpe.rejected.tsv").read_text() == "a\tno samples\n"
    rejected_file(units).unlink()
    copy_rejected(units, out)
    assert not rejected_file(out).exists()
