"""Text from outside that goes into a prompt, where it must not be read as units or marks."""

import logging
import re
from functools import lru_cache
from typing import Dict, Sequence, Tuple

from espnet_spire.units.notation import UNIT_CHARS


def defused(text: str, special_tokens: Sequence[str]) -> str:
    """A text that a tokenizer reads as nothing but text.

    Characters of units are dropped, as well as those behind them in Unicode, which training does
    not take either. Names of special tokens get a blank behind their first character.

    >>> defused("the </s> token", ["</s>"])
    'the < /s> token'
    """
    if not text.isascii():
        text = UNIT_CHARS.sub("", text)
    names, before = _names(tuple(special_tokens)), None
    # Again, since what is left of two names may be a third.
    while text != before:
        before, text = text, names.sub(_apart, text)
    return text


def defused_table(
    texts: Dict[str, str], special_tokens: Sequence[str], where: str
) -> Dict[str, str]:
    """:func:`defused` by utterance; ``where`` begins the warning that counts what was changed."""
    result = {key: defused(text, special_tokens) for key, text in texts.items()}
    changed = [key for key, text in texts.items() if result[key] != text]
    if changed:
        logging.warning(
            "%s: %d of %d texts have characters of units, which are dropped, or names of special"
            " tokens, which get a blank; the first is %s",
            *(where, len(changed), len(texts), changed[0]),
        )
    return result


@lru_cache(maxsize=8)
def _names(special_tokens: Tuple[str, ...]) -> "re.Pattern[str]":
    longest_first = sorted(filter(str.strip, special_tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _apart(match: "re.Match[str]") -> str:
    name = match[0]
    # A name of one character cannot be taken apart.
    return re.sub(r"^(\s*\S)(.*\S)", r"\1 \2", name, flags=re.S) if len(name.strip()) > 1 else " "
