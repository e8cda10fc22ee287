"""Texts to Kaldi tables, one or several side by side: drawn within a budget, at constant memory.

Readers give texts in the order of their keys, which say file and line (:func:`line_key`), so that
nothing has to be sorted. What is drawn depends on seed, corpus and key alone, and a larger budget
keeps what a smaller one kept (:mod:`espnet_spire.train.selection`).
"""

import contextlib
import json
import re
from pathlib import Path
from typing import IO, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from espnet_spire.corpus.lines import CutOff
from espnet_spire.corpus.records import Fault, LeftOut
from espnet_spire.train.selection import EVERYTHING, FACTS, Limits, find_border, kept, sample_hash
from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.datadir import LINE_BREAK, table_line
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.rejected import check_rejected, rejected_line

# Between file and line of a key; all characters of file names in keys come after it in ASCII, so
# that keys are in the order of names even where one name begins with another.
_BETWEEN = "#"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]+")
_ENDINGS = re.compile(r"(\.jsonl?|\.txt|\.tsv)?(\.gz|\.xz|\.zip)?$")
_LINE_ENDS = re.compile("\r\n|[\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029]")
_FIRST_ROOM = 1 << 12


class Text(NamedTuple):
    """A text, or one in several languages: ``values`` belong to the tables, in their order."""

    key: str
    values: Tuple[str, ...]


Item = Union[Text, Fault, LeftOut]


class Count(NamedTuple):
    """Of one stream: how many there were, how many bytes (UTF-8) those kept have."""

    read: int
    rejected: int
    left_out: int
    kept: int
    bytes: int


def line_key(name: str, number: int) -> str:
    """The key of a line of a file: ``<name>#<number>``."""
    return f"{name}{_BETWEEN}{number:09d}"


def key_names(paths: Sequence[Path]) -> Dict[str, Path]:
    """Names of files in keys, in the order of the names.

    Each is the path below the directory that all are in, without endings such as ``.json.gz`` and
    what cannot stand in keys.

    Raises:
        SpireError: two files have the same name, or one is there twice.
    """
    names: Dict[str, Path] = {}
    resolved = [path.absolute() for path in paths]
    above = [set(path.parents) for path in resolved]
    common = max(set.intersection(*above), key=lambda folder: len(folder.parts))
    for path, whole in zip(paths, resolved, strict=True):
        name = _ENDINGS.sub("", str(whole.relative_to(common)))
        name = _NOT_IN_NAMES.sub("_", name)
        if name in names:
            raise SpireError(f"{path} and {names[name]}: one name in keys, {name}; rename a file")
        names[name] = path
    return dict(sorted(names.items()))


def until_cut_off(
    items: Iterable[Item], name: str, path: PathLike, *, forgive: bool
) -> Iterator[Item]:
    """The items of an archive; where it was cut off, what came before and a fault.

    Args:
        name: of the file in keys.
        forgive: or else it is an error.
    """
    try:
        yield from items
    except CutOff as error:
        if not forgive:
            raise SpireError(f"{error}; or give --max_rejected, to use what came before") from None
        yield Fault(f"{name}{_BETWEEN}end", str(error), str(path))


def breaks_kept(text: str) -> str:
    """A text in one line of a table, whose own line breaks are LINE SEPARATORs (U+2028).

    >>> breaks_kept(" a\\r\\n\\r\\nb\\tc ")
    'a\\u2028\\u2028b c'
    """
    return _LINE_ENDS.sub(LINE_BREAK, text.replace("\t", " ").strip())


def write_texts(
    items: Iterable[Item],
    tables: Sequence[Path],
    *,
    limits: Limits,
    seed: int,
    name: str,
    work: Path,
    rejected: Path,
    left_out: Path,
    max_rejected: float,
) -> Count:
    """Write texts to tables, all or as many as the limits allow.

    Args:
        items: in the order of their keys, each key once.
        tables: one for each value of a text.
        limits: bytes of text and number of texts.
        seed, name: of the random order in which texts are taken.
        work: a directory for a file that does not stay.
        rejected, left_out: lists of what cannot be used and of what is not wanted.
        max_rejected: share that may be unusable.

    Raises:
        SpireError: too much is unusable, or nothing is left.
    """
    with contextlib.ExitStack() as stack:
        sieve = stack.enter_context(Sieve(rejected, left_out))
        files = [stack.enter_context(_opened(path)) for path in tables]
        texts = sieve.texts(items)
        if limits != Limits(None, None):
            texts = _drawn(texts, limits, seed, name, work)
        places = list(zip(tables, files, strict=True))
        number = size = 0
        for number, text in enumerate(texts, 1):  # noqa: B007
            for (path, stream), value in zip(places, text.values, strict=True):
                stream.write(table_line(path, text.key, value))
                size += len(value.encode())
        sieve.check(name, max_rejected)
    if not number:
        raise SpireError(f"{name}: none of {sieve.read:,} texts is left; see --max_bytes")
    return Count(sieve.read, sieve.rejected, sieve.left_out, number, size)


@contextlib.contextmanager
def _opened(path: Path, mode: str = "w") -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path), open(path, mode, encoding="utf-8", newline="\n") as stream:
        yield stream


class Sieve:
    """Passes on texts and lists the rest; a context."""

    def __init__(self, rejected: Path, left_out: Path) -> None:
        self._paths = {Fault: rejected, LeftOut: left_out}
        self._stack = contextlib.ExitStack()
        self.read = self.rejected = self.left_out = 0
        self._first: Optional[Tuple[str, str]] = None

    def __enter__(self) -> "Sieve":
        opened = [self._stack.enter_context(_opened(path)) for path in self._paths.values()]
        self._lists = dict(zip(self._paths, opened, strict=True))
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def texts(self, items: Iterable[Item]) -> Iterator[Text]:
        """The texts among items."""
        for item in items:
            self.read += 1
            if isinstance(item, Text):
                yield item
            elif isinstance(item, LeftOut):
                self.left_out += 1
                self._lists[LeftOut].write(rejected_line(item.key, item.reason))
            else:
                self._reject(item)

    def _reject(self, fault: Fault) -> None:
        reason = f"{fault.reason} ({fault.where})"
        self.rejected += 1
        self._first = self._first or (fault.key, reason)
        self._lists[Fault].write(rejected_line(fault.key, reason))

    def check(self, name: str, max_rejected: float) -> None:
        """Raise if too many cannot be used."""
        check_rejected(
            self.rejected,
            self.read,
            max_rejected,
            first=self._first,
            listed=self._paths[Fault],
            where=f"{name}: ",
            what="texts",
            advice="mend them and start again",
        )


# Drawing -----------------------------------------------------------------------------------


class Draw:
    """Which of a stream are the first in a random order within limits, as far as can be said.

    Remembers 20 bytes of each that may still be kept.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._facts = np.zeros(_FIRST_ROOM, FACTS)
        self._used = 0
        self._border = EVERYTHING

    def may_keep(self, place: int, size: int) -> bool:
        """Whether one with this place and size may be kept, which later ones can change."""
        if place >= self._border:
            return False
        self._facts[self._used] = (place, size, 0, 0)
        self._used += 1
        if self._used == len(self._facts):
            self._forget()
        return True

    def border(self) -> int:
        """The place below which all are kept."""
        self._forget()
        return self._border

    def _forget(self) -> None:
        """Those that cannot be kept any more: what comes later only adds to what is before them."""
        facts = self._facts[: self._used]
        self._border = min(self._border, find_border(lambda: [facts], self._limits))
        facts = facts[kept(facts, self._border)]
        self._used = len(facts)
        if 2 * self._used > len(self._facts):
            self._facts = np.zeros(2 * len(self._facts), FACTS)
        self._facts[: self._used] = facts


def _drawn(
    texts: Iterable[Text], limits: Limits, seed: int, name: str, work: Path
) -> Iterator[Text]:
    draw = Draw(limits)
    candidates = work / "candidates.jsonl"
    with _opened(candidates) as stream:
        for text in texts:
            place = sample_hash(seed, name, text.key)
            if draw.may_keep(place, sum(len(value.encode()) for value in text.values)):
                stream.write(json.dumps([place, *text], ensure_ascii=False) + "\n")
    border = draw.border()
    with _opened(candidates, "r") as stream:
        for line in stream:
            place, key, values = json.loads(line)
            if place < border:
                yield Text(key, tuple(values))
    candidates.unlink()
