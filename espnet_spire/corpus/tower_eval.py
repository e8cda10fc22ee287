"""Test sets in the layout of Tower-Eval's raw data: WMT23, automatic post-editing, named entities.

https://huggingface.co/datasets/Unbabel/TowerEval-Data-v0.1, ``data.tar.gz``; its code is
https://github.com/deep-spin/tower-eval::

    data/raw_data/mt/wmt23.en-de/test.jsonl             {"src": …, "ref": …}
    data/raw_data/ape/nllb_3b_wmt23.en-de/test.jsonl    {"src": …, "mt": …, "ref": …}
    data/raw_data/ner/multiconer2023.de/test.jsonl      {"input": …, "answer": …}

Each becomes a set of text alone, whose keys are the set's name and the line, with five digits:

``wmt23``  ``text.tc.<source>``, ``text.tc.<target>``
``ape``    the same, where the target is the reference, and ``text.mt.<target>``: what to edit
``ner``    ``text.input.<lang>``: the tokens as a prompt has them; ``text.tokens.<lang>``: the
           tokens, a JSON array; ``text.tags.<lang>``: their tags (``O``, ``B-Person``, …) with
           blanks between them

``jobs`` says what each is for: a set of WMT was written in its source language.

An ``answer`` is a list of pairs, or text that shows one: ``[("emilio", "B-Person"), ("y", "O")]``.
Where there is no ``input``, it is the array of tokens.
"""

import json
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

from espnet_spire.corpus.lines import read_lines
from espnet_spire.corpus.records import Fault
from espnet_spire.corpus.text_corpus import TextCorpus, TextRequest, first_there
from espnet_spire.corpus.text_sets import write_test_set
from espnet_spire.text.jobs import Job
from espnet_spire.text.languages import language_name
from espnet_spire.utils.datadir import translation_file
from espnet_spire.utils.errors import SpireError

# Quotes within a token are not escaped there, so that only what stands behind them ends a token.
_TAG = re.compile(r'O|[BI]-[^"\s]+')
_PAIR = re.compile(rf'\("(.*?)", "({_TAG.pattern})"\)', re.S)
Cell = Tuple[str, str]


class Row(NamedTuple):
    """A line: what it says, and where it stands."""

    values: Dict[str, Any]
    where: str

    def text(self, name: str) -> Cell:
        """One of its texts and where it stands."""
        if name not in self.values:
            raise SpireError(f"{self.where}: no {name!r}, but {', '.join(self.values)}")
        return self.values[name], f"{self.where}, {name!r}"


def _rows(path: Path) -> Iterator[Row]:
    for line in read_lines(path):
        if isinstance(line, Fault):
            raise SpireError(f"{line.where}: {line.reason}")
        try:
            values = json.loads(line.text)
        except ValueError as error:
            raise SpireError(f"{line.where}: not valid JSON ({error})") from None
        if not isinstance(values, dict):
            raise SpireError(f"{line.where}: a JSON object was expected")
        yield Row(values, line.where)


def _translations(rows: List[Row], langs: List[str]) -> Dict[str, List[Cell]]:
    source, target = langs
    return {
        translation_file(source): [row.text("src") for row in rows],
        translation_file(target): [row.text("ref") for row in rows],
    }


def _edits(rows: List[Row], langs: List[str]) -> Dict[str, List[Cell]]:
    return {
        **_translations(rows, langs),
        f"text.mt.{langs[1]}": [row.text("mt") for row in rows],
    }


def _entities(rows: List[Row], langs: List[str]) -> Dict[str, List[Cell]]:
    columns: Dict[str, List[Cell]] = {
        f"text.{name}.{langs[0]}": [] for name in ("input", "tokens", "tags")
    }
    for row in rows:
        answer, where = row.text("answer")
        pairs = _pairs_of(answer, where)
        tokens = json.dumps([token for token, _ in pairs], ensure_ascii=False)
        given = row.values.get("input", tokens)
        if isinstance(given, list):
            given = json.dumps(given, ensure_ascii=False)
        tags = " ".join(tag for _, tag in pairs)
        for column, cell in zip(columns.values(), (given, tokens, tags), strict=True):
            column.append((cell, row.where))
    return columns


def _pairs_of(answer: Any, where: str) -> List[Tuple[str, str]]:
    pairs = answer
    if isinstance(answer, str):
        pairs = _PAIR.findall(answer)
        shown = ", ".join(f'("{token}", "{tag}")' for token, tag in pairs)
        if answer.strip() != f"[{shown}]":
            raise SpireError(f"{where}: not a list of tokens with tags: {answer[:60]!r}")
    try:
        found = [(str(token), tag) for token, tag in pairs]
        if found and all(_TAG.fullmatch(tag) for _, tag in found):
            return found
    except (TypeError, ValueError):
        pass
    raise SpireError(f"{where}: not a list of tokens with tags: {str(answer)[:60]!r}")


# The three corpora ---------------------------------------------------------------------------


class _Task(NamedTuple):
    """``folder``: of the raw data; ``set``: begins the names of the paper's sets; ``langs`` of one;
    ``job``: what it is for."""

    folder: str
    set: str
    langs: int
    job: str
    columns: Callable[[List[Row], List[str]], Dict[str, List[Cell]]]


def _corpus(name: str, task: _Task) -> TextCorpus:
    def languages(request: TextRequest) -> List[str]:
        langs = (request.split or "").rpartition(".")[2].split("-")
        if len(langs) != task.langs:
            example = "en-de" if task.langs == 2 else "de"
            raise SpireError(f"{name}: --split {request.split}: one such as {example} was expected")
        for lang in langs:
            language_name(lang)
        return langs

    def path(request: TextRequest) -> Path:
        languages(request)
        raw = first_there(request.root, ("data/raw_data", "raw_data", task.folder), "raw_data")
        folder = raw if raw.name == task.folder else raw / task.folder
        given = request.split
        found = folder / (given if "." in given else f"{task.set}.{given}") / "test.jsonl"
        if not found.is_file():
            there = ", ".join(sorted(each.parent.name for each in folder.glob("*/test.jsonl")))
            raise SpireError(f"{found}: no such file; there are {there or 'none'}")
        return found

    def prepare(request: TextRequest, out: Path) -> Dict[str, Any]:
        found = path(request)
        rows = list(_rows(found))
        columns = task.columns(rows, languages(request))
        keys = [f"{found.parent.name}-{number:05d}" for number in range(1, len(rows) + 1)]
        langs = languages(request)
        return write_test_set(
            name, keys, columns, [found], out, [Job(task.job, langs[0], langs[-1])]
        )

    return TextCorpus(
        name=name,
        variable="TOWER_EVAL",
        source="https://huggingface.co/datasets/Unbabel/TowerEval-Data-v0.1",
        splits="languages, such as en-de, of " + task.set + ", or another set's whole name",
        options=(),
        index=lambda request: [path(request)],
        prepare=prepare,
    )


TEXT_CORPORA = [
    _corpus("wmt23", _Task("mt", "wmt23", 2, "mt", _translations)),
    _corpus("ape", _Task("ape", "nllb_3b_wmt23", 2, "ape", _edits)),
    _corpus("ner", _Task("ner", "multiconer2023", 1, "ner", _entities)),
]
