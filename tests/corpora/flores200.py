"""FLORES-200 in miniature: a file a language and split, a sentence a line; FLORES+ as Parquet."""

from pathlib import Path

import pyarrow
from pyarrow import parquet

from corpora.material import say

CODES = {
    "en": "eng_Latn",
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "nl": "nld_Latn",
    "it": "ita_Latn",
    "es": "spa_Latn",
    "pt": "por_Latn",
    "ko": "kor_Hang",
    "ru": "rus_Cyrl",
    "zh": "zho_Hans",
}
FIRST = {"devtest": 0, "dev": 500}
LINES = 12


def sentences(lang: str, split: str = "devtest") -> list:
    """The sentences of a language; the Chinese have no blanks."""
    texts = [say(FIRST[split] + number)[lang] for number in range(LINES)]
    return [text.replace(" ", "") for text in texts] if lang == "zh" else texts


def build(root: Path) -> Path:
    """Write the archive's content; returns what ``FLORES200`` is set to."""
    for split in FIRST:
        folder = root / "flores200_dataset" / split
        folder.mkdir(parents=True)
        for lang, code in CODES.items():
            text = "".join(f"{line}\n" for line in sentences(lang, split))
            (folder / f"{code}.{split}").write_text(text, encoding="utf-8")
        (folder / f"zho_Hant.{split}").write_text("x\n" * LINES)  # of no language asked for
    (root / "flores200_dataset" / "metadata_devtest.tsv").write_text("URL\tdomain\n")
    return root


def build_plus(root: Path) -> Path:
    """The same as FLORES+: Parquet with ids, Chinese as ``cmn_Hans``."""
    folder = root / "devtest"
    folder.mkdir(parents=True)
    for lang, code in CODES.items():
        rows = [
            {"id": number, "iso_639_3": code[:3], "text": text, "url": "u", "domain": "d"}
            for number, text in enumerate(sentences(lang))
        ]
        name = code.replace("zho", "cmn")
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    return root
