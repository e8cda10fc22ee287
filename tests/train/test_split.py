"""Cutting sorted tables: every line is in one part, and parts are read as the whole is."""

import pytest

from espnet_spire.train.sources import Stream, read_stream
from espnet_spire.train.split import explain, find_key, split_stream
from espnet_spire.utils.errors import SpireError

KEYS = ["a", "b", "ba", "bb", "c", "d", "é", "面"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_key_is_found_where_it_begins(tmp_path, ending):
    path = tmp_path / "table"
    lines = [f"{key} {'x' * (7 * number % 13)}{ending}" for number, key in enumerate(KEYS)]
    path.write_bytes("".join(lines).encode())
    starts = [len("".join(lines[:number]).encode()) for number in range(len(lines) + 1)]
    with open(path, "rb") as handle:
        for low in starts:
            for number, key in enumerate(KEYS):
                if starts[number] >= low:
                    assert find_key(handle, key.encode(), low, starts[-1]) == starts[number]
        assert find_key(handle, b"", 0, starts[-1]) == 0
        assert find_key(handle, b"bab", 0, starts[-1]) == starts[3]
        assert find_key(handle, "龜".encode(), 0, starts[-1]) == starts[-1]
        assert find_key(handle, b"a", 0, 0) == 0


def test_keys_are_found_as_tables_are_read(tmp_path):
    """Tabs, blanks before a key, no value, no newline at the end."""
    path = tmp_path / "table"
    path.write_bytes(b"a\tx y\n  b z\nc\nd")
    with open(path, "rb") as handle:
        assert [find_key(handle, key, 0, 15) for key in (b"a", b"b", b"c", b"d", b"e")] == [
            *(0, 6, 12, 14, 15)
        ]


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
