"""Lhotse's manifests, from files or from one of its recipes, read as a corpus.

https://lhotse.readthedocs.io; an optional dependency. An utterance is a supervision; where it is
not its whole recording it becomes a segment of it. Of audio with several channels the supervision's
own is taken, and the average where it has several. A key is ``<speaker>-<supervision>``, the second
alone where it begins with the first; white space and slashes in it become underscores.
"""

import inspect
import logging
import os
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

import yaml

from espnet_spire.corpus.prepare import Request, prepare_split
from espnet_spire.corpus.records import (
    Corpus,
    Fault,
    Item,
    Split,
    Utterance,
    one_line,
    speaker_key,
)
from espnet_spire.utils.atomic import PathLike, scratch_dir
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort

RECORDINGS, SUPERVISIONS, CUTS = "recordings", "supervisions", "cuts"
# Manifests give times as decimals of seconds; less than this is no other length.
_SAME_SECONDS = 0.001
# Kaldi's keys are single words, and here they name files as well.
_NO_KEY = re.compile(r"[\s/]+")
# Stage 2 brings all audio to one rate, so this is nothing that would be lost.
_HARMLESS_TRANSFORMS = {"Resample"}


class Fields(NamedTuple):
    """Fields of supervisions: ``text`` or ``custom.<name>``; ``translations`` by language."""

    text: str = "text"
    translations: Mapping[str, str] = {}


class Manifests(NamedTuple):
    """Lhotse's sets, lazy or not; ``cuts``, or the two others. ``name`` is for messages."""

    name: str
    recordings: Optional[Iterable] = None
    supervisions: Optional[Iterable] = None
    cuts: Optional[Iterable] = None


def import_manifests(
    manifests: Manifests,
    out: PathLike,
    fields: Fields,
    *,
    whole: bool = False,
    max_rejected: float = 0.001,
) -> Dict[str, Any]:
    """Write a data directory, as :func:`espnet_spire.corpus.prepare.prepare_split`.

    Args:
        whole: it is a test set, of which nothing is left out.
        max_rejected: share of utterances that may be unusable.
    """
    langs = sorted(fields.translations)
    with scratch_dir(out) as scratch:

        def read(*_args: Any) -> Iterator[Item]:
            if manifests.cuts is not None:
                return _of_cuts(manifests, fields)
            return _of_recordings(manifests, fields, scratch)

        corpus = Corpus(
            name="lhotse",
            variable="",
            source=manifests.name,
            splits=[Split(manifests.name, whole)],
            read=read,
            index=lambda _root, _split, _targets: [],
            targets=langs,
        )
        request = Request(Path(manifests.name), manifests.name, langs, [], 0, 1, max_rejected)
        return prepare_split(corpus, request, out)


def lhotse_package():
    """Lhotse, or an error that says how to install it."""
    try:
        import lhotse
    except ImportError as error:
        raise SpireError(
            f"lhotse cannot be imported ({error}): pip install 'espnet_spire[lhotse]'"
        ) from None
    return lhotse


def open_manifests(
    recordings: Optional[PathLike], supervisions: Optional[PathLike], cuts: Optional[PathLike]
) -> Manifests:
    """Manifest files, read item by item where they are ``.jsonl`` or ``.jsonl.gz``.

    Raises:
        SpireError: missing, broken or empty file, or one with other items.
    """
    if cuts is not None:
        return Manifests(str(cuts), cuts=_open(cuts, CUTS))
    return Manifests(
        str(supervisions), _open(recordings, RECORDINGS), _open(supervisions, SUPERVISIONS)
    )


def _open(path: PathLike, kind: str) -> Iterable:
    lhotse = lhotse_package()
    wanted = {
        RECORDINGS: lhotse.RecordingSet,
        SUPERVISIONS: lhotse.SupervisionSet,
        CUTS: lhotse.CutSet,
    }[kind]
    if not Path(path).is_file():
        raise SpireError(f"{path}: no such file")
    try:
        found = lhotse.serialization.load_manifest_lazy_or_eager(path)
    except Exception as error:  # lhotse lets through whatever its parsers raise
        raise SpireError(f"{path}: not a manifest of lhotse ({_said(error)})") from None
    if found is None:
        raise SpireError(f"{path}: the manifest is empty")
    if not isinstance(found, wanted):
        kinds = f"{type(found).__name__}, a {wanted.__name__} was expected"
        raise SpireError(f"{path}: has a {kinds}")
    return _Named(found, path)


class _Named:
    """Items of a manifest; what its reader raises names the file."""

    def __init__(self, items: Iterable, path: PathLike) -> None:
        self._items = items
        self._path = path

    def __iter__(self) -> Iterator:
        iterator = iter(self._items)
        number = 0
        while True:
            number += 1
            try:
                item = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                raise SpireError(f"{self._path}, line {number}: {_said(error)}") from None
            yield item


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def run_recipe(
    name: str, corpus_dir: PathLike, options: Mapping[str, str], part: Optional[str], work: Path
) -> Manifests:
    """Call ``lhotse.recipes.prepare_<name>``.

    Args:
        corpus_dir: its first argument.
        options: further ones; values are YAML (``true``, ``4``, ``[a, b]``, ``words``).
        part: which of what it returns, e.g. ``train`` or ``en/dev``.
        work: directory for the manifests that it writes.

    Raises:
        SpireError: it is not there, failed, or has no such part; it says what there is.
    """
    lhotse_package()
    from lhotse import recipes

    prepare = getattr(recipes, f"prepare_{name}", None)
    if prepare is None:
        known = sorted(n[len("prepare_") :] for n in dir(recipes) if n.startswith("prepare_"))
        raise SpireError(f"lhotse has no recipe {name!r}; it has {', '.join(known)}")
    if not Path(corpus_dir).is_dir():
        raise SpireError(f"{corpus_dir}: no such directory; --corpus_dir is the corpus")
    accepted = inspect.signature(prepare).parameters
    given = {key: yaml.safe_load(value) for key, value in options.items()}
    for key in given:
        if key not in accepted:
            raise SpireError(f"prepare_{name} has no option {key!r}; it has {', '.join(accepted)}")
    if "output_dir" in accepted:
        given.setdefault("output_dir", str(work))
    try:
        found = prepare(str(corpus_dir), **given)
    except Exception as error:  # whatever a recipe of a hundred may raise
        logging.debug("prepare_%s", name, exc_info=True)
        raise SpireError(
            f"lhotse's prepare_{name} failed on {corpus_dir}: {_said(error)}"
        ) from error
    sets = _part(found, part, f"lhotse's prepare_{name}")
    label = f"{name}{f' {part}' if part else ''} of {corpus_dir}"
    if sets.get(CUTS) is not None:
        return Manifests(label, cuts=sets[CUTS])
    return Manifests(label, sets.get(RECORDINGS), sets.get(SUPERVISIONS))


def _is_leaf(found: Any) -> bool:
    return isinstance(found, Mapping) and bool({RECORDINGS, SUPERVISIONS, CUTS} & found.keys())


def _parts(found: Any, path: Tuple[str, ...] = ()) -> Dict[str, Mapping]:
    """All parts by their names, joined by slashes."""
    if _is_leaf(found):
        return {"/".join(path): found}
    if not isinstance(found, Mapping):
        return {}
    result: Dict[str, Mapping] = {}
    for key, value in found.items():
        result.update(_parts(value, (*path, str(key))))
    return result


def _part(found: Any, part: Optional[str], what: str) -> Mapping:
    if isinstance(found, tuple) and len(found) == 2:  # of some recipes
        found = {RECORDINGS: found[0], SUPERVISIONS: found[1]}
    parts = _parts(found)
    if not parts:
        raise SpireError(f"{what} returned no recordings and supervisions")
    if part is None and len(parts) == 1:
        return next(iter(parts.values()))
    if part not in parts:
        names = ", ".join(name or "one without a name" for name in parts)
        wanted = "--part is missing" if part is None else f"no part {part!r}"
        raise SpireError(f"{what}: {wanted}; there are {names}")
    return parts[part]


def _of_recordings(manifests: Manifests, fields: Fields, scratch: Path) -> Iterator[Item]:
    """Join supervisions and their recordings at constant memory, by sorting both on disk."""
    if manifests.recordings is None or manifests.supervisions is None:
        lacking = SUPERVISIONS if manifests.supervisions is None else RECORDINGS
        raise SpireError(
            f"{manifests.name}: there are no {lacking}, so there is no text with audio"
        )

    def rows() -> Iterator[Tuple[str, Any]]:
        # recordings first: rows of one key keep their order
        for recording in manifests.recordings:
            yield recording.id, [RECORDINGS, _recording(recording)]
        for number, supervision in enumerate(manifests.supervisions, 1):
            row = [*_supervision(supervision, fields), f"{manifests.name}, supervision {number}"]
            yield supervision.recording_id, [SUPERVISIONS, row]

    current: Optional[_Recording] = None
    for _, (kind, row) in external_sort(rows(), scratch):
        if kind == RECORDINGS:
            if current is not None and current.id == row[0]:
                yield Fault(row[0], "the recording is there already", manifests.name)
            else:
                current = _Recording(*row)
            continue
        supervision = _Supervision(*row)
        if current is None or current.id != supervision.recording_id:
            reason = f"recording {supervision.recording_id} is not among the recordings"
            yield Fault(supervision.id, reason, supervision.where)
        else:
            yield _utterance(supervision, current)


def _of_cuts(manifests: Manifests, fields: Fields) -> Iterator[Item]:
    from lhotse.cut import MonoCut, MultiCut

    for number, cut in enumerate(manifests.cuts, 1):
        where = f"{manifests.name}, cut {number}"
        if not isinstance(cut, (MonoCut, MultiCut)):
            kind = type(cut).__name__
            yield Fault(
                cut.id, f"a {kind} is no part of one recording; save its audio first", where
            )
        elif cut.recording is None:
            yield Fault(cut.id, "the cut has no recording, features alone are no audio", where)
        elif not cut.supervisions:
            yield Fault(cut.id, "the cut has no supervision, so no text", where)
        else:
            recording = _Recording(*_recording(cut.recording))
            for supervision in cut.supervisions:
                row = _Supervision(*_supervision(supervision, fields), where)
                start = cut.start + max(0.0, row.start)
                end = cut.start + min(row.start + row.duration, cut.duration)
                yield _utterance(row._replace(start=start, duration=end - start), recording)


# What of a recording and a supervision goes through the sort, as JSON can hold it.


class _Recording(NamedTuple):
    """``sources``: type, place and channels of each; ``problem``: why it cannot be used."""

    id: str
    duration: float
    sources: List[Tuple[str, str, List[int]]]
    problem: Optional[str]


class _Supervision(NamedTuple):
    id: str
    recording_id: str
    start: float
    duration: float
    channels: List[int]
    speaker: Optional[str]
    text: str
    translations: Dict[str, str]
    where: str


def _recording(recording: Any) -> Tuple:
    problem = None
    for transform in recording.transforms or []:
        name = transform["name"] if isinstance(transform, Mapping) else type(transform).__name__
        if name not in _HARMLESS_TRANSFORMS:
            problem = f"the recording is changed on the fly ({name}); save its audio first"
    sources = []
    for source in recording.sources:
        if source.type in ("file", "command"):
            sources.append([source.type, str(source.source), list(source.channels)])
        else:
            hint = {
                "url": f"audio at a URL ({source.source}); download it first",
                "memory": "audio in the manifest itself; save it to a file first",
                "shar": "audio in Lhotse Shar's archives; save it to files first",
            }
            problem = hint.get(source.type, f"audio source {source.type!r} is unknown")
    return recording.id, recording.duration, sources, problem


def _supervision(supervision: Any, fields: Fields) -> Tuple:
    channel = supervision.channel
    translations = {lang: _field(supervision, name) for lang, name in fields.translations.items()}
    return (
        supervision.id,
        supervision.recording_id,
        supervision.start,
        supervision.duration,
        list(channel) if isinstance(channel, (list, tuple)) else [channel],
        supervision.speaker,
        _field(supervision, fields.text),
        {lang: text for lang, text in translations.items() if text},
    )


def _field(supervision: Any, name: str) -> str:
    """A text of a supervision, one line; empty where it has none."""
    value: Any = supervision
    for position, word in enumerate(name.split(".")):
        if position == 0:
            value = getattr(value, word, None)
        else:
            value = value.get(word) if isinstance(value, Mapping) else None
    return one_line(str(value)) if value is not None else ""


def _name(text: str) -> str:
    return _NO_KEY.sub("_", text)


def _utterance(supervision: _Supervision, recording: _Recording) -> Union[Utterance, Fault]:
    def fault(reason: str) -> Fault:
        return Fault(supervision.id, reason, supervision.where)

    if recording.problem:
        return fault(recording.problem)
    wanted = set(supervision.channels)
    sources = [source for source in recording.sources if wanted & set(source[2])]
    if len(sources) != 1:
        are = "are in several files" if sources else "are in none of its recording's files"
        return fault(f"channels {sorted(wanted)} {are}")
    kind, place, channels = sources[0]
    if not wanted <= set(channels):
        return fault(f"channels {sorted(wanted)} are not all in {place}")
    # one of several; all of them, or the only one, is what there is without a word
    channel = None
    if wanted != set(channels):
        if len(wanted) > 1:
            return fault(f"channels {sorted(wanted)} are neither one nor all of {channels}")
        channel = sorted(channels).index(supervision.channels[0])
    name = _name(supervision.id)
    speaker = _name(supervision.speaker) if supervision.speaker else name
    found = Utterance(
        speaker_key(speaker, name),
        audio=f"{place} |" if kind == "command" else os.path.abspath(place),
        text=supervision.text,
        speaker=speaker,
        where=supervision.where,
        translations=supervision.translations,
        seconds=supervision.duration,
        channel=channel,
    )
    end = supervision.start + supervision.duration
    if supervision.start < _SAME_SECONDS and end > recording.duration - _SAME_SECONDS:
        return found
    part_of = _name(recording.id)
    if channel is not None or len(recording.sources) > 1:
        part_of += f"-{min(wanted) + 1}"  # a recording of Kaldi's is one channel
    return found._replace(recording=part_of, start=supervision.start, end=end)
