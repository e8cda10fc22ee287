"""CommonVoice: sentences read aloud by volunteers, MP3, cased and punctuated.

Ardila et al., LREC 2020; CC0; https://commonvoice.mozilla.org/en/datasets. The paper uses the
English part of release 18 (its ``train`` has 1.1M clips of 1.7K hours).

Layout, of any release since the first with TSV files::

    cv-corpus-18.0-2024-06-14/en/{train,dev,test,validated,invalidated,other}.tsv
                                 clip_durations.tsv    "clip <tab> duration[ms]"; since release 14
                                 clips/common_voice_en_<number>.mp3

The tables have a header, of which each release changes something; ``client_id``, ``path`` and
``sentence`` always stay. Nothing in them is quoted: quotation marks belong to the sentences, which
have them unbalanced at times. ``COMMONVOICE`` may be the directory of the release or its ``en``.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple, Union

from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.lines import read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line, speaker_key
from espnet_spire.utils.errors import SpireError

LANG = "en"
COLUMNS = ("client_id", "path", "sentence")
_DURATIONS = "clip_durations.tsv"
_MILLISECONDS = "duration[ms]"


def language_dir(root: Path, table: str) -> Path:
    """The directory of the language: ``root`` or what it has of this name; ``table`` is in it."""
    for folder in (root / LANG, root):
        if (folder / table).is_file():
            return folder
    raise SpireError(f"{root}: neither {LANG}/{table} nor {table} is there; unpack the release")


def clip_utterance(
    folder: Path,
    columns: Dict[str, str],
    where: str,
    *,
    translations: Optional[Dict[str, str]] = None,
    seconds: Optional[float] = None,
) -> Utterance:
    """The utterance of a row with :data:`COLUMNS`."""
    path, speaker = columns["path"], columns["client_id"]
    # The first releases leave the ending out.
    name = path if path.endswith(".mp3") else f"{path}.mp3"
    return Utterance(
        speaker_key(speaker, name[: -len(".mp3")]),
        f"{folder}/clips/{name}",
        one_line(columns["sentence"]),
        speaker,
        where,
        translations=translations or {},
        seconds=seconds,
    )


def _durations(path: Path) -> Iterator[Union[Tuple[str, str], Fault]]:
    """Clip and its milliseconds."""
    for row in read_columns(path, needed=("clip", _MILLISECONDS)):
        if isinstance(row, Fault):
            yield row
        elif not row.columns[_MILLISECONDS].isdecimal():
            reason = f"duration {row.columns[_MILLISECONDS]!r} is no number of milliseconds"
            yield Fault(f"{path.name}:{row.number}", reason, row.where)
        else:
            yield row.columns["clip"], row.columns[_MILLISECONDS]


def _read(root: Path, split: str, _targets: List[str]) -> Iterator[Item]:
    folder = language_dir(root, f"{split}.tsv")
    durations = None
    if (folder / _DURATIONS).is_file():
        durations = Rows(_durations(folder / _DURATIONS))
        yield from durations.faults()
    for row in read_columns(folder / f"{split}.tsv", needed=COLUMNS):
        if isinstance(row, Fault):
            yield row
            continue
        known = None if durations is None else durations.get(row.columns["path"])
        seconds = None if known is None else int(known) / 1000
        yield clip_utterance(folder, row.columns, row.where, seconds=seconds)


def _index(root: Path, split: str, _targets: List[str]) -> List[Path]:
    folder = language_dir(root, f"{split}.tsv")
    files = [folder / f"{split}.tsv", folder / _DURATIONS]
    return [path for path in files if path.is_file()]


CORPUS = Corpus(
    name="commonvoice",
    variable="COMMONVOICE",
    source="https://commonvoice.mozilla.org/en/datasets",
    splits=[
        Split("train"),
        Split("dev", whole=True),
        Split("test", whole=True),
        Split("validated"),
        Split("invalidated"),
        Split("other"),
    ],
    read=_read,
    index=_index,
)
