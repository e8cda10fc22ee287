"""FLEURS: sentences of FLORES read aloud in 102 languages, 16 kHz WAV, cased and punctuated.

Conneau et al., SLT 2022; CC BY 4.0; https://huggingface.co/datasets/google/fleurs. Here: English
speech (2,602, 394 and 647 recordings) and the same sentences in the paper's nine languages.

Layout of the hub, its archives unpacked where they lie, or of what lhotse downloads::

    data/<language>/{train,dev,test}.tsv           metadata/<language>/{train,dev,test}.tsv
    data/<language>/audio/<split>/<number>.wav     <language>/<split>/<number>.wav

The tables have no header: number of the sentence, file, sentence, the same in lower case without
punctuation, its letters, samples, MALE or FEMALE. A sentence has up to three recordings, each of
which is an utterance; its number is the same in all languages, and some lack it. Who speaks is not
said: each recording is its own speaker.
"""

from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple, Union

from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.lines import read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_SPEECH = "en_us"
_LANGUAGES = {
    "de": "de_de",
    "es": "es_419",
    "fr": "fr_fr",
    "it": "it_it",
    "ko": "ko_kr",
    "nl": "nl_nl",
    "pt": "pt_br",
    "ru": "ru_ru",
    "zh": "cmn_hans_cn",
}
_COLUMNS = ["id", "file", "sentence", "normalised", "letters", "samples", "gender"]
_RATE = 16000


class _Layout(NamedTuple):
    """Where tables are, by language, and the English recordings."""

    tables: Path
    recordings: Path

    def table(self, language: str, split: str) -> Path:
        return self.tables / language / f"{split}.tsv"


def _layout(root: Path, split: str) -> _Layout:
    for base in (root / "data", root):
        if (base / _SPEECH / f"{split}.tsv").is_file():
            return _Layout(base, base / _SPEECH / "audio" / split)
    for base in (root, root / "fleurs"):
        if (base / "metadata" / _SPEECH / f"{split}.tsv").is_file():
            return _Layout(base / "metadata", base / _SPEECH / split)
    raise SpireError(
        f"{root}: neither data/{_SPEECH}/{split}.tsv nor metadata/{_SPEECH}/{split}.tsv is there"
    )


def _tables(root: Path, split: str, targets: List[str]) -> List[Path]:
    """English and the targets."""
    layout = _layout(root, split)
    tables = [
        layout.table(language, split) for language in (_SPEECH, *map(_LANGUAGES.get, targets))
    ]
    for lang, table in zip(targets, tables[1:], strict=True):
        if not table.is_file():
            raise SpireError(f"{table}: no such file; get it, or leave {lang} out of --targets")
    return tables


def _sentences(path: Path) -> Iterator[Union[Tuple[str, str], Fault]]:
    """Number and sentence; recordings of one sentence follow each other, one of them is enough."""
    last = None
    for row in read_columns(path, needed=_COLUMNS, names=_COLUMNS):
        if isinstance(row, Fault):
            yield row
            continue
        found = row.columns["id"], one_line(row.columns["sentence"])
        if found != last:
            last = found
            yield found


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    english, *others = _tables(root, split, targets)
    recordings = _layout(root, split).recordings
    if not recordings.is_dir():
        archive = recordings.with_name(f"{split}.tar.gz")
        do = f"unpack {archive} in {archive.parent}" if archive.is_file() else f"get {archive.name}"
        raise SpireError(f"{recordings}: no such directory; {do}")
    translations = {
        lang: Rows(_sentences(path)) for lang, path in zip(targets, others, strict=True)
    }
    for rows in translations.values():
        yield from rows.faults()
    for row in read_columns(english, needed=_COLUMNS, names=_COLUMNS):
        if isinstance(row, Fault):
            yield row
            continue
        number, file, samples = (row.columns[name] for name in ("id", "file", "samples"))
        key = f"{number}-{file.removesuffix('.wav')}"
        if not samples.isdecimal():
            yield Fault(key, f"{samples!r} is no number of samples", row.where)
            continue
        found = {lang: rows.get(number) for lang, rows in translations.items()}
        yield Utterance(
            key,
            f"{recordings}/{file}",
            one_line(row.columns["sentence"]),
            key,
            row.where,
            translations={lang: text for lang, text in found.items() if text is not None},
            seconds=int(samples) / _RATE,
        )


CORPUS = Corpus(
    name="fleurs",
    variable="FLEURS",
    source="https://huggingface.co/datasets/google/fleurs",
    splits=[Split("train"), Split("dev", whole=True), Split("test", whole=True)],
    read=_read,
    index=_tables,
    targets=list(_LANGUAGES),
)
