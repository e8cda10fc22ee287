"""TowerBlocks: the instructions that TowerInstruct learned from, as ShareGPT conversations.

Alves et al., COLM 2024; https://huggingface.co/datasets/Unbabel/TowerBlocks-v0.2, 637,495 entries
in ``data/train-0000?-of-00004.parquet``, with the columns ``conversations``, ``lang``, ``split``,
``dataset``, ``task``. Of a download that has files of other splits, those of ``train`` are read.

The *column* ``split`` is another thing: which split of ``dataset`` an entry was made from. Named
entities come from MultiCoNER's ``dev``, for one, so entries of all are taken; ``--splits`` takes
some of them alone.

The output is one file of JSON lines, which mixtures read (``file: data/towerblocks``), with all
columns. Beside it lie ``<file>.preparation.json``, which counts by task, data set and language;
``<file>.rejected.tsv``, the entries that cannot be learned from; ``<file>.left_out.tsv``.
"""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from espnet_spire.corpus.lines import place, read_lines
from espnet_spire.corpus.records import Fault, LeftOut
from espnet_spire.corpus.text_corpus import LEFT_OUT, PREPARATION, TextCorpus, TextRequest
from espnet_spire.corpus.texts import Item, Sieve, Text
from espnet_spire.train.sharegpt import (
    entry_line,
    is_lines,
    parquet_files,
    parse_entry,
    read_entries,
)
from espnet_spire.utils.atomic import atomic_write, write_json
from espnet_spire.utils.datadir import REJECTED
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

_COLUMNS = ("conversations", "messages", "lang", "split", "dataset", "task")
_COUNTED = ("task", "dataset", "lang", "split")


def _items(path: Path, splits: Sequence[str]) -> Iterator[Item]:
    """Entries, each a text that is its line in JSON and what it is counted by."""
    for number, (entry, where) in enumerate(_entries(path), 1):
        key = f"{number:09d}"
        fault = _fault_of(entry, where)
        if fault:
            yield Fault(key, fault, where)
        elif splits and str(entry.get("split")) not in splits:
            yield LeftOut(key, f"made of split {entry.get('split')} ({where})")
        else:
            yield Text(key, (entry_line(entry), *(str(entry.get(name)) for name in _COUNTED)))


def _entries(path: Path) -> Iterator[Tuple[Any, str]]:
    """Entries or faults, and where they stand."""
    if not is_lines(path):
        for number, entry in enumerate(read_entries(path, _COLUMNS), 1):
            yield entry, f"{path}, entry {number}"
        return
    for number, line in enumerate(read_lines(path), 1):
        where = place(path, number)
        if isinstance(line, Fault):
            yield line, where
        elif line.text.strip():
            try:
                yield json.loads(line.text), where
            except ValueError as error:
                yield Fault("", f"not valid JSON ({error})", where), where


def _place(request: TextRequest) -> Path:
    """The file or directory that is read: of a download of the hub its ``data``."""
    root = request.root
    if request.split not in (None, "train"):
        raise SpireError(f"towerblocks has no split {request.split!r}; it has train")
    if (root / "dataset_dict.json").exists():  # of datasets' save_to_disk
        return root / "train"
    if (root / "data").is_dir():
        return root / "data"
    if root.is_dir() and not (root / "state.json").exists():
        single = sorted([*root.glob("*.json"), *root.glob("*.jsonl")])
        return single[0] if len(single) == 1 else root
    return root


def _index(request: TextRequest) -> List[Path]:
    root = _place(request)
    if root.is_dir() and not (root / "state.json").exists():
        return parquet_files(root)
    return sorted(path for path in root.iterdir() if path.is_file()) if root.is_dir() else [root]


def _fault_of(entry: Any, where: str) -> str:
    """Why an entry cannot be learned from, or nothing."""
    if isinstance(entry, Fault):
        return entry.reason
    try:
        conversation = parse_entry(entry, where)
    except SpireError as error:
        return str(error).removeprefix(f"{where}: ")
    if conversation.fault is None and not any(t.role == "assistant" for t in conversation.turns):
        return "nobody answers"
    return conversation.fault or ""


def _prepare(request: TextRequest, out: Path) -> Dict[str, Any]:
    path = _place(request)
    beside = [out.with_name(f"{out.name}.{name}") for name in (REJECTED, LEFT_OUT)]
    counts = {name: Counter() for name in _COUNTED}
    with Sieve(*beside) as sieve, atomic_write(out) as stream:
        items = progress(_items(path, request.splits), desc="towerblocks", unit="entry")
        for text in sieve.texts(items):
            line, *counted = text.values
            stream.write(line)
            for name, value in zip(_COUNTED, counted, strict=True):
                counts[name][value] += 1
        sieve.check("towerblocks", request.share)
        kept = sieve.read - sieve.rejected - sieve.left_out
        if not kept:
            raise SpireError(f"towerblocks: none of {sieve.read} entries is left")
        result = {
            "file": str(path),
            **{"read": sieve.read, "rejected": sieve.rejected, "left_out": sieve.left_out},
            "kept": kept,
            **{name: dict(sorted(counter.items())) for name, counter in counts.items()},
        }
        write_json(out.with_name(f"{out.name}.{PREPARATION}"), result)
    logging.info(
        "towerblocks: %s entries, %s kept, %s rejected, %s of other splits",
        *(f"{number:,}" for number in (sieve.read, kept, sieve.rejected, sieve.left_out)),
    )
    for name, counter in counts.items():
        said = ", ".join(f"{value} {count:,}" for value, count in counter.most_common(12))
        logging.info("towerblocks: by %s: %s", name, said)
    return result


TEXT_CORPORA = [
    TextCorpus(
        name="towerblocks",
        variable="TOWERBLOCKS",
        source="https://huggingface.co/datasets/Unbabel/TowerBlocks-v0.2",
        splits="train",
        options=("splits", "max_rejected"),
        index=_index,
        prepare=_prepare,
    )
]
