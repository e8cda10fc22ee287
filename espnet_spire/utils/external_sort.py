"""Sorting of more rows than fit into memory, by runs on disk that are merged."""

import heapq
import itertools
import json
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Tuple

from espnet_spire.utils.atomic import PathLike, disk_errors

Row = Tuple[str, Any]
# Rows of a few hundred bytes: tens of megabytes.
ROWS_IN_MEMORY = 100_000
# More files than this are not open at a time; limits of 1024 are common.
_RUNS_AT_ONCE = 256


def external_sort(
    rows: Iterable[Row], directory: PathLike, *, rows_in_memory: int = ROWS_IN_MEMORY
) -> Iterator[Row]:
    """Yield rows by key; those of one key keep their order.

    Keys compare by code point, which for UTF-8 is the byte order of the C locale.

    Args:
        rows: ``(key, value)``; what JSON can hold, and of tuples makes lists.
        directory: for the runs; it must be there. They are removed when all is read.
        rows_in_memory: more are written out.
    """
    directory = Path(directory)
    runs: List[Path] = []
    names = (directory / f"run{number}.jsonl" for number in itertools.count())
    rows = iter(rows)
    last = list(itertools.islice(rows, rows_in_memory))
    for following in rows:
        # written before more is read: one chunk is in memory, not two
        last.sort(key=_key)
        runs.append(_write(next(names), last))
        last.clear()
        last = [following, *itertools.islice(rows, rows_in_memory - 1)]
    last.sort(key=_key)
    while len(runs) > _RUNS_AT_ONCE:
        # neighbours only: rows of one key keep their order
        first, runs = runs[:_RUNS_AT_ONCE], runs[_RUNS_AT_ONCE:]
        runs.insert(0, _write(next(names), heapq.merge(*map(_read, first), key=_key)))
        _remove(first)
    try:
        yield from heapq.merge(*map(_read, runs), last, key=_key)
    finally:
        _remove(runs)


def _key(row: Row) -> str:
    return row[0]


def _write(path: Path, rows: Iterable[Row]) -> Path:
    if path.exists():
        raise FileExistsError(f"{path}: two sorts in one directory")
    with disk_errors(path), open(path, "w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    return path


def _read(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield tuple(json.loads(line))


def _remove(runs: Iterable[Path]) -> None:
    for path in runs:
        path.unlink(missing_ok=True)
