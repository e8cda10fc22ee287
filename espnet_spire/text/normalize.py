"""Whisper's text normalisers, which the paper scores ASR with.

Source: Radford et al. 2022, Appendix C; code of the package ``whisper_normalizer`` (a copy of
OpenAI's that needs neither torch nor a download). English has its own normaliser (spelling,
numbers, contractions); every other language gets the basic one (case, punctuation, brackets).
"""

import functools
from importlib.metadata import version
from typing import Callable, Tuple

Normalizer = Callable[[str], str]

# Languages written without white space between words (those for which Whisper's own evaluation
# splits into letters): words are no sensible unit of errors there.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


@functools.lru_cache(maxsize=None)
def normalizer(lang: str) -> Tuple[Normalizer, str]:
    """Give the normaliser of a language and the name to print beside scores.

    Args:
        lang: the shortest ISO 639 code; ``en`` gets the English normaliser, others the basic one.

    Returns:
        A function from text to normalised text (single spaces, none at the ends; may be empty)
        and its name with the package's version, e.g. ``whisper-english@whisper_normalizer-0.1.15``.

    Example:
        >>> normalizer("en")[0]("Mr. Park's colour, um, IS grey!")
        'mister park is color is gray'
    """
    if lang == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        function, name = EnglishTextNormalizer(), "whisper-english"
    else:
        from whisper_normalizer.basic import BasicTextNormalizer

        function, name = BasicTextNormalizer(), "whisper-basic"

    def normalize(text: str) -> str:
        # Whisper's basic normaliser leaves a space where punctuation was at the end.
        return " ".join(function(text).split())

    return normalize, f"{name}@whisper_normalizer-{version('whisper_normalizer')}"
