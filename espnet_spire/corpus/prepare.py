"""A split of a corpus to a Kaldi data directory: read, checked, ruled, written (stage 1)."""

import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from espnet_spire.corpus.records import (
    Corpus,
    Fault,
    Item,
    Utterance,
    check_key,
    faults_apart,
    note_fault,
)
from espnet_spire.corpus.rules import LeftOut, Rule, Setting
from espnet_spire.corpus.tables import write_utterances
from espnet_spire.units.rxfilename import is_pipe
from espnet_spire.utils.atomic import PathLike, atomic_dir, disk_errors, write_json
from espnet_spire.utils.datadir import REJECTED, write_rejected
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
        if utterance.recording is not None:
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

    What cannot be used is in its ``rejected.tsv``, what a rule does not take in ``left_out.tsv``,
    the numbers before and after each step in ``preparation.json``, which is returned. Memory does
    not grow with the number of utterances.

    Raises:
        SpireError: more than ``max_rejected`` cannot be used (of a test set: any), no utterance is
            left, or a file of the corpus is not what it should be.
    """
    split = corpus.split(request.split)
    name = f"{corpus.name} {split.name}"
    if split.whole and request.rules:
        raise SpireError(f"{name}: rules are not for test sets, which stay as they are")
    rejected: Dict[str, str] = {}
    counts = [Count("read")]
    with atomic_dir(out) as aside:
        work = aside / ".work"
        work.mkdir()
        items = corpus.read(request.root, split.name, request.targets)
        items = progress(items, desc=name, unit="utt")
        whole = _usable(items, rejected, empty_text=split.whole)
        stream = _counted(_unique(whole, rejected, work), counts[0])
        left_out = aside / LEFT_OUT
        with disk_errors(left_out), open(left_out, "w", encoding="utf-8") as listed:
            for rule in request.rules:
                counts.append(Count(rule.name))
                setting = Setting(request.seed, work, request.nj)
                stream = _counted(_kept(rule.apply(stream, setting), listed), counts[-1])
            written = write_utterances(stream, aside, work)
        read = counts[0].utterances + len(rejected)
        logging.info("%s: %s utterances read", name, f"{read:,}")
        logging.info("%s: usable: %s → %s", name, f"{read:,}", counts[0])
        for before, after in zip(counts, counts[1:], strict=False):
            logging.info("%s: %s: %s → %s", name, after.name, before, after)
        # also where it is an error: beside the directory that is not made
        listing = Path(out).with_name(f"{Path(out).name}.{REJECTED}")
        write_rejected(listing, rejected)
        check_rejected(
            len(rejected),
            read,
            0.0 if split.whole else request.max_rejected,
            first=next(iter(rejected.items()), None),
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
            "steps": [count.to_json() for count in counts],
        }
        write_json(aside / PREPARATION, report)
        for path in work.iterdir():
            path.rmdir()
        work.rmdir()
    return report


def _usable(
    items: Iterable[Item], rejected: Dict[str, str], *, empty_text: bool
) -> Iterator[Utterance]:
    """Pass on what can be used; note the rest."""
    checked: Optional[str] = None  # the audio of the utterance before, which is often the same
    for utterance in faults_apart(items, rejected):
        reason = check_key(utterance.key) or (
            check_key(utterance.speaker) and f"speaker {utterance.speaker!r} is no single word"
        )
        if reason is None and not utterance.text and not empty_text:
            reason = "empty transcript"
        if reason is None and utterance.audio != checked:
            if is_pipe(utterance.audio) or os.path.isfile(utterance.audio):
                checked = utterance.audio
            else:
                reason = f"{utterance.audio}: no such audio file"
        if reason is None:
            yield utterance
        else:
            note_fault(rejected, utterance.key or "?", reason, utterance.where)


def _unique(
    utterances: Iterable[Utterance], rejected: Dict[str, str], work: Path
) -> Iterator[Utterance]:
    """By key; of several with one key the first in the corpus's own order."""
    folder = work / "unique"
    folder.mkdir()
    before: Optional[Utterance] = None
    for _, fields in external_sort(((utt.key, utt) for utt in utterances), folder):
        utterance = Utterance(*fields)
        if before is not None and utterance.key == before.key:
            note_fault(
                rejected, utterance.key, f"is there already: {before.where}", utterance.where
            )
            continue
        before = utterance
        yield utterance


def _counted(utterances: Iterable[Utterance], count: Count) -> Iterator[Utterance]:
    for utterance in utterances:
        count.add(utterance)
        yield utterance


def _kept(results: Iterable, listed) -> Iterator[Utterance]:
    for result in results:
        if isinstance(result, LeftOut):
            listed.write(rejected_line(result.key, result.reason))
        else:
            yield result


__all__ = ["Fault", "Request", "prepare_split"]
