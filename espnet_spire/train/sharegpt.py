"""Conversations in the ShareGPT form, as TowerBlocks has them.

``{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "lang": …}``;
``messages`` with ``role`` and ``content`` (OpenAI's names) is read as well. One entry a line is
what is read; a JSON array, Parquet or a directory of ``datasets`` is rewritten so first.
"""

import json
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

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


class Conversation(NamedTuple):
    """``number`` of the line, from 1; ``lang`` is ``und`` where the entry does not say."""

    number: int
    turns: List[Turn]
    lang: str


def parse_entry(entry: Any, where: str) -> Conversation:
    """Turns of one entry; ``where`` names it in the error."""
    try:
        said = entry["conversations"] if "conversations" in entry else entry["messages"]
        turns = []
        for turn in said:
            role = turn["from"] if "from" in turn else turn["role"]
            turns.append(Turn(_ROLES[role], turn["value"] if "value" in turn else turn["content"]))
        if not all(isinstance(turn.content, str) for turn in turns):
            raise TypeError("a value that is no text")
        lang = entry.get("lang")
    except (AttributeError, KeyError, TypeError) as error:
        raise SpireError(f"{where}: not a ShareGPT conversation ({error!r})") from None
    return Conversation(0, turns, str(lang).replace(" ", "_") if lang else "und")


def read_conversations(
    path: PathLike, start: int, end: Optional[int], first: int, name: PathLike
) -> Iterator[Conversation]:
    """Read JSON lines.

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
        for entry in _entries(Path(path)):
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _entries(path: Path) -> Iterator[Any]:
    if (path / "state.json").exists():
        from datasets import load_from_disk

        yield from load_from_disk(str(path))
    elif path.is_dir() or path.suffix == ".parquet":
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise SpireError(f"{path}: neither a directory of datasets nor one with Parquet files")
        for file in files:
            yield from _parquet(file)
    else:
        yield from _array(path)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(1024, columns=columns):
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
