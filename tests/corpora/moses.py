"""Parallel corpora in miniature: Moses pairs, OPUS's archive of one, TSV."""

import gzip
import zipfile
from pathlib import Path

from corpora.material import say

LANGS = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
# Pairs of one corpus each: Windows' line ends, a byte order mark, a separator and a tab in a text,
# characters of units, sides that are empty.
ODD = {
    "en": ["Windows\r", "a\u2028b", "tab\there", "", "unit \U000f0001", " \r"],
    "xx": ["Fenster\r", "c", "d", "nothing there", "e", ""],
}
PAIRS = 20


def lines(lang: str, first: int, odd: bool = False) -> list:
    """A side of a pair of files."""
    found = [say(first + number)[lang] for number in range(PAIRS)]
    return found + ODD["en" if lang == "en" else "xx"] if odd else found


def encoded(texts, bom: bool = False) -> bytes:
    """A file's content."""
    return (b"\xef\xbb\xbf" if bom else b"") + "".join(f"{t}\n" for t in texts).encode()


def build(root: Path, langs=LANGS) -> Path:
    """Write the corpora; returns what ``PARALLEL`` is set to."""
    for lang in langs:
        pair = f"{min('en', lang)}-{max('en', lang)}"  # OPUS sorts the two
        folder = root / f"Euro parl {lang}"
        folder.mkdir(parents=True)
        (folder / f"Europarl.{pair}.en").write_bytes(encoded(lines("en", 0, True), bom=True))
        (folder / f"Europarl.{pair}.{lang}").write_bytes(encoded(lines(lang, 0, True)))
        for side in ("en", lang):
            with gzip.open(root / f"news.en-{lang}.{side}.gz", "wb") as stream:
                stream.write(encoded(lines(side, 100)))
        with zipfile.ZipFile(root / f"Books_{pair}.txt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README", "OPUS")
            for side in ("en", lang):
                archive.writestr(f"Books.{pair}.{side}", encoded(lines(side, 200)))
        rows = zip(lines("en", 300), lines(lang, 300), strict=True)
        (root / f"wiki.en-{lang}.tsv").write_bytes(encoded(f"{a}\t{b}\t0.9" for a, b in rows))
    return root
