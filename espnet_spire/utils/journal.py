"""What a long job has done so far: JSON lines, each complete or not there.

A job appends a line when a piece of work is done, and reads them all when it starts again. A line
that a kill cut short is removed, so its piece of work is done again and nothing else is.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.lock import lock


class Journal:
    """An append-only file of JSON records under a header, for one process at a time.

    Args:
        path: the file; made if it is not there.
        settings: what the work depends on. A journal of other settings is of no use: it is moved
            aside (``.stale`` behind its name), and the log names the first setting that differs.

    Raises:
        SpireError: another process has this journal open.
    """

    def __init__(self, path: PathLike, settings: Dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._settings = json.loads(json.dumps(settings))
        self._open()
        known = next(read_journal(self.path, header=True), None)
        if known is not None and known.get("settings") != self._settings:
            stale = self.path.with_name(self.path.name + ".stale")
            logging.warning("%s: %s; moved to %s", self.path, _difference(known, settings), stale)
            os.replace(self.path, stale)
            self.close()
            self._open()
            known = None
        if known is None:
            self.append({"settings": self._settings})

    def _open(self) -> None:
        while True:
            self._stream = open(self.path, "a+b")  # noqa: SIM115, held until close()
            try:
                lock(self._stream, self.path)
            except SpireError:
                self._stream.close()
                raise
            if self._is_in_place():
                break
            # Between opening and locking its last owner had moved or removed it.
            self._stream.close()
        self._drop_torn_line()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._stream.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let another process have it."""
        self._stream.close()

    def _drop_torn_line(self) -> None:
        end = self._stream.seek(0, os.SEEK_END)
        step = 1 << 16
        while end > 0:
            start = max(0, end - step)
            self._stream.seek(start)
            newline = self._stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                self._stream.truncate(start + newline + 1)
                return
            end = start
        self._stream.truncate(0)

    def records(self) -> Iterator[Dict[str, Any]]:
        """What was appended, in order, one record in memory at a time."""
        return read_journal(self.path)

    def append(self, record: Dict[str, Any]) -> None:
        """Add a record; when this returns, a kill does not lose it."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        with disk_errors(self.path):
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())


def read_journal(path: PathLike, *, header: bool = False) -> Iterator[Dict[str, Any]]:
    """Yield the records of a journal (its header first, if asked for); a torn line is left out."""
    for offset, record in read_journal_offsets(path):
        if offset or header:
            yield record


def read_journal_offsets(path: PathLike) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Yield ``(place in the file, record)``, the header too; see :func:`read_record`."""
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such journal; run the job again") from None
    with stream:
        offset = 0
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                raise SpireError(
                    f"{path}, line {number}: not JSON; the disk may have failed: remove the file to"
                    " begin anew"
                ) from None
            yield offset, record
            offset += len(line)


def read_record(path: PathLike, offset: int) -> Dict[str, Any]:
    """One record, where :func:`read_journal_offsets` found it."""
    with open(path, "rb") as stream:
        stream.seek(offset)
        return json.loads(stream.readline())


def _difference(known: Dict[str, Any], settings: Dict[str, Any]) -> str:
    before = known.get("settings")
    if not isinstance(before, dict):
        return "not a journal of this job"
    for name in sorted(before.keys() | settings.keys()):
        if before.get(name) != settings.get(name):
            return f"earlier work had {name} {before.get(name)}, this has {settings.get(name)}"
    return "earlier work had other settings"
