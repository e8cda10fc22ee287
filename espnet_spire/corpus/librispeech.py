"""LibriSpeech: 1,000 hours of read English audiobooks, 16 kHz FLAC, upper case without punctuation.

Panayotov et al., ICASSP 2015; CC BY 4.0; https://www.openslr.org/12. Here it is a test set (the
paper's Table 2: test-clean and test-other).

Layout::

    LibriSpeech/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
                                            <speaker>-<chapter>.trans.txt    "<utterance> <TEXT>"
"""

from pathlib import Path
from typing import Iterator, List

from espnet_spire.corpus.lines import read_lines
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_SPLITS = [
    Split("test-clean", whole=True),
    Split("test-other", whole=True),
    Split("dev-clean", whole=True),
    Split("dev-other", whole=True),
    Split("train-clean-100"),
    Split("train-clean-360"),
    Split("train-other-500"),
]


def _transcripts(root: Path, split: str, _targets: List[str]) -> List[Path]:
    folder = root / split
    if not folder.is_dir():
        folder = root / "LibriSpeech" / split
    found = sorted(folder.glob("*/*/*.trans.txt"))
    if not found:
        raise SpireError(f"{folder}: no <speaker>/<chapter>/*.trans.txt there")
    return found


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    for path in _transcripts(root, split, targets):
        for line in read_lines(path):
            if isinstance(line, Fault):
                yield line
                continue
            key, _, text = line.text.partition(" ")
            speaker = path.parent.parent.name
            if not key.startswith(f"{speaker}-{path.parent.name}-"):
                yield Fault(f"{path.name}:{line.number}", f"{key!r} is no utterance", line.where)
                continue
            audio = str(path.with_name(f"{key}.flac"))
            yield Utterance(key, audio, one_line(text), speaker, line.where)


CORPUS = Corpus(
    name="librispeech",
    variable="LIBRISPEECH",
    source="https://www.openslr.org/12",
    splits=_SPLITS,
    read=_read,
    index=_transcripts,
)
