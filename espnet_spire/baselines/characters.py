"""What a CTC model writes: characters of transcripts, after a normalisation of its own.

The paper does not say how its transcripts were normalised; WER is counted after Whisper's
normalisation in any case. Here: Unicode NFC, lower case, typographic apostrophes as ``'``; letters,
marks, digits and apostrophes inside words stay, all else is white space between words.
"""

import re
import unicodedata
from collections import Counter
from typing import Dict, Iterable, List

from espnet_spire.utils.errors import SpireError

BLANK, UNKNOWN, SPACE = "<pad>", "<unk>", "|"
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u00b4`", "'"))
_OUTER_APOSTROPHE = re.compile(r"(?<!\S)'+|'+(?!\S)")


def spoken_form(text: str) -> str:
    """The words of a transcript, with single spaces between them; may be empty.

    >>> spoken_form("\u201cDon\u2019t \u2013 it\u2019s 3 o'clock!\u201d")
    "don't it's 3 o'clock"
    """
    text = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(_OUTER_APOSTROPHE.sub(" ", kept).split())


def greedy_texts(tokenizer, ids) -> List[str]:
    """What frames say: repeats are one character, then blanks go, and so does what is unknown.

    Args:
        tokenizer: a ``Wav2Vec2CTCTokenizer``. Told to skip special tokens it would take the blanks
            away first, and with them the difference between one character and two.
        ids: of the likeliest token of each frame; shape (batch, frames).
    """
    texts = tokenizer.batch_decode(ids)
    return [" ".join(text.replace(UNKNOWN, " ").split()) for text in texts]


def vocabulary(texts: Iterable[str], min_count: int) -> Dict[str, int]:
    """Token ids of the characters of texts in their :func:`spoken_form`: blank, unknown, space …

    Args:
        min_count: characters that are there less often are unknown.

    Raises:
        SpireError: no character is there so often.
    """
    counts = Counter(character for text in texts for character in text)
    del counts[" "]
    characters = sorted(c for c, count in counts.items() if count >= min_count)
    if not characters:
        raise SpireError(f"no character is {min_count} times in the transcripts (min_char_count)")
    return {token: i for i, token in enumerate([BLANK, UNKNOWN, SPACE, *characters])}
