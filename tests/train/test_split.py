"""Cutting sorted tables: every line is in one part, and parts are read as the whole is."""

import pytest

from espnet_spire.train.sources import Stream, read_stream
from espnet_spire.train.split import explain, split_stream
from espnet_spire.utils.errors import SpireError


def make(tmp_path, count, extra=3):
    """Texts of even numbers; translations of some of them; units of all numbers."""
    texts = [f"u{n:03d} text {n}\n" for n in range(0, count, 2)]
    german = [f"u{n:03d} Wort {n}\n" for n in range(0, count, 4)]
    units = [f"u{n:03d} {' '.join(['3'] * (n % 7))}\n" for n in range(count + extra)]
    for name, lines in (("text", texts), ("text.tc.de", german), ("units", units)):
        (tmp_path / name).write_text("".join(lines))
    paths = tuple(str(tmp_path / name) for name in ("text.tc.de", "text", "units"))
    return Stream("s", "st", "en", "de", paths, True, {})


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("count", [1, 4, 9, 41])
def test_parts_are_read_as_the_whole(tmp_path, rows, count):
    stream = make(tmp_path, count)
    whole = list(read_stream(stream, 0))
    assert len(whole) == (count + 3) // 4
    parts = list(split_stream(stream, rows))
    assert len(parts) == -(-len(whole) // rows)
    assert [raw for part in parts for raw in read_stream(stream, 0, part)] == whole
    assert [part.rows for part in parts[:-1]] == [rows] * (len(parts) - 1)
    assert [part.first for part in parts] == [rows * number for number in range(len(parts))]
    # all bytes of all tables, each once
    for table, path in enumerate(stream.tables):
        spans = [part.spans[table] for part in parts]
        assert [start for start, _ in spans] == [0] + [end for _, end in spans[:-1]]
        with open(path, "rb") as handle:
            assert spans[-1][1] == len(handle.read())


def test_an_empty_table_is_one_empty_part(tmp_path):
    stream = make(tmp_path, 4)
    (tmp_path / "text.tc.de").write_text("")
    (part,) = split_stream(stream, 5)
    assert part.rows == 0 and list(read_stream(stream, 0, part)) == []


@pytest.mark.parametrize("name", ["text.tc.de", "text", "units"])
def test_a_missing_table(tmp_path, name):
    stream = make(tmp_path, 9)
    (tmp_path / name).unlink()
    with pytest.raises(SpireError, match=f"{name}: no such file"):
        list(split_stream(stream, 2))


@pytest.mark.parametrize("name", ["text.tc.de", "text", "units"])
def test_a_table_out_of_order_is_noticed_and_explained(tmp_path, name):
    stream = make(tmp_path, 60)
    lines = (tmp_path / name).read_text().splitlines(keepends=True)
    lines[4], lines[8] = lines[8], lines[4]
    (tmp_path / name).write_text("".join(lines))
    for rows in (1, 2, 3, 100):
        with pytest.raises(SpireError):
            for part in split_stream(stream, rows):
                list(read_stream(stream, 0, part))
    key = lines[5].split()[0]
    with pytest.raises(SpireError, match=rf"{name}, line 6: key {key} comes after"):
        explain(stream)


def test_a_table_in_order_needs_no_explanation(tmp_path):
    explain(make(tmp_path, 9))
