"""FLORES-200: the same 2,009 sentences of Wikimedia in 200 languages; a test set of translation.

NLLB Team, Nature 2024; CC BY-SA 4.0; https://github.com/facebookresearch/flores. Its archive::

    flores200_dataset/devtest/<lang>_<Script>.devtest      a sentence a line, 1,012 lines
    flores200_dataset/dev/<lang>_<Script>.dev              997 lines

FLORES+ (https://huggingface.co/datasets/openlanguagedata/flores_plus) has the same sentences with
corrections, as ``devtest/<lang>_<Script>.parquet`` (or ``.jsonl``) with ``id`` and ``text``; there
Chinese is ``cmn_Hans``.

The output is a set of text alone: ``text.tc.<lang>``, whose keys are split and line, with four
digits: ``devtest0001`` is the first line. Sentences stay as they are.
"""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from espnet_spire.corpus.lines import Line, read_lines
from espnet_spire.corpus.records import Fault
from espnet_spire.corpus.text_corpus import TextCorpus, TextRequest, first_there
from espnet_spire.corpus.text_sets import write_test_set
from espnet_spire.text.languages import three_letter_code
from espnet_spire.utils.datadir import translation_file
from espnet_spire.utils.errors import SpireError

_SPLITS = ("devtest", "dev")
_CODES = {
    "en": ("eng_Latn",),
    "de": ("deu_Latn",),
    "fr": ("fra_Latn",),
    "nl": ("nld_Latn",),
    "it": ("ita_Latn",),
    "es": ("spa_Latn",),
    "pt": ("por_Latn",),
    "ko": ("kor_Hang",),
    "ru": ("rus_Cyrl",),
    "zh": ("zho_Hans", "cmn_Hans"),
}


def _files(request: TextRequest) -> Dict[str, Path]:
    """Language → file."""
    split = request.split or _SPLITS[0]
    if split not in _SPLITS:
        raise SpireError(f"flores200 has no split {split!r}; it has {', '.join(_SPLITS)}")
    below = [f"{folder}{split}" for folder in ("", "flores200_dataset/", "floresp/", "data/")]
    folder = first_there(request.root, below, f"directory of {split}")
    return {lang: _file_of(folder, lang, split) for lang in request.langs}


def _file_of(folder: Path, lang: str, split: str) -> Path:
    codes = _CODES.get(lang) or (f"{three_letter_code(lang)}_*",)
    endings = (split, "jsonl", "parquet")
    found = sorted(
        path for code in codes for end in endings for path in folder.glob(f"{code}.{end}")
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise SpireError(f"{folder}: no file of {lang} ({' or '.join(codes)}.{split}) there")
    raise SpireError(f"{folder}: several files of {lang}: {found[0].name}, {found[1].name}")


def _sentences(path: Path) -> Iterator[Tuple[str, str, str]]:
    """``(id, sentence, where)``; of files that have no ids the number of the line."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow.parquet import read_table

        try:
            rows = read_table(path, columns=["id", "text"]).to_pylist()
        except (pyarrow.ArrowInvalid, KeyError) as error:
            raise SpireError(f"{path}: not Parquet with id and text ({error})") from None
        for number, row in enumerate(rows, 1):
            yield str(row["id"]), row["text"], f"{path}, row {number}"
        return
    for line in read_lines(path):
        if isinstance(line, Fault):
            raise SpireError(f"{line.where}: {line.reason}")
        yield (
            _parsed(line) if path.suffix == ".jsonl" else (str(line.number), line.text, line.where)
        )


def _parsed(line: Line) -> Tuple[str, str, str]:
    try:
        row = json.loads(line.text)
        return str(row["id"]), row["text"], line.where
    except (ValueError, KeyError, TypeError) as error:
        raise SpireError(f"{line.where}: no JSON object with id and text ({error!r})") from None


def _prepare(request: TextRequest, out: Path) -> Dict[str, Any]:
    split = request.split or _SPLITS[0]
    files = _files(request)
    columns: Dict[str, List[Tuple[str, str]]] = {}
    first_ids: List[str] = []
    first = next(iter(files.values()))
    for lang, path in files.items():
        rows = list(_sentences(path))
        ids = [row[0] for row in rows]
        first_ids = first_ids or ids
        if len(ids) != len(first_ids):
            raise SpireError(
                f"{path} has {len(ids)} sentences and {first} {len(first_ids)}: they do not belong"
                " together"
            )
        for one, other, (_, _, where) in zip(ids, first_ids, rows, strict=True):
            if one != other:
                raise SpireError(f"{where}: sentence {one} where {first} has {other}")
        if len(set(ids)) < len(ids):
            raise SpireError(f"{path}: one id is there twice")
        columns[translation_file(lang)] = [(text, where) for _, text, where in rows]
    keys = [f"{split}{number:04d}" for number in range(1, len(first_ids) + 1)]
    return write_test_set("flores200", keys, columns, list(files.values()), out)


TEXT_CORPORA = [
    TextCorpus(
        name="flores200",
        variable="FLORES200",
        source="https://github.com/facebookresearch/flores",
        splits=", ".join(_SPLITS),
        options=("langs",),
        index=lambda request: list(_files(request).values()),
        prepare=_prepare,
    )
]
