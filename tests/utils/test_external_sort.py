"""External sorting: the order of ``sorted``, at any size of runs, and nothing left on disk."""

import random
import tracemalloc

import pytest

from espnet_spire.utils import external_sort as module
from espnet_spire.utils.external_sort import external_sort

# Characters whose order by code point, UTF-8 and UTF-16 differ, and a prefix of another key.
KEYS = ["a", "ab", "a b", "a\tb", "B", "é", "\uffee", "\U00010000", "", "10", "9"]


@pytest.mark.parametrize("rows_in_memory", [1, 2, 3, 7, 100])
def test_as_sorted_sorts(tmp_path, rows_in_memory):
    draw = random.Random(rows_in_memory)
    rows = [(draw.choice(KEYS), [number, {"é": None}]) for number in range(50)]
    found = list(external_sort(iter(rows), tmp_path, rows_in_memory=rows_in_memory))
    assert found == sorted(rows, key=lambda row: row[0])  # stable, as sorted is
    assert found != rows
    assert list(tmp_path.iterdir()) == []


def test_keys_are_in_the_order_of_bytes(tmp_path):
    rows = [(key, None) for key in KEYS]
    found = [key for key, _ in external_sort(rows, tmp_path, rows_in_memory=2)]
    assert found == sorted(KEYS, key=lambda key: key.encode())
    assert found != sorted(KEYS, key=lambda key: key.encode("utf-16-be"))


def test_no_rows_and_as_many_as_fit(tmp_path):
    assert list(external_sort([], tmp_path)) == []
    rows = [("b", 1), ("a", 2)]
    assert list(external_sort(rows, tmp_path, rows_in_memory=2)) == [("a", 2), ("b", 1)]


def test_more_runs_than_files_may_be_open(tmp_path, monkeypatch):
    """Merged in several rounds; rows of one key keep their order through all of them."""
    monkeypatch.setattr(module, "_RUNS_AT_ONCE", 3)
    rows = [(str(number % 5), number) for number in range(100)]
    opened = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda path: opened.append(path.name) or read(path))
    assert list(external_sort(rows, tmp_path, rows_in_memory=4)) == sorted(rows, key=lambda r: r[0])
    assert len(opened) > 25  # runs of runs were read as well
    assert list(tmp_path.iterdir()) == []


def test_text_comes_back_as_it_was(tmp_path):
    values = ['"', "\\", "\n\r\t", "\u2028", "\x85", "\x00", "日本"]
    rows = [(f"{number}", value) for number, value in enumerate(values)]
    assert list(external_sort(rows, tmp_path, rows_in_memory=1)) == rows


def test_who_stops_early_leaves_nothing(tmp_path):
    stream = external_sort([(str(n), n) for n in range(10)], tmp_path, rows_in_memory=2)
    next(stream)
    assert list(tmp_path.iterdir())
    stream.close()
    assert list(tmp_path.iterdir()) == []


def test_two_sorts_in_one_directory(tmp_path):
    first = external_sort([(str(n), n) for n in range(10)], tmp_path, rows_in_memory=2)
    next(first)
    with pytest.raises(FileExistsError, match="run0.jsonl: two sorts in one directory"):
        list(external_sort([(str(n), n) for n in range(10)], tmp_path, rows_in_memory=2))
    assert [value for _, value in first] == list(range(1, 10))


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(count):
        rows = ((f"{number * 7919 % count:08d}", "x" * 100) for number in range(count))
        tracemalloc.start()
        total = sum(1 for _ in external_sort(rows, tmp_path, rows_in_memory=500))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert total == count
        return most

    # 20 more runs that are open: a buffer of 8 KiB and a line each
    assert peak(15_000) < peak(5_000) + 20 * 20_000
