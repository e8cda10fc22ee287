"""The corpora that there are: modules of ``corpus/`` with a ``CORPUS`` (or ``TEXT_CORPUS``)."""

import importlib
from typing import List

from espnet_spire.corpus.records import Corpus
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


def speech_corpora() -> List[Corpus]:
    """All corpora of speech."""
    return [speech_corpus(name) for name in SPEECH]


def speech_corpus(name: str) -> Corpus:
    """The corpus of this name; another is an error."""
    if name not in SPEECH:
        raise SpireError(f"corpus {name!r} is unknown; known are {', '.join(SPEECH)}")
    return importlib.import_module(f"espnet_spire.corpus.{name}").CORPUS
