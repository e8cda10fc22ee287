"""Data directories of any Kaldi or ESPnet recipe (``data/<set>``, ``dump/raw/<set>``) as a corpus.

Tables need not be sorted. Relative paths of ``wav.scp`` become absolute: recipes mean them, and
those in the commands of pipes, from the recipe directory.
"""

import heapq
import itertools
import logging
import os
import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from espnet_spire.corpus.lines import place, read_lines
from espnet_spire.corpus.prepare import Request, prepare_split
from espnet_spire.corpus.records import (
    TO_THE_END,
    Corpus,
    Fault,
    Item,
    Split,
    Utterance,
    one_line,
)
from espnet_spire.corpus.transcripts import transcript_table, true_cased
from espnet_spire.units.rxfilename import is_pipe
from espnet_spire.units.sources import CHANNELS, parse_channel
from espnet_spire.utils.atomic import PathLike, scratch_dir
from espnet_spire.utils.datadir import (
    NUM_SAMPLES,
    REJECTED,
    SEGMENTS,
    SPK2UTT,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    key_of_line,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort

# ESPnet's note of what wav.scp or feats.scp of a dumped set holds.
FEATS_TYPE = "feats_type"
# What marks a recipe directory.
PATH_SH = "path.sh"


class Choice(NamedTuple):
    """What of a data directory is taken.

    ``text``: table of the transcripts; ``src_lang``: the language that is spoken; ``translations``:
    language → table, by default all ``text.tc.<lang>`` but the spoken one; ``recipe_dir``: what
    relative paths are relative to, by default see :func:`recipe_of`.
    """

    text: Optional[str] = None
    src_lang: Optional[str] = None
    translations: Optional[Mapping[str, str]] = None
    recipe_dir: Optional[str] = None


def import_data_dirs(
    data_dirs: Sequence[PathLike],
    out: PathLike,
    choice: Choice,
    *,
    whole: bool = False,
    max_rejected: float = 0.001,
) -> Dict[str, Any]:
    """Write one data directory of several, as :func:`espnet_spire.corpus.prepare.prepare_split`.

    Args:
        data_dirs: where an utterance is in two of them, the second is rejected.
        whole: it is a test set, of which nothing is left out.
        max_rejected: share of utterances that may be unusable.
    """
    names = " ".join(map(str, data_dirs))
    tables = [_tables(Path(data_dir), choice) for data_dir in data_dirs]
    langs = sorted({lang for one in tables for lang in one.translations})
    with scratch_dir(out) as scratch:
        corpus = Corpus(
            name="import of",
            variable="",
            source=names,
            splits=[Split(names, whole)],
            read=lambda _root, _split, _targets: _items(tables, choice, scratch),
            index=lambda _root, _split, _targets: [],
            targets=langs,
        )
        request = Request(Path(data_dirs[0]), names, langs, [], 0, 1, max_rejected)
        return prepare_split(corpus, request, out)


class _Tables(NamedTuple):
    """A directory, and which of its tables are read."""

    directory: Path
    text: str
    translations: Mapping[str, str]

    def path(self, name: str) -> Path:
        return self.directory / name

    def has(self, name: str) -> bool:
        return self.path(name).exists()


def _tables(directory: Path, choice: Choice) -> _Tables:
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such data directory")
    if not (directory / WAV_SCP).exists():
        kind = directory / FEATS_TYPE
        what = kind.read_text(errors="replace").strip() if kind.exists() else "raw"
        hint = f"; it holds features ({what}): import its data/<set>" if what != "raw" else ""
        raise SpireError(f"{directory}: no {WAV_SCP} there{hint}")
    text = transcript_table(directory, choice.text, choice.src_lang)
    if choice.translations is None:
        translations = {k: v for k, v in true_cased(directory).items() if v != text}
        translations.pop(choice.src_lang, None)
    else:
        translations = dict(choice.translations)
        for lang, name in translations.items():
            if not (directory / name).exists():
                there = ", ".join(sorted(path.name for path in directory.glob(f"{TEXT}*")))
                raise SpireError(f"{directory}: no {name} for {lang} there; it has {there}")
    found = _Tables(directory, text, translations)
    used = {WAV_SCP, SEGMENTS, UTT2SPK, SPK2UTT, CHANNELS, text, *translations.values()}
    # made anew by stage 2, or notes of how this directory was made
    used |= {
        NUM_SAMPLES,
        REJECTED,
        FEATS_TYPE,
        "audio_format",
        "frame_shift",
        "reco2dur",
        "utt2dur",
    }
    extras = sorted(path.name for path in directory.iterdir() if path.name not in used)
    logging.info("%s: transcripts are %s", directory, text)
    for lang, name in translations.items():
        logging.info("%s: translations into %s are %s", directory, lang, name)
    if extras:
        logging.info("%s: not taken: %s", directory, ", ".join(extras))
    return found


def recipe_of(directory: PathLike) -> Path:
    """The recipe directory that a data directory was made in: the nearest with a ``path.sh``.

    Links are not followed, since recipes name their files as they see them. Outside of any recipe
    it is the current directory.
    """
    given = Path(os.path.abspath(directory))
    for parent in given.parents:
        if (parent / PATH_SH).exists():
            return parent
    return Path.cwd()


def absolute(rxfilename: str, recipe_dir: PathLike) -> str:
    """A name of ``wav.scp`` that means the same from everywhere.

    >>> absolute("downloads/a.flac", "/r")
    '/r/downloads/a.flac'
    >>> absolute("flac -c -d -s downloads/a.flac |", "/r/my recipe")
    "cd '/r/my recipe' || exit 1; flac -c -d -s downloads/a.flac |"
    """
    if is_pipe(rxfilename):
        return f"cd {shlex.quote(str(recipe_dir))} || exit 1; {rxfilename}"
    return os.path.join(recipe_dir, rxfilename)


def _items(tables: Sequence[_Tables], choice: Choice, scratch: Path) -> Iterator[Item]:
    for number, one in enumerate(tables):
        folder = scratch / str(number)
        folder.mkdir()
        recipe_dir = Path(os.path.abspath(choice.recipe_dir or recipe_of(one.directory)))
        logging.info("%s: relative paths are those of %s", one.directory, recipe_dir)
        yield from _Directory(one, recipe_dir, folder).items()


class _Row(NamedTuple):
    """A line of a table."""

    key: str
    table: str
    value: str
    number: int


class _Directory:
    """Joins the tables of a directory by utterance."""

    def __init__(self, tables: _Tables, recipe_dir: Path, scratch: Path) -> None:
        self._tables = tables
        self._recipe_dir = recipe_dir
        self._scratch = scratch
        self._base = SEGMENTS if tables.has(SEGMENTS) else WAV_SCP
        self._faults: List[Fault] = []
        self._channels: Dict[str, int] = {}
        # with segments; as everywhere the table of recordings is in memory
        self._recordings: Dict[str, str] = {}

    def items(self) -> Iterator[Item]:
        for row in self._lines(CHANNELS) if self._tables.has(CHANNELS) else ():
            self._note_channel(row)
        names = [self._base, self._tables.text, *self._tables.translations.values()]
        if self._base == SEGMENTS:
            for row in self._lines(WAV_SCP):
                self._recordings.setdefault(row.key, row.value)
        if self._tables.has(UTT2SPK):
            names.append(UTT2SPK)
        else:
            logging.warning("%s: no %s, each is its own speaker", self._tables.directory, UTT2SPK)
        streams = [self._sorted(name) for name in dict.fromkeys(names)]
        rows = heapq.merge(*streams, key=lambda row: row.key)
        for key, group in itertools.groupby(rows, key=lambda row: row.key):
            yield from self._utterance(key, list(group))
            yield from self._faults
            self._faults.clear()
        yield from self._faults

    def _where(self, row: _Row) -> str:
        return place(self._tables.path(row.table), row.number)

    def _lines(self, name: str) -> Iterator[_Row]:
        """Lines in file order; what is none becomes a fault."""
        path = self._tables.path(name)
        for line in read_lines(path):
            if isinstance(line, Fault):
                self._faults.append(line)
                continue
            # as iter_table: ASCII white space alone separates
            key, _, value = line.text.replace("\t", " ").strip(" ").partition(" ")
            if key:
                yield _Row(key, name, value.strip(" "), line.number)
            else:
                self._faults.append(Fault(f"{name}:{line.number}", "empty line", line.where))

    def _sorted(self, name: str) -> Iterator[_Row]:
        path = self._tables.path(name)
        if _is_sorted(path):
            return self._lines(name)
        logging.info("%s: not sorted in the C locale, sorting it", path)
        folder = self._scratch / name
        folder.mkdir()
        rows = ((row.key, row) for row in self._lines(name))
        return (_Row(*row) for _, row in external_sort(rows, folder))

    def _note_channel(self, row: _Row) -> None:
        try:
            _, channel = row.value.split()
            self._channels.setdefault(row.key, parse_channel(channel))
        except ValueError:
            raise SpireError(
                f"{self._where(row)}: {row.key} {row.value}: a file and a channel (A, B … or 1, 2"
                " …) were expected; mend it, or remove the file if recordings have one channel"
            ) from None

    def _utterance(self, key: str, rows: List[_Row]) -> Iterator[Item]:
        found: Dict[str, _Row] = {}
        for row in rows:
            if row.table in found:
                first = found[row.table].number
                yield Fault(key, f"is there already: line {first}", self._where(row))
            else:
                found[row.table] = row
        base = found.get(self._base)
        if base is None:
            yield Fault(key, f"is not in {self._base}", self._where(rows[0]))
            return
        for name in (self._tables.text, UTT2SPK):
            if name not in found and self._tables.has(name):
                yield Fault(key, f"is not in {name}", self._where(base))
                return
        translations = {
            lang: one_line(found[name].value)
            for lang, name in self._tables.translations.items()
            if name in found
        }
        utterance = Utterance(
            key,
            audio="",
            text=one_line(found[self._tables.text].value),
            speaker=found[UTT2SPK].value if UTT2SPK in found else key,
            where=self._where(base),
            translations=translations,
        )
        yield self._with_audio(utterance, base)

    def _with_audio(self, utterance: Utterance, base: _Row) -> Item:
        if not base.value:
            return Fault(base.key, "has no value", utterance.where)
        if self._base == WAV_SCP:
            audio = absolute(base.value, self._recipe_dir)
            return utterance._replace(audio=audio, channel=self._channels.get(base.key))
        try:
            recording, start, end, *own = base.value.split()
            times = float(start), float(end)
            channel = int(*own) if own else self._channels.get(recording)
        except (TypeError, ValueError):
            reason = f"{base.value!r} is not recording, start, end"
            return Fault(base.key, reason, utterance.where)
        if recording not in self._recordings:
            return Fault(base.key, f"recording {recording} is not in {WAV_SCP}", utterance.where)
        return utterance._replace(
            audio=absolute(self._recordings[recording], self._recipe_dir),
            # a recording is one channel of a file: each that segments name is one of its own
            recording=f"{recording}-{channel + 1}" if own else recording,
            start=times[0],
            end=TO_THE_END if times[1] == -1 else times[1],
            channel=channel,
        )


def _is_sorted(path: Path) -> bool:
    before = b""
    with open(path, "rb") as stream:
        for line in stream:
            key = key_of_line(line)
            if key < before:
                return False
            before = key
    return True
