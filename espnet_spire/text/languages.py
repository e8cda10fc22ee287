"""The ten languages of Tower and SPIRE: ISO 639-1 codes and the names used in prompts."""

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


def language_name(code: str) -> str:
    """Name of a language in prompts, e.g. ``de`` → ``German``."""
    try:
        return LANGUAGES[code]
    except KeyError:
        raise SpireError(
            f"language {code!r} is unknown; known are {', '.join(sorted(LANGUAGES))}"
        ) from None
