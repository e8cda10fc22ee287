"""Joins of files of any size: rows by key, on disk, for as long as a reader needs them."""

import contextlib
import itertools
import json
import sqlite3
from typing import Iterable, Iterator, List, Optional, Tuple, Union

from espnet_spire.corpus.records import Fault
from espnet_spire.utils.errors import SpireError

_CACHE_KIB = 16_384


class Rows:
    """Values by key, of which a key may have several, and the faults among what was read.

    They are in a database without a name: SQLite makes its file in ``SQLITE_TMPDIR``, ``TMPDIR``
    or ``/var/tmp`` when it outgrows the memory, and has it removed by the system with the process,
    even one that is killed. Memory does not grow with the number of rows.

    Raises:
        SpireError: there is no room for the file.
    """

    def __init__(self, rows: Iterable[Union[Tuple[str, str], Fault]]) -> None:
        self._indexed = False
        # a fault has no key
        stored = ((None, json.dumps(row)) if isinstance(row, Fault) else row for row in rows)
        with _disk_errors():
            self._database = sqlite3.connect("", isolation_level=None)
            for pragma in (f"cache_size=-{_CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.execute("CREATE TABLE rows (key TEXT, value TEXT)")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO rows VALUES (?, ?)", stored)
            self._database.execute("COMMIT")

    def faults(self) -> Iterator[Fault]:
        """The faults, in the order in which they came."""
        with _disk_errors():
            rows = self._database.execute("SELECT value FROM rows WHERE key IS NULL ORDER BY rowid")
            for (value,) in rows:
                yield Fault(*json.loads(value))

    def get(self, key: str) -> Optional[str]:
        """The first value of a key, or ``None``."""
        with _disk_errors():
            if not self._indexed:
                self._database.execute("CREATE INDEX by_key ON rows (key)")
                self._indexed = True
            found = self._database.execute(
                "SELECT value FROM rows WHERE key = ? ORDER BY rowid LIMIT 1", (key,)
            ).fetchone()
        return None if found is None else found[0]

    def grouped(self) -> Iterator[Tuple[str, List[str]]]:
        """Keys by code point, each with its values in the order in which they came."""
        with _disk_errors():
            # the sign: not by the index, which would read the table in random order
            rows = self._database.execute(
                "SELECT key, value FROM rows WHERE key IS NOT NULL ORDER BY +key, rowid"
            )
            for key, group in itertools.groupby(rows, key=lambda row: row[0]):
                yield key, [value for _, value in group]


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SpireError(
            f"files that do not stay cannot be written ({error}); set TMPDIR to a directory with"
            " more room"
        ) from error
