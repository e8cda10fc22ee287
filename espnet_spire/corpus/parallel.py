"""Parallel text: Moses pairs (two files, line by line) or TSV, to ``text.tc.<lang>`` tables.

What OPUS (https://opus.nlpl.eu, format moses) and most others offer. Under the root, at any depth,
for the pair ``en-de``::

    <name>.en-de.en  <name>.en-de.de        or with de-en, as OPUS sorts languages, or
    en-de.txt.zip                           OPUS' archive with such a pair in it
    <name>.en-de.tsv                        (or de-en) columns in the order of the name

``.gz`` and ``.xz`` may stand behind each but the archive. Or ``--files`` names them: TSV files (of
which ``--columns`` says where the two languages are), archives, or what Moses pairs have before
``.en`` and ``.de``.

Both tables have the same keys: name and line. Lines of which a side is empty are listed in
``left_out.tsv``. White space that would break a line or a column becomes a blank.
"""

import glob
import itertools
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from espnet_spire.corpus.lines import cut_off, lines_of, read_lines
from espnet_spire.corpus.records import Fault, LeftOut, one_line
from espnet_spire.corpus.text_corpus import LEFT_OUT, PREPARATION, TextCorpus, TextRequest
from espnet_spire.corpus.texts import Item, Text, key_names, line_key, until_cut_off, write_texts
from espnet_spire.text.languages import language_name
from espnet_spire.utils.atomic import atomic_dir, write_json
from espnet_spire.utils.datadir import REJECTED, translation_file
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

_PACKED = ("", ".gz", ".xz")


class Side(NamedTuple):
    """One language of a pair of files: a file, or one within an archive."""

    path: Path
    member: Optional[str] = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    def lines(self) -> Iterator:
        """As :func:`espnet_spire.corpus.lines.read_lines`."""
        if self.member is None:
            yield from read_lines(self.path)
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield from lines_of(stream, str(self))
        except zipfile.BadZipFile as error:
            raise cut_off(self.path, error) from None


class Pairs(NamedTuple):
    """Two files of which the lines belong together (``sides``), or a TSV file (``table``)."""

    place: Path
    sides: Optional[Tuple[Side, Side]] = None
    table: Optional[Path] = None
    columns: Tuple[int, ...] = ()

    @property
    def paths(self) -> List[Path]:
        """The files."""
        if self.table is not None:
            return [self.table]
        return list(dict.fromkeys(side.path for side in self.sides))

    def read(self, name: str) -> Iterator[Item]:
        """Items under keys with ``name`` in them."""
        if self.table is not None:
            return _read_table(self.table, self.columns, name)
        return _read_moses(*self.sides, name)


def _read_moses(left: Side, right: Side, name: str) -> Iterator[Item]:
    streams = left.lines(), right.lines()
    for number, lines in enumerate(itertools.zip_longest(*streams), 1):
        if None in lines:
            counts = [number - 1 + (line is not None) for line in lines]
            counts = [
                count + sum(1 for _ in rest) for count, rest in zip(counts, streams, strict=True)
            ]
            raise SpireError(
                f"{left} has {counts[0]:,} lines and {right} {counts[1]:,}: they do not belong"
                " together line by line"
            )
        yield _pair(line_key(name, number), lines)


def _read_table(path: Path, columns: Tuple[int, ...], name: str) -> Iterator[Item]:
    expected = None
    for number, line in enumerate(read_lines(path), 1):
        key = line_key(name, number)
        if isinstance(line, Fault):
            yield line._replace(key=key)
            continue
        fields = line.text.split("\t")
        if expected is None:
            expected = len(fields)
            if max(columns) > expected:
                raise SpireError(f"{line.where}: {expected} columns; --columns {columns}")
        if len(fields) != expected:
            reason = f"{len(fields)} columns where {expected} were expected: a tab within a text"
            yield Fault(key, reason, line.where)
            continue
        yield _pair(key, [line._replace(text=fields[column - 1]) for column in columns])


def _pair(key: str, lines) -> Item:
    for line in lines:
        if isinstance(line, Fault):
            return line._replace(key=key)
    texts = tuple(one_line(line.text) for line in lines)
    if all(texts):
        return Text(key, texts)
    empty = lines[texts.index("")]
    return LeftOut(key, f"it is empty ({empty.where})")


# Which files ---------------------------------------------------------------------------------


def _langs(request: TextRequest) -> Tuple[str, str]:
    langs = tuple((request.split or "").split("-"))
    if len(langs) != 2 or langs[0] == langs[1]:
        raise SpireError(f"parallel: --split {request.split}: a pair such as en-de was expected")
    for lang in langs:
        language_name(lang)
    return langs


def _named(request: TextRequest, langs: Tuple[str, str]) -> List[Pairs]:
    """What ``--files`` says."""
    if len(request.columns) != 2 or min(request.columns) < 1:
        raise SpireError(f"--columns {request.columns}: two numbers from 1 were expected")
    found: List[Pairs] = []
    for pattern in request.files:
        before = len(found)
        for path in sorted(map(Path, glob.glob(pattern, recursive=True))):
            if path.suffix == ".zip":
                found.append(_archive(path, langs))
            elif re.search(r"\.tsv(\.gz|\.xz)?$", path.name):
                found.append(Pairs(path, table=path, columns=tuple(request.columns)))
        for end in _PACKED:
            ending = f".{langs[0]}{end}"
            for path in sorted(glob.glob(pattern + ending, recursive=True)):
                found.append(_moses(Path(path), ending, langs))
        if len(found) == before:
            raise SpireError(
                f"--files {pattern}: neither a .tsv or .zip file nor files with .{langs[0]} and"
                f" .{langs[1]} behind it are there"
            )
    return found


def _under(root: Path, langs: Tuple[str, str]) -> List[Pairs]:
    """What a directory has for a pair, by the names of files."""
    stems = "|".join(("-".join(langs), "-".join(reversed(langs))))
    name = re.compile(
        rf"(?:.*[^A-Za-z])?(?P<stem>{stems})"
        rf"(?:(?P<side>\.{langs[0]}(?:\.gz|\.xz)?)|(?P<tsv>\.tsv(?:\.gz|\.xz)?)|\.txt\.zip)"
    )
    found: List[Pairs] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        for file in sorted(files):
            match, path = name.fullmatch(file), Path(folder) / file
            if match is None:
                continue
            if match["side"]:
                found.append(_moses(path, match["side"], langs))
            elif match["tsv"]:
                columns = tuple(match["stem"].split("-").index(lang) + 1 for lang in langs)
                found.append(Pairs(path, table=path, columns=columns))
            else:
                found.append(_archive(path, langs))
    if not found:
        pair = "-".join(langs)
        raise SpireError(
            f"{root}: nothing of {pair} there: NAME.{pair}.{langs[0]} and NAME.{pair}.{langs[1]},"
            f" NAME.{pair}.tsv or {pair}.txt.zip were expected, or --files"
        )
    return found


def _moses(path: Path, ending: str, langs: Tuple[str, str]) -> Pairs:
    stem = path.with_name(path.name.removesuffix(ending))
    others = [stem.with_name(f"{stem.name}.{langs[1]}{end}") for end in _PACKED]
    there = [other for other in others if other.exists()]
    if not there:
        raise SpireError(f"{path}: its other side, {others[0]}, is missing")
    return Pairs(stem, sides=(Side(path), Side(there[0])))


def _archive(path: Path, langs: Tuple[str, str]) -> Pairs:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except zipfile.BadZipFile as error:
        raise cut_off(path, error) from None
    sides = []
    for lang in langs:
        of_lang = [member for member in members if member.endswith(f".{lang}")]
        if len(of_lang) != 1:
            raise SpireError(f"{path}: one file with .{lang} behind its name expected in it")
        sides.append(Side(path, of_lang[0]))
    return Pairs(path, sides=tuple(sides))


def _all_pairs(request: TextRequest) -> Dict[str, Pairs]:
    """By name in keys."""
    langs = _langs(request)
    found = _named(request, langs) if request.files else _under(request.root, langs)
    names = {side.member for pairs in found for side in pairs.sides or () if side.member}
    for path in (path for pairs in found for path in pairs.paths):
        if path.name in names:
            raise SpireError(f"{path}: is there in an archive, too; move one of both away")
    by_place = {pairs.place: pairs for pairs in found}
    return {name: by_place[path] for name, path in key_names([p.place for p in found]).items()}


def _index(request: TextRequest) -> List[Path]:
    return [path for pairs in _all_pairs(request).values() for path in pairs.paths]


def _prepare(request: TextRequest, out: Path) -> Dict[str, Any]:
    langs, found = _langs(request), _all_pairs(request)
    forgive = request.max_rejected is not None
    items = itertools.chain.from_iterable(
        until_cut_off(pairs.read(name), name, pairs.place, forgive=forgive)
        for name, pairs in found.items()
    )
    listed = out.with_name(f"{out.name}.{REJECTED}")
    with atomic_dir(out) as aside:
        count = write_texts(
            progress(items, desc=request.split, unit="line"),
            [aside / translation_file(lang) for lang in langs],
            limits=request.limits,
            seed=request.seed,
            name=f"parallel {request.split}",
            work=aside,
            rejected=listed,
            left_out=aside / LEFT_OUT,
            max_rejected=request.share,
        )
        os.replace(listed, aside / REJECTED)
        logging.info(
            "%s: %s lines, %s kept (%s bytes), %s rejected, %s with an empty side",
            request.split,
            *(f"{number:,}" for number in (count.read, count.kept, count.bytes)),
            *(f"{number:,}" for number in (count.rejected, count.left_out)),
        )
        files = [str(path) for pairs in found.values() for path in pairs.paths]
        limits = request.limits._asdict()
        result = {"seed": request.seed, "limits": limits, "files": files, **count._asdict()}
        write_json(aside / PREPARATION, result)
    return result


TEXT_CORPORA = [
    TextCorpus(
        name="parallel",
        variable="PARALLEL",
        source="https://opus.nlpl.eu, format moses",
        splits="a pair, such as en-de",
        options=("files", "columns", "limits", "seed", "max_rejected"),
        index=_index,
        prepare=_prepare,
    )
]
