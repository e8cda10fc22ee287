"""Sources of a mixture as streams of examples, before tokenisation.

A source is one stream a language (or pair): sorted Kaldi tables that are joined on their keys, or
a file of conversations. A stream can be read as a whole or in parts, see
:mod:`espnet_spire.train.split`.
"""

import hashlib
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.text import prompts
from espnet_spire.train.pairs import PAIRED
from espnet_spire.train.selection import sample_position
from espnet_spire.train.sharegpt import read_conversations
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.datadir import (
    LINE_BREAK,
    TEXT,
    iter_table,
    language_file,
    translation_file,
)
from espnet_spire.utils.errors import SpireError

SPEECH_TASKS = ("asr", "st", "st_multi_turn", PAIRED)


class Stream(NamedTuple):
    """One language of a source.

    ``tables[0]`` decides which examples there are; the others must have its keys and may have
    more. With ``with_units`` the last is the unit file. ``target`` is ``None`` for tasks within
    one language; ``language`` is ``None`` where each example says its own (``chat``).
    """

    source: str
    task: str
    language: Optional[str]
    target: Optional[str]
    tables: Tuple[str, ...]
    with_units: bool
    settings: Dict[str, Any]

    @property
    def lang(self) -> str:
        """As it stands in the examples: ``en`` or ``en-de``."""
        return "-".join(lang for lang in (self.language, self.target) if lang)


class Part(NamedTuple):
    """Consecutive rows of a stream.

    ``spans``: the bytes ``(start, end)`` of each table; ``first``: how many rows of ``tables[0]``
    come before; ``rows``: how many it has; ``before``: the first key after it.
    """

    spans: Tuple[Tuple[int, Optional[int]], ...]
    first: int
    rows: int
    before: Optional[str]


class Raw(NamedTuple):
    """One example before tokenisation.

    ``texts`` are what a corpus gave: the transcript, then the translation; ``line`` is the
    utterance's line of the unit file; ``turns`` only ``chat`` has. ``without_units`` says why
    there is no line where there should be one, ``unusable`` what is wrong with a conversation.
    """

    key: str
    lang: str
    texts: Tuple[str, ...]
    line: Optional[str] = None
    turns: Optional[List[prompts.Turn]] = None
    without_units: Optional[str] = None
    unusable: Optional[str] = None


def streams_of(source: Dict[str, Any], units_name: str) -> List[Stream]:
    """The streams of a source, in the order in which its examples are written.

    Args:
        source: of a mixture file.
        units_name: of the unit file in each data directory.
    """
    task = source["task"]
    if task == "chat":
        found = [(None, None, [source["file"]])]
    elif task == "mono":
        text_dir = Path(source["text_dir"])
        found = [(lang, None, [text_dir / f"{TEXT}.{lang}"]) for lang in source["langs"]]
    elif task == "mt":
        text_dir = Path(source["text_dir"])
        pairs = [pair.split("-") for pair in source["pairs"]]
        spoken = source.get("speech_lang", "")
        found = [
            (s, t, [language_file(text_dir, lang, spoken) for lang in (s, t)]) for s, t in pairs
        ]
    else:
        speech, data_dir = source.get("speech_lang", "en"), Path(source["data_dir"])
        spoken = [data_dir / TEXT, data_dir / units_name]
        found = [(speech, None, spoken)]
        if task != "asr":
            folder = source.get("translations", str(data_dir))
            found = [
                (speech, lang, [Path(folder.format(lang=lang)) / translation_file(lang), *spoken])
                for lang in source["targets"]
            ]
    return [
        Stream(
            source["name"],
            task,
            language,
            target,
            tuple(map(str, tables)),
            task in SPEECH_TASKS,
            source,
        )
        for language, target, tables in found
    ]


def mixture_files(sources: Iterable[Dict[str, Any]], units_name: str) -> List[str]:
    """The files (and directories, for ``chat``) that sources are read from, sorted."""
    streams = [stream for source in sources for stream in streams_of(source, units_name)]
    return sorted({table for stream in streams for table in stream.tables})


def join_tables(
    paths: Sequence[str], spans: Optional[Sequence[Tuple[int, Optional[int]]]] = None
) -> Iterator[Tuple[str, List[str]]]:
    """Join sorted tables on the keys of the first, streaming.

    Args:
        paths: Kaldi tables; those after the first may have more keys.
        spans: the bytes of each that are read; all of them are.
    """
    streams = [
        iter_table(path, allow_empty_value=True, start=start, end=end)
        for path, (start, end) in zip(paths, spans or [(0, None)] * len(paths), strict=True)
    ]
    for key, value in streams[0]:
        values = [value]
        for path, stream in zip(paths[1:], streams[1:], strict=True):
            for other_key, other in stream:  # noqa: B007
                if other_key >= key:
                    break
            else:
                other_key = None
            if other_key != key:
                raise SpireError(f"{path}: key {key} of {paths[0]} is missing")
            values.append(other)
        yield key, values
    if spans is not None:
        # so that every line of a table is looked at by one of its parts
        for stream in streams[1:]:
            for _ in stream:
                pass


def read_stream(stream: Stream, seed: int, part: Optional[Part] = None) -> Iterator[Raw]:
    """Stream the examples of a stream, or of a part of it; ``range`` leaves out the others.

    Raises:
        SpireError: a table is missing, unsorted, or lacks a key.
    """
    low, high = stream.settings.get("range", (0.0, 1.0))
    for utterance, raw in _read_all(stream, part):
        # not raw.key: tasks and languages over the same data have the same utterances in a range
        if low <= sample_position(seed, "range", utterance) < high:
            yield raw


def content_hash(raw: Raw) -> int:
    """64 bits of what a corpus gave; those of a source's examples are added up, modulo 2**64."""
    said = [raw.key, raw.lang, raw.line or "", *raw.texts, *(turn.role for turn in raw.turns or ())]
    digest = hashlib.blake2b("\n".join(said).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _read_all(stream: Stream, part: Optional[Part]) -> Iterator[Tuple[str, Raw]]:
    """Utterances, and their examples."""
    if stream.task == "chat":
        start, end = part.spans[0] if part else (0, None)
        path, first = stream.tables[0], part.first if part else 0
        where = stream.settings["file"]
        for number, turns, lang, fault in read_conversations(path, start, end, first, where):
            key, texts = f"{number:09d}", tuple(turn.content for turn in turns)
            yield key, Raw(key, lang, texts, turns=turns, unusable=fault)
        return
    tables = stream.tables[:-1] if stream.with_units else stream.tables
    rows = join_tables(tables, part and part.spans[: len(tables)])
    if part and part.before is not None:
        rows = _below(rows, part.before, tables[0])
    if not stream.with_units:
        suffix = f".{stream.lang}"
        for key, values in rows:
            # whole documents are mono's alone; a table has a line for each
            texts = (v.replace(LINE_BREAK, "\n") if stream.task == "mono" else v for v in values)
            yield key, Raw(f"{key}{suffix}", stream.lang, tuple(texts))
        return
    suffix = f".{stream.target}" if stream.target else ""
    start, end = part.spans[-1] if part else (0, None)
    for key, values, line, reason in join_units(
        rows, stream.tables[-1], tables[0], start=start, end=end
    ):
        # tables: the translation drives where there is one, and stands last in a prompt
        texts = tuple(values[::-1])
        yield key, Raw(f"{key}{suffix}", stream.lang, texts, line, without_units=reason)


def _below(rows: Iterator[Tuple[str, Any]], before: str, path: str) -> Iterator[Tuple[str, Any]]:
    for row in rows:
        if row[0] >= before:
            raise SpireError(
                f"{path}: key {row[0]} comes before {before}; keys must be unique and sorted"
                " (LC_ALL=C sort)"
            )
        yield row


def plain_text(stream: Stream, raw: Raw, units: Sequence[int]) -> str:
    """The plain form of an example, with these units in it."""
    if stream.task == "asr":
        return prompts.asr_plain(units, raw.texts[0], stream.language)
    if stream.task == "mt":
        return prompts.mt_plain(stream.language, stream.target, *raw.texts)
    return raw.texts[0]


def conversations(stream: Stream, raw: Raw, units: Sequence[int]) -> List[List[prompts.Turn]]:
    """The ChatML form of an example, with these units in it; of a pair: student's, teacher's."""
    both = [conversation(stream, raw, units)]
    if stream.task == PAIRED:
        both.append(_mt_conversation(stream, raw))
    return both


def conversation(stream: Stream, raw: Raw, units: Sequence[int]) -> List[prompts.Turn]:
    """The ChatML form of an example, with these units in it; of a pair: the student's."""
    if stream.task == "asr":
        return prompts.asr_conversation(units, raw.texts[0], stream.language)
    if stream.task in ("st", PAIRED):
        return prompts.st_conversation(units, stream.target, raw.texts[1])
    if stream.task == "st_multi_turn":
        transcript, translation = raw.texts
        return prompts.multi_turn_st_conversation(
            units, transcript, stream.target, translation, stream.language
        )
    if stream.task == "mt":
        return _mt_conversation(stream, raw)
    return raw.turns


def _mt_conversation(stream: Stream, raw: Raw) -> List[prompts.Turn]:
    instruction = prompts.mt_instruction(stream.language, stream.target, raw.texts[0])
    return [prompts.Turn("user", instruction), prompts.Turn("assistant", raw.texts[1])]
