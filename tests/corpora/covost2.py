"""CoVoST-2 in miniature: CommonVoice 4's columns, translations with pandas' backslashes."""

from pathlib import Path

from corpora.commonvoice import OLD_COLUMNS, clip, write_split
from corpora.material import say, write_lines

# (speaker, number of the clip, number of the sentence, split)
CLIPS = [
    (1, 500, 20, "train"),
    (2, 501, 21, "train_covost"),
    (2, 502, 22, "train"),
    (3, 503, 23, "dev"),
    (4, 504, 24, "test"),
    (5, 505, 25, "test"),
]
NAMES = {"de": "de", "zh": "zh-CN", "ca": "ca"}


def write_translations(path: Path, lang: str) -> None:
    """A file of translations, in another order than that of the transcripts."""
    lines = ["path\ttranslation\tsplit"]
    for _, number, text, split in reversed(CLIPS):
        # as pandas writes a backslash where nothing is quoted
        translation = "C:\\\\" + say(text)[lang] if number == 502 else say(text)[lang]
        lines.append(f"{clip(number)}\t{translation}\t{split}")
    write_lines(path, lines)


def build(root: Path) -> Path:
    """Write the corpus as fairseq wants it; returns what ``COVOST2`` is set to."""
    folder = root / "en"
    # a clip that is validated and has no translation
    clips = [row[:3] for row in CLIPS] + [(6, 506, 26)]
    write_split(folder, "validated", clips, OLD_COLUMNS)
    for lang in ("de", "zh"):
        write_translations(folder / f"covost_v2.en_{NAMES[lang]}.tsv", lang)
    return root
