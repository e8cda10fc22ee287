"""The corpora that there are: modules of ``corpus/`` with a ``CORPUS`` or ``TEXT_CORPORA``."""

import importlib
import os
from pathlib import Path
from typing import List, Optional, Union

from espnet_spire.corpus.records import Corpus
from espnet_spire.corpus.text_corpus import TextCorpus
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

SPEECH = (
    "spgispeech",
    "gigaspeech",
    "mls",
    "voxpopuli",
    "commonvoice",
    "europarl_st",
    "fleurs",
    "covost2",
    "librispeech",
)
# Name → module, where that has another name.
_TEXT_MODULES = {"mc4": "mono", "wmt23": "tower_eval", "ape": "tower_eval", "ner": "tower_eval"}
TEXT = ("flores200", "wmt23", "mc4", "mono", "parallel", "towerblocks", "ape", "ner")


def speech_corpora() -> List[Corpus]:
    """All corpora of speech."""
    return [speech_corpus(name) for name in SPEECH]


def speech_corpus(name: str) -> Corpus:
    """The corpus of this name; another is an error."""
    if name not in SPEECH:
        raise SpireError(f"corpus {name!r} is unknown; known are {', '.join(SPEECH)}")
    return importlib.import_module(f"espnet_spire.corpus.{name}").CORPUS


def text_corpus(name: str) -> TextCorpus:
    """The corpus of text of this name; another is an error."""
    if name not in TEXT:
        raise SpireError(f"corpus {name!r} is unknown; known are {', '.join(TEXT)}")
    module = importlib.import_module(f"espnet_spire.corpus.{_TEXT_MODULES.get(name, name)}")
    return next(corpus for corpus in module.TEXT_CORPORA if corpus.name == name)


def corpus_root(corpus: Union[Corpus, TextCorpus], root: Optional[PathLike]) -> Path:
    """Where a corpus lies: ``root``, or else what its variable of ``db.sh`` says."""
    found = root or os.environ.get(corpus.variable)
    if not found:
        raise SpireError(
            f"{corpus.variable} is not set: in db.sh, set it to the directory of {corpus.name}"
            f" ({corpus.source})"
        )
    if not Path(found).exists():
        raise SpireError(
            f"{found}: no such directory; in db.sh, set {corpus.variable} to that of {corpus.name}"
            f" ({corpus.source})"
        )
    return Path(found)
