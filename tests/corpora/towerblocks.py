"""TowerBlocks in miniature, as the hub gives it: Parquet files of one split with five columns."""

from pathlib import Path

import pyarrow
from pyarrow import parquet

from corpora.material import say

NER = (
    "Study this taxonomy for classifying named entities:\n- Person (Names of people)\n"
    "- Location (Location or physical facilities). Identify all named entities in the following"
    ' tokens:\n["emilio", "castelar", "\u2028", ":"]\nAnswer: '
)


def entry(number: int) -> dict:
    """An entry; every fourth is of named entities, every fifth of post-editing."""
    lang = ("de", "fr", "zh")[number % 3]
    said = say(number)
    if number % 4 == 0:
        answer = '[("emilio", "B-Person"), ("castelar", "I-Person"), (" ", "O"), (":", "O")]'
        turns, facts = [NER, answer], ("es", "dev", "multiconer2023", "named_entity_recognition")
    elif number % 5 == 0:
        turns = [f"Source: {said['en']}\nTranslation: x\nPost-edited: ", said[lang]]
        facts = (f"en-{lang}", "train", "qt21", "automatic_post_edition")
    else:
        turns = [f"Translate.\nEnglish: {said['en']}\nUnit \U000f0007: ", f"\n{said[lang]}"]
        facts = (f"en-{lang}", "train", "wmt14-21", "general_mt_clean")
    speakers = ("human", "gpt")
    talk = [{"from": who, "value": text} for who, text in zip(speakers, turns, strict=True)]
    named = zip(("lang", "split", "dataset", "task"), facts, strict=True)
    return {"conversations": talk, **dict(named)}


def build(root: Path, count: int = 40) -> Path:
    """Write a download of the hub; returns what ``TOWERBLOCKS`` is set to."""
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text("TowerBlocks\n")
    half = count // 2
    for part, numbers in enumerate((range(half), range(half, count))):
        table = pyarrow.Table.from_pylist([entry(number) for number in numbers])
        parquet.write_table(table, root / "data" / f"train-{part:05d}-of-00002.parquet")
    return root
