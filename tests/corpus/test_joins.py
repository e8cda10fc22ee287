"""Rows by key: the first of each, all of each in order, at constant memory and without a trace."""

import random
import subprocess
import sys

import pytest

from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.records import Fault
from espnet_spire.utils.errors import SpireError

ROWS = [("b", "1"), ("a", "2"), ("b", "3"), ("", "4"), ("\uffee", "5"), ("\U00010000", "6")]
FAULTS = [Fault("f:2", "not valid UTF-8", "f, line 2"), Fault("f:1", "é\n", "f, line 1")]


def test_the_first_of_a_key():
    rows = Rows(iter(ROWS))
    assert [rows.get(key) for key in ("a", "b", "", "c")] == ["2", "1", "4", None]


def test_all_of_a_key():
    rows = Rows(ROWS)
    expected = [("", ["4"]), ("a", ["2"]), ("b", ["1", "3"]), ("\uffee", ["5"])]
    expected.append(("\U00010000", ["6"]))  # by code point, not as UTF-16 has it
    assert list(rows.grouped()) == expected
    rows.get("a")  # the order is the same with an index
    assert list(rows.grouped()) == expected


def test_faults_are_apart():
    rows = Rows([FAULTS[0], *ROWS[:2], FAULTS[1]])
    assert list(rows.faults()) == FAULTS
    assert list(rows.grouped()) == [("a", ["2"]), ("b", ["1"])]
    assert rows.get("f:2") is None and rows.get("None") is None
    assert not list(Rows(ROWS).faults())


def test_texts_come_back_as_they_were():
    texts = ["", "\x00", "'; DROP TABLE rows", "a\tb\n", "日本", "9" * 5000]
    rows = Rows((text, text) for text in texts)
    assert [rows.get(text) for text in texts] == texts


def test_any_number_against_a_dictionary():
    draw = random.Random(0)
    pairs = [(str(draw.randrange(3000)), str(number)) for number in range(10_000)]
    rows, first, every = Rows(pairs), {}, {}
    for key, value in pairs:
        first.setdefault(key, value)
        every.setdefault(key, []).append(value)
    assert {key: rows.get(key) for key in first} == first
    assert list(rows.grouped()) == sorted(every.items())


def test_an_error_while_reading_is_passed_on():
    def broken():
        yield ROWS[0]
        raise SpireError("f: cut off")

    with pytest.raises(SpireError, match="f: cut off"):
        Rows(broken())


_MANY = """
import os, resource, sys
from espnet_spire.corpus.joins import Rows
rows = Rows((f"{n * 7919 % 400_000:012d}", "x" * 150) for n in range(400_000))
assert rows.get("000000000007") == "x" * 150
assert sum(len(values) for _, values in rows.grouped()) == 400_000
print(os.listdir(os.environ["SQLITE_TMPDIR"]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_the_same_and_nothing_is_left(tmp_path, monkeypatch):
    """60 MB of values; of the file there is no name, so that a kill cannot leave it."""
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))

    def run(number):
        script = _MANY.replace("400_000", str(number))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files, kibibytes = done.stdout.splitlines()
        assert files == "[]"
        return int(kibibytes)

    assert run(400_000) - run(100_000) < 20_000  # KiB, of which 45 MiB are values
    assert not list(tmp_path.iterdir())


def test_no_room(monkeypatch):
    """A file size limit stands in for a full disk."""
    script = (
        "import resource, signal\n"
        "from espnet_spire.corpus.joins import Rows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "Rows((str(n), 'x' * 1000) for n in range(100_000))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "SpireError: files that do not stay cannot be written" in done.stderr
    assert "set TMPDIR to a directory with more room" in done.stderr.splitlines()[-1]
