"""Conversations in the ShareGPT form, as TowerBlocks has them.

``{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "lang": …}``;
``messages`` with ``role`` and ``content`` (OpenAI's names) is read as well. One entry a line is
what is read; a JSON array, Parquet or a directory of ``datasets`` is rewritten so first.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set

from espnet_spire.text.prompts import Turn
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.errors import SpireError

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_FROM = {"user": "human", "assistant": "gpt", "system": "system"}
_COLUMNS = ("conversations", "messages", "lang")
_BLOCK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
# Half of a surrogate pair, which JSON can write and UTF-8 cannot.
_HALF = re.compile("[\ud800-\udfff]")
# An answer that begins so would share a token with the newline before it (Gemma's and Qwen's
# tokenizers have words for several), which is not learned.
_FIRST_NEWLINES = re.compile(r"\A\s*[\r\n]")
# As directories of the hub name their files and folders.
_SPLIT = re.compile(r"(?<![a-z0-9])(train|validation|valid|val|dev|test|eval)(?![a-z0-9])", re.I)


class Conversation(NamedTuple):
    """``number`` of the line, from 1; ``lang`` is ``und`` where the entry does not say.

    ``fault`` says why it cannot be learned from, and then there are no turns.
    """

    number: int
    turns: List[Turn]
    lang: str
    fault: Optional[str] = None


def parse_entry(entry: Any, where: str) -> Conversation:
    """Turns of one entry, as they are learned.

    Empty system turns are left out, and newlines that answers begin with.

    Args:
        entry: of a file.
        where: names it in the error.

    Raises:
        SpireError: it has not the form of conversations.
    """
    try:
        said = entry["conversations"] if "conversations" in entry else entry["messages"]
        found = [
            (
                turn["from"] if "from" in turn else turn["role"],
                turn["value"] if "value" in turn else turn["content"],
            )
            for turn in said
        ]
        lang = str(entry.get("lang") or "und").replace(" ", "_")
    except (AttributeError, KeyError, TypeError) as error:
        raise SpireError(f"{where}: not a ShareGPT conversation ({error!r})") from None
    turns: List[Turn] = []
    faults = ["lang is not valid Unicode"] if _HALF.search(lang) else []
    for who, text in found:
        role = _ROLES.get(who) if isinstance(who, str) else None
        if role is None:
            faults.append(f"a turn of {who!r}, who is none of {', '.join(_ROLES)}")
        elif role == "system" and not str(text or "").strip():
            continue
        elif not isinstance(text, str):
            faults.append(f"a turn of {who} whose value is no text")
        elif _HALF.search(text):
            faults.append(f"a turn of {who} with half a surrogate pair, which is not valid Unicode")
        else:
            turns.append(Turn(role, _FIRST_NEWLINES.sub("", text) if role == "assistant" else text))
    if faults:
        return Conversation(0, [], "und", faults[0])
    return Conversation(0, turns, lang)


def read_conversations(
    path: PathLike, start: int, end: Optional[int], first: int, name: PathLike
) -> Iterator[Conversation]:
    """Read JSON lines; blank ones are passed over.

    Args:
        path: the file.
        start, end: bytes between which whole lines are read; ``None``: to the end.
        first: how many lines come before ``start``.
        name: of the file that the user gave, for errors.
    """
    with open_entries(path) as stream:
        stream.seek(start)
        for number, line in enumerate(stream, first + 1):
            if end is not None and start >= end:
                return
            start += len(line)
            if not line.strip():
                continue
            where = f"{name}, line {number}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise SpireError(f"{where}: not a ShareGPT conversation ({error!r})") from None
            yield parse_entry(entry, where)._replace(number=number)


def open_entries(path: PathLike):
    """Open a file of conversations as bytes."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None


def sharegpt_entry(turns: Iterable[Turn]) -> Dict[str, Any]:
    """Inverse of :func:`parse_entry`."""
    return {"conversations": [{"from": _FROM[role], "value": text} for role, text in turns]}


def is_lines(path: PathLike) -> bool:
    """Whether a file (or directory) of conversations can be read as it is."""
    path = Path(path)
    if path.is_dir() or path.suffix == ".parquet":
        return False
    with open_entries(path) as stream:
        return not stream.read(_BLOCK).lstrip().startswith(b"[")


def write_lines(path: PathLike, out: PathLike) -> None:
    """Rewrite conversations in another form as JSON lines, one entry in memory at a time."""
    with atomic_write(out) as stream:
        for entry in read_entries(path):
            stream.write(entry_line(entry))


def entry_line(entry: Any) -> str:
    """An entry as a line; in ASCII, since a string may hold what UTF-8 cannot."""
    return json.dumps(entry) + "\n"


def read_entries(path: PathLike, columns: Sequence[str] = _COLUMNS) -> Iterator[Any]:
    """Entries of a JSON array, Parquet, a folder of it or a directory of ``datasets``.

    Args:
        columns: that are read where they are apart; other forms give whole entries.
    """
    path = Path(path)
    if (path / "state.json").exists():
        yield from _saved(path, columns)
    elif path.is_dir() or path.suffix == ".parquet":
        for file in parquet_files(path) if path.is_dir() else [path]:
            yield from _parquet(file, columns)
    else:
        try:
            yield from _array(path)
        except UnicodeDecodeError:
            raise SpireError(f"{path}: not valid UTF-8; convert the file") from None


def _saved(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    from datasets import load_from_disk

    try:
        dataset = load_from_disk(str(path))
        there = [name for name in columns if name in dataset.column_names]
        yield from dataset.select_columns(there)
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SpireError(f"{path}: not readable as a directory of datasets ({reason})") from None


def parquet_files(path: Path) -> List[Path]:
    """Of a directory, those for training: splits are named as on the hub."""
    if (path / "dataset_dict.json").exists():
        raise SpireError(f"{path}: several data sets; name the directory of one of them in it")
    files = {file: _splits(file.relative_to(path)) for file in sorted(path.rglob("*.parquet"))}
    if not files:
        raise SpireError(f"{path}: neither a directory of datasets nor one with Parquet files")
    splits = set().union(*files.values())
    if not splits:
        return list(files)
    chosen = [file for file, names in files.items() if names == {"train"}]
    if not chosen:
        raise SpireError(
            f"{path}: Parquet files of {', '.join(sorted(splits))} and none of train; name one file"
            " or folder of them"
        )
    if len(chosen) < len(files):
        logging.info(
            "%s: %d of %d Parquet files are for training, the others are not read",
            *(path, len(chosen), len(files)),
        )
    return chosen


def _splits(path: Path) -> Set[str]:
    return {match.lower() for match in _SPLIT.findall(str(path))}


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(1024, columns=there):
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except pyarrow.ArrowInvalid as error:
        raise SpireError(f"{path}: not Parquet ({str(error).splitlines()[0]})") from None


def _array(path: Path) -> Iterator[Any]:
    """Elements of a JSON array, one in memory at a time."""
    decode = json.JSONDecoder().raw_decode
    with open(path, encoding="utf-8") as stream:
        text = stream.read(_BLOCK).lstrip()
        at, number = 1, 0
        while True:
            at = _BETWEEN.match(text, at).end()
            if text.startswith("]", at):
                return
            try:
                entry, at = decode(text, at)
            except json.JSONDecodeError as error:
                more = stream.read(max(_BLOCK, len(text) - at))
                if not more:
                    raise SpireError(
                        f"{path}, entry {number + 1}: not valid JSON ({error.msg})"
                    ) from None
                text, at = text[at:] + more, 0
                continue
            number += 1
            yield entry
