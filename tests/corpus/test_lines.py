"""Lines and columns of corpora's files: what is wrong in them is named by file and line."""

import gzip
import lzma
import tarfile

import pytest

from espnet_spire.corpus.lines import Line, Row, place, read_columns, read_lines
from espnet_spire.corpus.records import Fault
from espnet_spire.utils.errors import SpireError

TEXT = "\ufeffone\r\ntwo \x0b\u2028\x85two\n\n\tlast"
LINES = ["one", "two \x0b\u2028\x85two", "", "\tlast"]


def packed(path, content):
    """``content`` under a name whose ending says how it is packed."""
    if path.name.endswith(".tar.gz"):
        inner = path.with_name("inner.tsv")
        inner.write_bytes(content)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(path.parent, "folder", recursive=False)
            archive.add(inner, "folder/inner.tsv")
    else:
        opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with opener(path, "wb") as stream:
            stream.write(content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.tsv.tar.gz"])
def test_lines(tmp_path, name):
    path = packed(tmp_path / name, TEXT.encode())
    assert list(read_lines(path)) == [
        Line(number, text, f"{path}, line {number}") for number, text in enumerate(LINES, 1)
    ]


def test_a_line_that_is_not_utf8_is_one_fault(tmp_path):
    path = packed(tmp_path / "a.txt", b"a\n\xff\nb\xc3\nc\n")
    first, second, third, fourth = read_lines(path)
    assert (first.text, fourth.text, fourth.number) == ("a", "c", 4)
    assert second == Fault("a.txt:2", "not valid UTF-8 (invalid start byte)", place(path, 2))
    assert third.reason == "not valid UTF-8 (invalid continuation byte)"


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.tsv.tar.gz"])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.95])
def test_archives_that_were_cut_off(tmp_path, name, kept):
    """What comes before the cut is read; then there is an error that names the archive."""
    import random

    draw = random.Random(0)
    content = "".join(f"{draw.random()}\n" for _ in range(20_000)).encode()
    path = packed(tmp_path / name, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    found = []
    with pytest.raises(SpireError, match=f"{name}: cut off or damaged .*; download it again"):
        for line in read_lines(path):
            found.append(line.text)
    assert found[:-1] == content.decode().splitlines()[: len(found)][:-1]
    assert len(found) < 20_000


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.tsv.tar.gz"])
def test_archives_that_are_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404</html>\n")
    with pytest.raises(SpireError, match=f"{name}: cut off or damaged"):
        list(read_lines(tmp_path / name))


def test_no_file(tmp_path):
    for name in ("gone.txt", "gone.gz", "gone.tar.gz"):
        with pytest.raises(SpireError, match=f"{name}: no such file"):
            list(read_lines(tmp_path / name))
    with pytest.raises(SpireError, match="is a directory, a file was expected"):
        list(read_lines(tmp_path))
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz") as archive:
        archive.add(tmp_path, "folder", recursive=False)
    with pytest.raises(SpireError, match="empty.tar.gz: there is no file in it"):
        list(read_lines(tmp_path / "empty.tar.gz"))


def rows(path, **options):
    return list(read_columns(path, **{"needed": ("b",), **options}))


def test_columns_by_header_and_by_name(tmp_path):
    path = packed(tmp_path / "a.tsv", b'a \tb\n1\t"2\n\n\t\n3\t\n')
    assert rows(path) == [
        Row({"a": "1", "b": '"2'}, place(path, 2), 2),
        Row({"a": "3", "b": ""}, place(path, 5), 5),
    ]
    path = packed(tmp_path / "b.txt", b"1|2\n")
    assert rows(path, names=["x", "b"], delimiter="|") == [
        Row({"x": "1", "b": "2"}, place(path, 1), 1)
    ]


def test_quoted_columns(tmp_path):
    path = packed(tmp_path / "a.tsv", b'a\tb\n"1\t1"\t"say ""x"""\n"open\tend\n2\t3\n')
    first, *_, last = rows(path, quoted=True)
    assert first.columns == {"a": "1\t1", "b": 'say "x"'}
    assert last.columns == {"a": "2", "b": "3"} and len(rows(path, quoted=True)) == 3


def test_another_number_of_columns_is_a_fault(tmp_path):
    path = packed(tmp_path / "a.tsv", b"a\tb\n1\n1\t2\t3\n1\t2\n")
    short, long, right = rows(path)
    assert short == Fault("a.tsv:2", "1 columns where 2 were expected", place(path, 2))
    assert long == Fault("a.tsv:3", "3 columns where 2 were expected", place(path, 3))
    assert right.columns == {"a": "1", "b": "2"}


def test_headers_that_will_not_do(tmp_path):
    path = packed(tmp_path / "a.tsv", b"a\tc\n")
    with pytest.raises(SpireError, match=r"a.tsv, line 1: no column 'b' \(there are a, c\)"):
        rows(path)
    path = packed(tmp_path / "a.tsv", b"")
    with pytest.raises(SpireError, match="a.tsv: the file is empty"):
        rows(path)
    path = packed(tmp_path / "a.tsv", b"\xff\tb\n")
    with pytest.raises(SpireError, match="a.tsv, line 1: not valid UTF-8 .*; convert the file"):
        rows(path)
