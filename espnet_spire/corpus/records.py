"""What readers of corpora give: utterances, and what cannot be one; and what a corpus is.

A corpus is a module of this package with a :class:`Corpus` named ``CORPUS``;
:mod:`espnet_spire.corpus.registry` finds it.
"""

import re
from pathlib import Path
from typing import Callable, Iterable, List, Mapping, NamedTuple, Optional, Union

from espnet_spire.utils.errors import SpireError

# What ends a line for Python, Kaldi or a spreadsheet, and tabs. Other white space is text.
_BREAKS = re.compile("[\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029]+")
_KEY = re.compile(r"[^\s/\0]+")


# An utterance's end, if it is its recording's.
TO_THE_END = -1.0


class Utterance(NamedTuple):
    """One utterance of a corpus.

    ``key``: unique in its split; begins with the speaker, so that tables sorted by either agree.
    ``audio``: a file, or a command that ends with ``|``. ``text``: the transcript as the corpus
    has it, one line. ``where``: file and line, for messages. ``translations``: language → text.
    ``recording``: set where ``audio`` is a longer recording with this name, of which ``start`` to
    ``end`` (seconds) is the utterance. ``seconds``: its length, where the corpus tells it.
    ``channel``: from 0, if it is one of several that the audio has; ``None`` is their average.
    """

    key: str
    audio: str
    text: str
    speaker: str
    where: str
    translations: Mapping[str, str] = {}
    recording: Optional[str] = None
    start: float = 0.0
    end: float = 0.0
    seconds: Optional[float] = None
    channel: Optional[int] = None


class Fault(NamedTuple):
    """Something that cannot be an utterance. ``key`` names it, if only by file and line."""

    key: str
    reason: str
    where: str


class LeftOut(NamedTuple):
    """What is no fault and yet not taken, by a rule or by the corpus's own mark, and why."""

    key: str
    reason: str


Item = Union[Utterance, Fault, LeftOut]


class Split(NamedTuple):
    """A split under its official ``name``; of a ``whole`` one (a test set) nothing is left out."""

    name: str
    whole: bool = False


class Corpus(NamedTuple):
    """A corpus of speech.

    ``name``: of its module. ``variable``: of ``db.sh``, which says where it is. ``source``: where
    it comes from, for those who have not got it. ``read(root, split, targets)`` gives the items of
    a split in any order, ``targets`` being the languages whose translations are wanted.
    ``index(root, split, targets)``: the files that say what there is; a change in them makes a new
    data directory. ``targets``: languages that it has translations into.
    """

    name: str
    variable: str
    source: str
    splits: List[Split]
    read: Callable[[Path, str, List[str]], Iterable[Item]]
    index: Callable[[Path, str, List[str]], List[Path]]
    targets: List[str] = []

    def split(self, name: str) -> Split:
        """The split of this name; another is an error."""
        for split in self.splits:
            if split.name == name:
                return split
        names = ", ".join(split.name for split in self.splits)
        raise SpireError(f"{self.name} has no split {name!r}; it has {names}")


def one_line(text: str) -> str:
    """A text without line breaks and tabs, and without white space at its ends.

    >>> one_line(" a\\tb\\u2028c ")
    'a b c'
    """
    return _BREAKS.sub(" ", text).strip()


def check_key(key: str) -> Optional[str]:
    """Why a key cannot stand in a Kaldi table and name a file, or ``None``."""
    return None if _KEY.fullmatch(key) else f"key {key!r} has white space or a slash, or is empty"


def speaker_key(speaker: str, name: str) -> str:
    """``<speaker>-<name>``, or the name alone where it begins so already.

    >>> speaker_key("17", "17-3"), speaker_key("17", "171-3")
    ('17-3', '17-171-3')
    """
    return name if f"{name}-".startswith(f"{speaker}-") else f"{speaker}-{name}"
