"""Names of languages in prompts, by ISO 639 codes.

The ten languages of Tower and SPIRE are a fixed table: their names stand in the prompts of the
published models. Any other language has the English name that CLDR and IANA's registry give it, by
the package ``langcodes`` with ``language_data``.
"""

import functools
import re
from typing import Dict

from espnet_spire.utils.errors import SpireError

LANGUAGES: Dict[str, str] = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "nl": "Dutch",
    "it": "Italian",
    "es": "Spanish",
    "pt": "Portuguese",
    "ko": "Korean",
    "ru": "Russian",
    "zh": "Chinese",
}
# How a code is spelled: two letters (ISO 639-1) or three (ISO 639-3).
CODE = "[a-z]{2,3}"
# ISO 639's words for what is no language: uncoded, multiple, undetermined, no linguistic content.
_NO_LANGUAGE = frozenset({"mis", "mul", "und", "zxx"})


def is_code(text: str) -> bool:
    """Whether this is spelled as a code; see :func:`language_name` for whether it is one."""
    return re.fullmatch(CODE, text) is not None


def language_name(code: str) -> str:
    """Name of a language in prompts, e.g. ``de`` → ``German``, ``aeb`` → ``Tunisian Arabic``.

    Raises:
        SpireError: no language has this code.
    """
    return LANGUAGES[code] if code in LANGUAGES else _found(code).display_name()


def common_code(code: str) -> str:
    """The shortest code of a language, e.g. ``eng`` → ``en``; ``bem`` has no shorter one.

    Raises:
        SpireError: no language has this code.
    """
    return code if code in LANGUAGES else _found(code).to_tag()


def three_letter_code(code: str) -> str:
    """The ISO 639-3 code of a language that is none of the ten, e.g. ``ga`` → ``gle``.

    Raises:
        SpireError: no language has this code.
    """
    return _found(code).to_alpha3()


def same_language(one: str, other: str) -> bool:
    """Whether two codes mean one language, e.g. ``ga`` and ``gle``.

    Raises:
        SpireError: no language has one of these codes.
    """
    return common_code(one) == common_code(other)


@functools.lru_cache(maxsize=None)
def _found(code: str):
    """A ``langcodes.Language``; asked for with each prompt, so it is kept."""
    try:
        import language_data  # noqa: F401  # the names, which langcodes looks up in it
        from langcodes import Language
    except ImportError:
        raise SpireError(
            f"language {code!r} is none of {', '.join(LANGUAGES)}; to know the names of others:"
            " pip install langcodes language_data"
        ) from None
    if is_code(code) and code not in _NO_LANGUAGE:
        language = Language.get(code)
        # Codes for private use (qaa to qtz) are valid and have no name.
        if language.is_valid() and not language.display_name().startswith("Unknown"):
            return language
    raise SpireError(
        f"language {code!r} is unknown: an ISO 639-1 or 639-3 code such as en, de or bem is needed"
    )
