"""Tower-Eval's raw data of translation in miniature: a JSON line a sentence with src and ref."""

import json
from pathlib import Path

from corpora.material import say

PAIRS = ("en-de", "de-en", "en-ru", "ru-en", "en-zh", "zh-en")


def rows(pair: str) -> list:
    """What a pair has: the last text is a paragraph, as WMT23's German and English are."""
    source, target = pair.split("-")
    found = [{"src": say(n)[source], "ref": say(n)[target]} for n in range(800, 805)]
    two = [say(n) for n in (805, 806)]
    found.append({k: "\n".join(t[x] for t in two) for k, x in (("src", source), ("ref", target))})
    return found


def write_rows(path: Path, values) -> Path:
    """Write JSON lines as Tower-Eval does; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in values)
    path.write_text(lines, encoding="utf-8")
    return path


def build(root: Path) -> Path:
    """Write the data; returns what ``TOWER_EVAL`` is set to."""
    for pair in PAIRS:
        write_rows(root / f"data/raw_data/mt/wmt23.{pair}/test.jsonl", rows(pair))
    return root
