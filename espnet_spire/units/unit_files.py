"""Unit files beside data directories: who may be without units, and why.

Extraction leaves out utterances whose audio is of no use and lists them, with the reason, in
``<unit file>.rejected.tsv``. Every reader of a unit file follows the rule of :func:`join_units`.
"""

from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Optional, Tuple

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import iter_rejected, iter_table, read_rejected, write_rejected
from espnet_spire.utils.errors import SpireError


class WithUnits(NamedTuple):
    """A row and its utterance's units: a ``line`` of the unit file, or the ``reason`` for none."""

    key: str
    row: Any
    line: Optional[str]
    reason: Optional[str]


def rejected_file(unit_file: PathLike) -> Path:
    """Where the utterances are listed that a unit file leaves out."""
    return Path(f"{unit_file}.rejected.tsv")


def join_units(
    rows: Iterable[Tuple[str, Any]],
    unit_file: PathLike,
    reference: PathLike,
    *,
    start: int = 0,
    end: Optional[int] = None,
) -> Iterator[WithUnits]:
    """Give each row its units, streaming; the unit file may have more utterances.

    An utterance whose line is blank has no units either.

    Args:
        rows: utterance and anything, sorted by utterance.
        unit_file: Kaldi text, sorted.
        reference: what the rows are read from, for messages.
        start, end: the bytes of the unit file to look in; all of them are read.

    Raises:
        SpireError: an utterance is neither in the unit file nor in its list of what was rejected.
    """
    listed = rejected_file(unit_file)
    rejected = None
    units = iter_table(unit_file, allow_empty_value=True, start=start, end=end)
    found = ("", "")  # before every key: the rows' own files are the first to be looked for
    for key, row in rows:
        while found is not None and found[0] < key:
            found = next(units, None)
        if found is not None and found[0] == key:
            blank = None if found[1] else f"its line in {unit_file} is empty"
            yield WithUnits(key, row, found[1] or None, blank)
            continue
        if rejected is None:  # only from the first that is wanted: a part may be small
            rejected = _Reasons(listed, key)
        reason = rejected.of(key)
        if reason is None:
            raise SpireError(
                f"{unit_file}: utterance {key} of {reference} is missing and {listed.name} does not"
                " list it; make the units again (extract_units, stage 4)"
            )
        yield WithUnits(key, row, None, reason)
    if end is not None:
        for _ in units:  # so that every line of the file is looked at by one of its parts
            pass


class _Reasons:
    """The list of what was rejected, read along with sorted keys."""

    def __init__(self, path: Path, first: str) -> None:
        self._path = path
        self._lines = iter_rejected(path, first) if path.exists() else iter(())
        self._next = ("", "")

    def of(self, key: str) -> Optional[str]:
        while self._next is not None and self._next[0] < key:
            self._next = next(self._lines, None)
        if self._next is not None and self._next[0] == key:
            return self._next[1]
        # Rare, and an error unless the list is out of order.
        if self._path.exists() and key in read_rejected(self._path):
            raise SpireError(f"{self._path}: not sorted by key (LC_ALL=C sort)")
        return None


def copy_rejected(unit_file: PathLike, out: PathLike) -> None:
    """Give ``out``, made from ``unit_file``, the same list of what was rejected."""
    if rejected_file(unit_file).exists():
        write_rejected(rejected_file(out), read_rejected(rejected_file(unit_file)))
    else:
        rejected_file(out).unlink(missing_ok=True)
