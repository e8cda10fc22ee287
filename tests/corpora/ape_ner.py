"""Tower-Eval's raw data of post-editing and named entities in miniature."""

from pathlib import Path

from corpora.material import say
from corpora.wmt23 import PAIRS, write_rows

NER_LANGS = ("en", "de", "fr", "es", "it", "pt", "zh")
# Tokens with quotes, brackets, commas, a number, an ideographic blank; their tags.
ENTITIES = [
    [("emilio", "B-Person"), ("castelar", "I-Person"), ("said", "O"), ('"', "O")],
    [("06", "O"), ("(", "O"), ("new, york", "B-Location"), (")", "O"), ("\u3000", "O")],
    [("aspirin", "B-Medical")],
]


def shown(pairs) -> str:
    """An answer as Tower-Eval writes it: quotes within tokens are not escaped."""
    return "[" + ", ".join(f'("{token}", "{tag}")' for token, tag in pairs) + "]"


def tokens(pairs) -> str:
    """The input of a prompt."""
    return "[" + ", ".join(f'"{token}"' for token, _ in pairs) + "]"


def edits(pair: str) -> list:
    """Source, translation by machine, reference."""
    source, target = pair.split("-")
    return [
        {"src": say(n)[source], "mt": say(n + 1)[target], "ref": say(n)[target]}
        for n in range(900, 904)
    ]


def build(root: Path) -> Path:
    """Write the data; returns what ``TOWER_EVAL`` is set to."""
    for pair in PAIRS:
        write_rows(root / f"data/raw_data/ape/nllb_3b_wmt23.{pair}/test.jsonl", edits(pair))
    for lang in NER_LANGS:
        rows = [{"input": tokens(pairs), "answer": shown(pairs)} for pairs in ENTITIES]
        write_rows(root / f"data/raw_data/ner/multiconer2023.{lang}/test.jsonl", rows)
    return root
