"""What a long job has done so far: JSON lines, each complete or not there.

A job appends a line when a piece of work is done, and reads them all when it starts again. A line
that a kill cut short is removed, so its piece of work is done again and nothing else is.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator

from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.errors import SpireError


class Journal:
    """An append-only file of JSON records under a header.

    Args:
        path: the file; made if it is not there.
        settings: what the work depends on. A journal of other settings is of no use: it is begun
            anew, and the log names the first setting that differs.
    """

    def __init__(self, path: PathLike, settings: Dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._settings = json.loads(json.dumps(settings))
        self._drop_torn_line()
        known = next(self._lines(), None)
        if known is None or known.get("settings") != self._settings:
            if known is not None:
                logging.warning("%s: %s", self.path, _difference(known, self._settings))
            self.path.write_text("", encoding="utf-8")
            self.append({"settings": self._settings})

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            self.path.touch()
        with open(self.path, "r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            step = 1 << 16
            while end > 0:
                start = max(0, end - step)
                stream.seek(start)
                newline = stream.read(end - start).rfind(b"\n")
                if newline >= 0:
                    stream.truncate(start + newline + 1)
                    return
                end = start
            stream.truncate(0)

    def _lines(self) -> Iterator[Dict[str, Any]]:
        return read_journal(self.path, header=True)

    def records(self) -> Iterator[Dict[str, Any]]:
        """What was appended, in order, one record in memory at a time."""
        return read_journal(self.path)

    def append(self, record: Dict[str, Any]) -> None:
        """Add a record; when this returns, a kill does not lose it."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8", newline="\n") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def read_journal(path: PathLike, *, header: bool = False) -> Iterator[Dict[str, Any]]:
    """Yield the records of a journal (its header first, if asked for); a torn line is left out."""
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such journal; run the job again") from None
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            if number == 1 and not header:
                continue
            try:
                yield json.loads(line)
            except ValueError:
                raise SpireError(
                    f"{path}, line {number}: not JSON; the disk may have failed: remove the file to"
                    " begin anew"
                ) from None


def _difference(known: Dict[str, Any], settings: Dict[str, Any]) -> str:
    before = known.get("settings")
    if not isinstance(before, dict):
        return "not a journal of this job; begun anew"
    for name in sorted(before.keys() | settings.keys()):
        if before.get(name) != settings.get(name):
            return (
                f"earlier work had {name} {before.get(name)}, this has {settings.get(name)};"
                " begun anew"
            )
    return "begun anew"
