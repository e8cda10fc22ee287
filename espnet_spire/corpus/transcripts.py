"""Which table of a data directory has the transcripts.

ESPnet's speech translation recipes (``egs2/*/st1``) have ``text.<case>.<lang>`` for the spoken and
for the other language, ``tc`` being true-cased, ``lc`` lower-cased, ``rm`` without punctuation, and
a ``text`` that is often one without case and punctuation: there the transcripts are
``text.tc.<spoken language>``.
"""

from pathlib import Path
from typing import Dict, Optional

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import TEXT, translation_file
from espnet_spire.utils.errors import SpireError


def transcript_table(directory: PathLike, text: Optional[str], src_lang: Optional[str]) -> str:
    """The table with the transcripts: the named one, else the true-cased one, else ``text``.

    Args:
        text: its name, if a user said so.
        src_lang: the language that is spoken.

    Raises:
        SpireError: it is not there, or there are several and nothing says which it is.
    """
    directory = Path(directory)
    there = sorted(path.name for path in directory.glob(f"{TEXT}*"))
    has = f"it has {', '.join(there)}" if there else "nor any other text"
    if text is not None:
        if text not in there:
            raise SpireError(f"{directory}: no {text} there; {has}")
        return text
    if src_lang is not None and translation_file(src_lang) in there:
        return translation_file(src_lang)
    if src_lang is None and true_cased(directory):
        raise SpireError(
            f"{directory}: {has}; say which language is spoken (--src_lang), or which of them has"
            " the transcripts (--text)"
        )
    if TEXT not in there:
        raise SpireError(f"{directory}: no {TEXT} there; {has}; --text names the transcripts")
    return TEXT


def true_cased(directory: PathLike) -> Dict[str, str]:
    """Language → table, of all ``text.tc.<lang>``; others, as text.tc.rm.<lang>, are no such."""
    prefix = translation_file("")
    names = sorted(path.name for path in Path(directory).glob(f"{prefix}*"))
    found = {name[len(prefix) :]: name for name in names}
    return {lang: name for lang, name in found.items() if lang and "." not in lang}
