"""mC4 in miniature: gzipped shards of JSON lines, whose texts have line breaks and worse."""

import gzip
import json
from pathlib import Path

from corpora.material import say

LANGS = ("en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
# Lines of a shard before the made-up ones; shard → documents.
SHARDS = {0: 40, 1: 30, 2: 30}
# What is in mC4 as well: paragraphs, Windows' line ends, tabs, Unicode's own separators, characters
# that stand for units, and nothing.
ODD = [
    "First line.\nSecond line.\n\nA paragraph.",
    "\ttab\tin it\r\nand a Windows line\u2028and a separator\u0085next\n",
    "unit \U000f0003\U000f0013 here",
    "",
]


def shard(root: Path, lang: str, number: int, split: str = "") -> Path:
    """A file of a language."""
    return root / "multilingual" / f"c4-{lang}{split}.tfrecord-{number:05d}-of-02048.json.gz"


def documents(lang: str, number: int) -> list:
    """The texts of a shard."""
    texts = [
        "\n".join(say(1000 * number + 10 * i + part)[lang] for part in range(3))
        for i in range(SHARDS[number])
    ]
    if lang == "zh":  # without blanks, and with an ideographic one
        texts = [text.replace(" ", "") + "\u3000完" for text in texts]
    return texts + ODD if number == 0 else texts


def write_shard(path: Path, texts) -> Path:
    """Write a shard; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", newline="\n") as stream:
        for number, text in enumerate(texts):
            row = {"text": text, "timestamp": "2018-11-14T18:51:37Z", "url": f"https://a/{number}"}
            # mC4's files write some characters as they are
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def build(root: Path, langs=LANGS) -> Path:
    """Write the corpus; returns what ``MC4`` is set to."""
    for lang in langs:
        for number in SHARDS:
            write_shard(shard(root, lang, number), documents(lang, number))
        write_shard(shard(root, lang, 0, "-validation"), ["held out"])
    return root
