"""The worst answers of every model, set, task and pair, with all that helps to see why."""

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.decode.results import CUT, SPEECH_TASKS
from espnet_spire.score.files import UTTERANCES, read_entries
from espnet_spire.score.layout import Run, Scored
from espnet_spire.score.metrics import METRICS
from espnet_spire.score.tables.differences import Piece, pieces_of_alignment, pieces_of_texts
from espnet_spire.text.jobs import Job
from espnet_spire.text.normalize import UNSPACED
from espnet_spire.utils.datadir import read_table

# By what single answers are judged, the best first: BLEU says little of one sentence.
_JUDGED_BY = ("comet22", "chrf", "chrf++", "spbleu", "bleu", "ter", "wer", "cer", "f1")


class Question(NamedTuple):
    """What models were asked: an utterance of a set, and what to do with it."""

    set: str
    job: Job
    utterance: str


@dataclass
class Answered:
    """One model's answer: its text, its scores by metric and how it differs."""

    text: str
    scores: Dict[str, Optional[float]]
    pieces: List[Piece]
    cut: bool


@dataclass
class Example:
    """A question with the answers of all models.

    ``rank`` is 0 where the answer of some model is the worst of its kind.
    """

    question: Question
    reference: str
    source: Optional[str]
    answers: Dict[Run, Answered]
    rank: int


@dataclass(frozen=True)
class Kind:
    """A set and job: by which metric it is judged, and how many utterances each run has."""

    set: str
    job: Job
    metric: str
    utterances: Dict[Run, int]

    @property
    def spoken(self) -> bool:
        """Whether models heard the utterances."""
        return self.job.task in SPEECH_TASKS


def collect_examples(found: Sequence[Scored], worst: int) -> Tuple[List[Kind], List[Example]]:
    """Read what was answered and keep the worst of each run, set and job.

    What is among the worst of one run is shown with the answers of all runs.

    Args:
        worst: how many to keep, none for 0.

    Raises:
        SpireError: ``utterances.jsonl`` is missing or none.
    """
    groups: Dict[Tuple[str, Job], Dict[Run, List[Scored]]] = {}
    for entry in found:
        groups.setdefault((entry.set, entry.job), {}).setdefault(entry.run, []).append(entry)
    kinds, examples = [], []
    for (name, job), runs in sorted(groups.items(), key=lambda item: item[0]):
        entries = {run: _entries(some) for run, some in runs.items()}
        metric = _judge(job, entries.values())
        if metric is None:
            continue
        kinds.append(Kind(name, job, metric, {run: len(some) for run, some in entries.items()}))
        ranks: Dict[str, int] = {}
        for some in entries.values():
            for rank, key in enumerate(_worst_first(some, metric)[:worst]):
                ranks[key] = min(rank, ranks.get(key, rank))
        cut = {
            run: set(read_table(some[0].path.parents[1] / CUT, allow_empty_value=True))
            for run, some in runs.items()
            if (some[0].path.parents[1] / CUT).is_file()
        }
        for key, rank in sorted(ranks.items(), key=lambda item: (item[1], item[0])):
            there = {run: some[key] for run, some in entries.items() if key in some}
            first = next(iter(there.values()))
            answers = {
                run: Answered(
                    text=entry["hypothesis"],
                    scores=entry["scores"],
                    pieces=_pieces(entry, job, metric),
                    cut=key in cut.get(run, ()),
                )
                for run, entry in there.items()
            }
            question = Question(name, job, key)
            examples.append(
                Example(question, first["reference"], first.get("source"), answers, rank)
            )
    return kinds, examples


def _entries(some: Iterable[Scored]) -> Dict[str, Dict[str, Any]]:
    """The utterances of a job with the scores of all its score directories.

    The alignment is that by words, unless words are not set apart.
    """
    merged: Dict[str, Dict[str, Any]] = {}
    for scored in some:
        for entry in read_entries(scored.path.with_name(UTTERANCES)):
            known = merged.setdefault(entry["utterance"], {**entry, "scores": {}})
            known["scores"].update(entry["scores"])
            metric = next((m for m in ("wer", "cer") if m in entry["scores"]), None)
            if metric and "alignment" in entry:
                known.setdefault("aligned", {})[metric] = entry
    return merged


def _judge(job: Job, runs: Iterable[Mapping[str, Dict[str, Any]]]) -> Optional[str]:
    """The metric that all runs have, the best for single answers."""
    common = set.intersection(
        *({name for entry in run.values() for name in entry["scores"]} for run in runs)
    )
    order = list(_JUDGED_BY)
    if job.tgt in UNSPACED:  # words are not set apart there
        order.remove("wer")
        order.append("wer")
    rest = [name for name in METRICS if name not in order]
    return next((name for name in [*order, *rest] if name in common), None)


def _worst_first(entries: Mapping[str, Dict[str, Any]], metric: str) -> List[str]:
    sign = -1 if METRICS[metric].lower_is_better else 1
    # What has no score of its own (an empty reference, all right) is not among the worst.
    values = {
        key: sign * entry["scores"][metric]
        for key, entry in entries.items()
        if entry["scores"].get(metric) is not None
    }
    return sorted(values, key=lambda key: (values[key], key))


def _pieces(entry: Mapping[str, Any], job: Job, metric: str) -> List[Piece]:
    aligned = entry.get("aligned", {})
    if metric in aligned:
        return pieces_of_alignment(aligned[metric], characters=metric == "cer")
    return pieces_of_texts(entry["reference"], entry["hypothesis"], job.tgt)
