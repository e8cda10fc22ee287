"""SPGISpeech: 5,000 hours of earnings calls, English with casing and punctuation, 16 kHz WAV.

O'Neill et al., Interspeech 2021, https://arxiv.org/abs/2104.02014. 50,000 voices in slices of 5 to
15 s; after registration with Kensho, for non-commercial use under their licence:
https://datasets.kensho.com/datasets/spgispeech. In the paper it is for continued pre-training and
pseudo-labels (Tables 9 and 10).

Layout; the tables may also lie beside ``spgispeech/``::

    spgispeech/train.csv, val.csv      wav_filename|wav_filesize|transcript   (a header, no quoting)
    spgispeech/train/<call>/<n>.wav    wav_filename is <call>/<n>.wav

The corpus does not say who speaks. As in ESPnet's and lhotse's recipes, all of a call counts as one
speaker, though there are several in it. Utterances are named as in ESPnet's.
"""

import re
from pathlib import Path
from typing import Iterator, List, Optional

from espnet_spire.corpus.lines import read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_FOLDER = "spgispeech"
_FILE = re.compile(r"([^/]+)/([^/]+)\.wav")
# WAV of 16-bit samples: bytes before them, bytes a second.
_HEADER, _BYTES_A_SECOND = 44, 32000


def _tables(root: Path, split: str, _targets: List[str]) -> List[Path]:
    for folder in (root, root / _FOLDER):
        table = folder / f"{split}.csv"
        if table.is_file():
            return [table]
    raise SpireError(f"{root}: no {split}.csv there, nor in its {_FOLDER}/")


def _seconds(size: str) -> Optional[float]:
    """Length by the size of the file, or ``None`` where that is none."""
    samples = int(size) - _HEADER if size.isdecimal() else 0
    return samples / _BYTES_A_SECOND if samples > 0 else None


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    [table] = _tables(root, split, targets)
    folder = table.parent / split
    if not folder.is_dir():
        folder = table.parent / _FOLDER / split
    columns = ["wav_filename", "wav_filesize", "transcript"]
    for row in read_columns(table, needed=columns, delimiter="|"):
        if isinstance(row, Fault):
            yield row
            continue
        file, size, text = (row.columns[name] for name in columns)
        parts = _FILE.fullmatch(file)
        if parts is None:
            yield Fault(f"{table.name}:{row.number}", f"{file!r} is no <call>/<n>.wav", row.where)
            continue
        call, number = parts.groups()
        yield Utterance(
            f"{call}-{number}",
            f"{folder}/{file}",
            one_line(text),
            call,
            row.where,
            seconds=_seconds(size),
        )


CORPUS = Corpus(
    name="spgispeech",
    variable="SPGISPEECH",
    source="https://datasets.kensho.com/datasets/spgispeech",
    splits=[Split("train"), Split("val", whole=True)],
    read=_read,
    index=_tables,
)
