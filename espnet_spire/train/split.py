"""Where to cut streams, so that their parts can be read apart.

The first table of a stream is read once, for its keys only; places of those keys in the other
tables, which may be a hundred times larger, are found by bisection, since tables are sorted. A
table that is not sorted gives wrong places; then keys are missing, or come in the wrong order, when
the parts are read, and :func:`explain` says which line is to blame.
"""

import os
from typing import IO, Iterator, List, Optional, Tuple

from espnet_spire.train.sources import Part, Stream
from espnet_spire.utils.datadir import find_key, iter_table, key_of_line
from espnet_spire.utils.errors import SpireError


def split_stream(stream: Stream, part_rows: int) -> Iterator[Part]:
    """Cut a stream after each ``part_rows`` rows of its first table.

    The parts cover all bytes of all tables. One part is in memory at a time.
    """
    handles: List[IO[bytes]] = []
    try:
        for path in stream.tables:
            try:
                handles.append(open(path, "rb"))
            except FileNotFoundError:
                raise SpireError(f"{path}: no such file") from None
            except IsADirectoryError:
                raise SpireError(f"{path}: is a directory, a file was expected") from None
        yield from _split(stream, handles, part_rows)
    finally:
        for handle in handles:
            handle.close()


def _split(stream: Stream, handles: List[IO[bytes]], part_rows: int) -> Iterator[Part]:
    sizes = [os.fstat(handle.fileno()).st_size for handle in handles]
    starts = [0] * len(handles)
    first = 0
    for number, offset, key in _cuts(handles[0], part_rows):
        if key is None:
            yield Part(tuple(zip(starts, sizes, strict=True)), first, number - first, None)
            return
        ends = [offset] + [
            find_key(handle, key, start, size)
            for handle, start, size in zip(handles[1:], starts[1:], sizes[1:], strict=True)
        ]
        before = key.decode(errors="replace") if stream.task != "chat" else None
        yield Part(tuple(zip(starts, ends, strict=True)), first, number - first, before)
        starts, first = ends, number


def _cuts(handle: IO[bytes], part_rows: int) -> Iterator[Tuple[int, int, Optional[bytes]]]:
    """``(rows before, bytes before, key)`` where a part begins; at the end there is no key."""
    number = offset = 0
    for line in handle:
        if number and number % part_rows == 0:
            yield number, offset, key_of_line(line)
        number += 1
        offset += len(line)
    yield number, offset, None


def explain(stream: Stream) -> None:
    """Read a stream's tables from their beginning, to raise for a line that is out of order."""
    if stream.task != "chat":
        for path in stream.tables:
            for _ in iter_table(path, allow_empty_value=True):
                pass
