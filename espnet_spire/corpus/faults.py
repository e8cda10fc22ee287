"""What of a corpus cannot be used, on disk: it may be all of it, where the audio is elsewhere."""

import json
from pathlib import Path
from typing import Iterator, Optional, Tuple

from espnet_spire.corpus.records import one_line
from espnet_spire.utils.atomic import PathLike, atomic_write, disk_errors
from espnet_spire.utils.external_sort import external_sort
from espnet_spire.utils.rejected import rejected_line


class Faults:
    """Keys and what is wrong with them. ``first``: the first of them and its reason.

    Args:
        directory: is made, for files that do not stay; empty again after :meth:`write`.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.first: Optional[Tuple[str, str]] = None
        self._count = 0
        self._directory = directory
        self._path = directory / "faults.jsonl"
        self._stream = open(self._path, "w", encoding="utf-8")  # noqa: SIM115

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, reason: str, where: str) -> None:
        """Note a fault; of a key there may be several."""
        row = one_line(key) or "?", f"{reason} ({where})"
        self.first = self.first or row
        self._count += 1
        with disk_errors(self._path):
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def write(self, path: PathLike) -> None:
        """Write a ``rejected.tsv``; the second fault of a key is ``<key>#2`` there. Once only."""
        with disk_errors(self._path):
            self._stream.close()
        again = self._directory / "again"
        again.mkdir()
        with atomic_write(path) as stream:
            for key, reason in external_sort(self._numbered(), again):
                stream.write(rejected_line(key, reason))
        again.rmdir()
        self._path.unlink()

    def _numbered(self) -> Iterator[Tuple[str, str]]:
        last, number = None, 0
        with open(self._path, encoding="utf-8") as stream:
            for key, reason in external_sort(map(json.loads, stream), self._directory):
                number = number + 1 if key == last else 1
                last = key
                yield key if number == 1 else f"{key}#{number}", reason
