"""Multilingual LibriSpeech, English: 44,700 hours of read audiobooks, lower case, no punctuation.

Pratap et al., Interspeech 2020, https://arxiv.org/abs/2012.03411; CC BY 4.0;
https://www.openslr.org/94. 10.8M utterances of 10 to 20 s by 5,490 speakers, in 16 kHz FLAC
(2.4 TB) or Opus (650 GB). The paper takes at most 13 a speaker for continued pre-training
(Appendix A.1; the rule ``max_per_speaker=13``).

Layout, in ``mls_english/`` (FLAC) or ``mls_english_opus/``::

    <train|dev|test>/transcripts.txt                            "<speaker>_<book>_<n><TAB><text>"
                     audio/<speaker>/<book>/<speaker>_<book>_<n>.<flac|opus>
                     segments.txt                               where in the audiobook: not read
    train/limited_supervision/                                  lists of 1 h and 9 h: not read

The underscores of names become hyphens, since Kaldi wants tables that are sorted by utterance to
be so by speaker as well: ``10_…`` comes after ``100_…``, ``10-…`` before it.
"""

import itertools
import re
from pathlib import Path
from typing import Iterator, List, Optional

from espnet_spire.corpus.lines import Row, read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_FOLDERS = ("mls_english", "mls_english_opus", ".")
_FORMATS = (".flac", ".opus")
_NAME = re.compile(r"(\d+)_(\d+)_\d+")
_COLUMNS = ["name", "text"]
# So many lines may lack their audio before the first one that has it.
_LINES_ASKED = 1000


def _transcripts(root: Path, split: str, _targets: List[str]) -> List[Path]:
    for folder in _FOLDERS:
        path = root / folder / split / "transcripts.txt"
        if path.is_file():
            return [path]
    raise SpireError(f"{root}: no {split}/transcripts.txt there, nor in its mls_english[_opus]/")


def _rows(path: Path) -> Iterator[Item]:
    return read_columns(path, needed=_COLUMNS, names=_COLUMNS)


def _audio(folder: Path, name: str, suffix: str) -> Optional[str]:
    """File of an utterance; ``None`` if it has no name of one."""
    found = _NAME.fullmatch(name)
    return found and f"{folder}/audio/{found[1]}/{found[2]}/{name}{suffix}"


def _format(path: Path) -> str:
    """The format that the first audio has which is there."""
    for row in itertools.islice(_rows(path), _LINES_ASKED):
        if isinstance(row, Row):
            for suffix in _FORMATS:
                audio = _audio(path.parent, row.columns["name"], suffix)
                if audio is not None and Path(audio).is_file():
                    return suffix
    return _FORMATS[0]  # whose absence is then reported


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    [path] = _transcripts(root, split, targets)
    folder, suffix = path.parent, _format(path)
    for row in _rows(path):
        if isinstance(row, Fault):
            yield row
            continue
        name = row.columns["name"]
        audio = _audio(folder, name, suffix)
        if audio is None:
            yield Fault(f"{path.name}:{row.number}", f"{name!r} is no utterance", row.where)
            continue
        yield Utterance(
            name.replace("_", "-"),
            audio,
            one_line(row.columns["text"]),
            name.partition("_")[0],
            row.where,
        )


CORPUS = Corpus(
    name="mls",
    variable="MLS",
    source="https://www.openslr.org/94",
    splits=[Split("train"), Split("dev", whole=True), Split("test", whole=True)],
    read=_read,
    index=_transcripts,
)
