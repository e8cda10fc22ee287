"""A split of a corpus to a Kaldi data directory: read, checked, ruled, written (stage 1)."""

import logging
import math
import os
from collections import Counter
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from espnet_spire.corpus.faults import Faults
from espnet_spire.corpus.records import (
    TO_THE_END,
    Corpus,
    Fault,
    Item,
    LeftOut,
    Utterance,
    check_key,
)
from espnet_spire.corpus.rules import Result, Rule, Setting
from espnet_spire.corpus.tables import write_utterances
from espnet_spire.units.rxfilename import ark_place, is_pipe
from espnet_spire.utils.atomic import PathLike, atomic_dir, disk_errors, write_json
from espnet_spire.utils.datadir import REJECTED
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort
from espnet_spire.utils.progress import progress
from espnet_spire.utils.rejected import check_rejected, rejected_line

# Beside the tables: what rules left out, and how many utterances there were before and after each.
LEFT_OUT = "left_out.tsv"
PREPARATION = "preparation.json"


class Request(NamedTuple):
    """What is asked for: ``targets`` are languages, ``rules`` are applied in their order."""

    root: Path
    split: str
    targets: List[str]
    rules: Sequence[Rule]
    seed: int
    nj: int
    max_rejected: float


class Count:
    """Utterances and, where all of them have a length, hours that passed by."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.utterances = 0
        self._seconds: Optional[float] = 0.0

    def add(self, utterance: Utterance) -> None:
        self.utterances += 1
        known = utterance.seconds
        if utterance.recording is not None and utterance.end != TO_THE_END:
            known = utterance.end - utterance.start
        if self._seconds is not None:
            self._seconds = None if known is None else self._seconds + known

    @property
    def hours(self) -> Optional[float]:
        return None if self._seconds is None else self._seconds / 3600

    def __str__(self) -> str:
        hours = "" if self.hours is None else f" ({self.hours:,.2f} h)"
        return f"{self.utterances:,}{hours}"

    def to_json(self) -> Dict[str, Any]:
        hours = None if self.hours is None else round(self.hours, 4)
        return {"step": self.name, "utterances": self.utterances, "hours": hours}


def prepare_split(corpus: Corpus, request: Request, out: PathLike) -> Dict[str, Any]:
    """Write the data directory of a split, as a whole or not at all.

    What cannot be used is in its ``rejected.tsv``, what a rule does not take or the corpus itself
    marks as no utterance in ``left_out.tsv``, the numbers before and after each step in
    ``preparation.json``, which is returned. Memory does not grow with the number of utterances.

    Raises:
        SpireError: more than ``max_rejected`` cannot be used (of a test set: any), no utterance is
            left, or a file of the corpus is not what it should be.
    """
    split = corpus.split(request.split)
    name = f"{corpus.name} {split.name}"
    if split.whole and request.rules:
        raise SpireError(f"{name}: rules are not for test sets, which stay as they are")
    counts = [Count("read")]
    with atomic_dir(out) as aside:
        work = aside / ".work"
        work.mkdir()
        rejected = Faults(work / "rejected")
        items = corpus.read(request.root, split.name, request.targets)
        items = progress(items, desc=name, unit="utt")
        empty = _EmptyTranslations(name)
        left_out = aside / LEFT_OUT
        with disk_errors(left_out), open(left_out, "w", encoding="utf-8") as listed:
            marked = _Kept(empty.without(items), listed)
            usable = _usable(marked, rejected, empty_text=split.whole)
            stream = _counted(_unique(usable, rejected, work), counts[0])
            for rule in request.rules:
                counts.append(Count(rule.name))
                setting = Setting(request.seed, work, request.nj)
                stream = _counted(_Kept(rule.apply(stream, setting), listed), counts[-1])
            translated: Counter = Counter()
            written = write_utterances(_by_language(stream, translated), aside, work)
        read = counts[0].utterances + len(rejected)
        logging.info("%s: %s utterances read", name, f"{read:,}")
        if marked.left_out:
            logging.info("%s: %s more are no speech, says the corpus", name, f"{marked.left_out:,}")
        logging.info("%s: usable: %s → %s", name, f"{read:,}", counts[0])
        for before, after in zip(counts, counts[1:], strict=False):
            logging.info("%s: %s: %s → %s", name, after.name, before, after)
        empty.warn()
        for lang in request.targets:
            lacking = f"{written - translated[lang]:,}"
            logging.info("%s: translations into %s: %s lack one", name, lang, lacking)
        # also where it is an error: beside the directory that is not made
        listing = Path(out).with_name(f"{Path(out).name}.{REJECTED}")
        rejected.write(listing)
        check_rejected(
            len(rejected),
            read,
            0.0 if split.whole else request.max_rejected,
            first=rejected.first,
            listed=listing,
            where=f"{name}: ",
        )
        if written == 0:
            raise SpireError(f"{name}: no utterance is left; {request.root} has none of this split")
        os.replace(listing, aside / REJECTED)
        report = {
            "corpus": corpus.name,
            "split": split.name,
            "source": corpus.source,
            "read": read,
            "rejected": len(rejected),
            "marked_by_corpus": marked.left_out,
            "steps": [count.to_json() for count in counts],
            "translations": {lang: translated[lang] for lang in request.targets},
        }
        write_json(aside / PREPARATION, report)
        for path in work.iterdir():
            path.rmdir()
        work.rmdir()
    return report


class _EmptyTranslations:
    """Takes them out of utterances, which stay, and says where there were some."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count: Counter = Counter()
        self._first: Dict[str, str] = {}

    def without(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if isinstance(item, Utterance) and not all(item.translations.values()):
                for lang in [lang for lang, text in item.translations.items() if not text]:
                    self._count[lang] += 1
                    self._first.setdefault(lang, f"{item.key} ({item.where})")
                kept = {lang: text for lang, text in item.translations.items() if text}
                item = item._replace(translations=kept)
            yield item

    def warn(self) -> None:
        for lang, count in self._count.items():
            logging.warning(
                "%s: %d translations into %s are empty and left out, first that of %s",
                *(self._name, count, lang, self._first[lang]),
            )


def _by_language(
    utterances: Iterable[Utterance], translated: "Counter[str]"
) -> Iterator[Utterance]:
    for utterance in utterances:
        translated.update(utterance.translations.keys())
        yield utterance


def _usable(
    items: Iterable[Union[Utterance, Fault]], rejected: Faults, *, empty_text: bool
) -> Iterator[Utterance]:
    """Pass on what can be used; note the rest."""
    checked: Optional[str] = None  # the audio of the utterance before, which is often the same
    for utterance in items:
        if isinstance(utterance, Fault):
            rejected.add(*utterance)
            continue
        reason = check_key(utterance.key) or (
            check_key(utterance.speaker) and f"speaker {utterance.speaker!r} is no single word"
        )
        if reason is None and utterance.recording is not None:
            reason = _part_reason(utterance)
        if reason is None and not utterance.text and not empty_text:
            reason = "empty transcript"
        if reason is None and utterance.audio != checked:
            if _may_be_read(utterance.audio):
                checked = utterance.audio
            else:
                reason = f"{utterance.audio}: no such audio file"
        if reason is None:
            yield utterance
        else:
            rejected.add(utterance.key, reason, utterance.where)


def _part_reason(utterance: Utterance) -> Optional[str]:
    """Why this cannot be a part of a recording, or ``None``."""
    start, end = utterance.start, utterance.end
    if end == TO_THE_END and start >= 0:
        end = start + 1
    # round() as tables.py does; also of a time that is no number nothing is true
    if not 0 <= round(start, 3) < round(end, 3) < math.inf:
        return f"{start} s to {end} s is no part of a recording"
    return check_key(utterance.recording) and f"recording {utterance.recording!r} is no single word"


def _may_be_read(audio: str) -> bool:
    place = ark_place(audio)
    return is_pipe(audio) or os.path.isfile(audio if place is None else place[0])


def _unique(utterances: Iterable[Utterance], rejected: Faults, work: Path) -> Iterator[Utterance]:
    """By key; of several with one key the first in the corpus's own order."""
    folder = work / "unique"
    folder.mkdir()
    before: Optional[Utterance] = None
    for _, fields in external_sort(((utt.key, utt) for utt in utterances), folder):
        utterance = Utterance(*fields)
        if before is not None and utterance.key == before.key:
            rejected.add(utterance.key, f"is there already: {before.where}", utterance.where)
            continue
        before = utterance
        yield utterance


def _counted(utterances: Iterable[Utterance], count: Count) -> Iterator[Utterance]:
    for utterance in utterances:
        count.add(utterance)
        yield utterance


class _Kept:
    """What of a stream is not :class:`LeftOut`; that is written to ``listed`` and counted."""

    def __init__(self, items: Iterable[Union[Item, Result]], listed: IO[str]) -> None:
        self._items = items
        self._listed = listed
        self.left_out = 0

    def __iter__(self) -> Iterator[Union[Utterance, Fault]]:
        for item in self._items:
            if isinstance(item, LeftOut):
                self.left_out += 1
                self._listed.write(rejected_line(item.key, item.reason))
            else:
                yield item


__all__ = ["Fault", "Request", "prepare_split"]
