"""CoVoST-2: CommonVoice 4 with translations by professionals, English into 15 languages.

Wang et al., 2020 (arXiv 2007.10310); CC0; https://github.com/facebookresearch/covost. Each
language has 289,430 clips for training, 15,531 for development and as many for the test. The paper
trains on Chinese and tests on German and Chinese.

Layout (fairseq's)::

    <COVOST2>/en/covost_v2.en_<language>.tsv    path, translation, split; or its .tsv.tar.gz
                 validated.tsv                  of cv-corpus-4-2019-12-10
                 clips/common_voice_en_<number>.mp3

The files of translations may lie in ``<COVOST2>`` itself, and those of CommonVoice 4 in another
directory, to which ``COMMONVOICE_COVOST`` is set then. ``split`` is ``train``, ``dev``, ``test`` or
``train_covost``, which belongs to ``train``: what CommonVoice's own training set lacks. A backslash
stands before a character that is to be taken as it is, as pandas wrote the files.
"""

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Tuple, Union

from espnet_spire.corpus.commonvoice import COLUMNS, clip_utterance, language_dir
from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.lines import place, read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, one_line
from espnet_spire.utils.errors import SpireError

CLIPS_VARIABLE = "COMMONVOICE_COVOST"
_VALIDATED = "validated.tsv"
# Language → as the corpus names it, where it is another.
_NAMES = {"sv": "sv-SE", "zh": "zh-CN"}
_TARGETS = "ar ca cy de et fa id ja lv mn sl sv ta tr zh".split()
_SPLITS = {"train": ("train", "train_covost"), "dev": ("dev",), "test": ("test",)}


def _translations(root: Path, lang: str) -> Path:
    name = f"covost_v2.en_{_NAMES.get(lang, lang)}.tsv"
    for folder in (root / "en", root):
        for path in (folder / name, folder / f"{name}.tar.gz"):
            if path.is_file():
                return path
    raise SpireError(
        f"{root}: neither en/{name} nor {name} is there, nor its .tar.gz: get it from"
        f" https://dl.fbaipublicfiles.com/covost/{name}.tar.gz, or leave {lang} out of --targets"
    )


def _clips(root: Path) -> Path:
    """The directory with ``clips`` and the transcripts."""
    elsewhere = os.environ.get(CLIPS_VARIABLE)
    if elsewhere:
        return language_dir(Path(elsewhere), _VALIDATED)
    try:
        return language_dir(root, _VALIDATED)
    except SpireError as error:
        raise SpireError(
            f"{error}, cv-corpus-4-2019-12-10, there, or set {CLIPS_VARIABLE} to its directory"
        ) from None


def _plain(text: str) -> str:
    return one_line(re.sub(r"\\(.)", r"\1", text) if "\\" in text else text)


def _transcripts(path: Path) -> Iterator[Union[Tuple[str, str], Fault]]:
    """Clip → speaker and sentence."""
    for row in read_columns(path, needed=COLUMNS):
        if isinstance(row, Fault):
            yield row
        else:
            yield row.columns["path"], f"{row.columns['client_id']}\t{row.columns['sentence']}"


def _translated(paths: Dict[str, Path], split: str) -> Iterator[Union[Tuple[str, str], Fault]]:
    """Clip → language, line and translation."""
    wanted = _SPLITS[split]
    for lang, path in paths.items():
        seen: Counter = Counter()
        for row in read_columns(path, needed=("path", "translation", "split")):
            if isinstance(row, Fault):
                yield row
                continue
            seen[row.columns["split"]] += 1
            if row.columns["split"] in wanted:
                yield row.columns["path"], f"{lang}\t{row.number}\t{row.columns['translation']}"
        rows = ", ".join(f"{count:,} of {name!r}" for name, count in sorted(seen.items()))
        logging.info("%s: rows: %s", path, rows or "none")


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    if not targets:
        raise SpireError("covost2: --targets is empty; name at least one language")
    folder = _clips(root)
    paths = {lang: _translations(root, lang) for lang in targets}
    transcripts = Rows(_transcripts(folder / _VALIDATED))
    clips = Rows(_translated(paths, split))
    yield from transcripts.faults()
    yield from clips.faults()
    for clip, found in clips.grouped():
        translations: Dict[str, str] = {}
        first = None
        for lang, number, text in (value.split("\t", 2) for value in found):
            where = place(paths[lang], int(number))
            first = first or where
            if lang in translations:
                yield Fault(clip, f"has a translation into {lang} already", where)
            else:
                translations[lang] = _plain(text)
        transcript = transcripts.get(clip)
        if transcript is None:
            yield Fault(clip, f"is not in {folder / _VALIDATED}", first)
            continue
        speaker, sentence = transcript.split("\t", 1)
        columns = {"client_id": speaker, "path": clip, "sentence": _plain(sentence)}
        yield clip_utterance(folder, columns, first, translations=translations)


def _index(root: Path, _split: str, targets: List[str]) -> List[Path]:
    return [_clips(root) / _VALIDATED, *(_translations(root, lang) for lang in targets)]


CORPUS = Corpus(
    name="covost2",
    variable="COVOST2",
    source="https://github.com/facebookresearch/covost",
    splits=[Split("train"), Split("dev", whole=True), Split("test", whole=True)],
    read=_read,
    index=_index,
    targets=_TARGETS,
)
