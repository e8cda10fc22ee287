"""Tables in the paper's shapes for test sets, or metrics, that the paper does not have."""

from typing import Dict, Iterable, List, Sequence, Set, Tuple

from espnet_spire.score.metrics import METRICS
from espnet_spire.score.report import TASK_NAMES, Result
from espnet_spire.score.tables.spec import Column, Part, Section, Spec
from espnet_spire.score.tables.table import own_figures

# By what a task is read, the best first; as many as the paper has in a column.
SHOWN = 2
_READ_BY = {
    "asr": ("wer", "cer"),
    "ner": ("f1",),
    "ape": ("comet22", "spbleu", "bleu", "ter", "chrf"),
}
_TRANSLATION = ("comet22", "spbleu", "bleu", "chrf", "chrf++", "ter", "xcomet", "cometkiwi")
_SPEECH = ("st_cascade", "st", "st_multi_turn")
# Of a table with more pairs than this each metric has a table of its own, as Tables 7 and 11 are.
_WIDE = 5


def read_by(task: str, metrics: Iterable[str]) -> List[str]:
    """Which of the metrics a task is read by, the best first."""
    there = set(metrics)
    return [name for name in _READ_BY.get(task, _TRANSLATION) if name in there][:SHOWN]


def not_in(specs: Iterable[Spec], results: Sequence[Result]) -> List[Result]:
    """Results of those sets and tasks of which nothing stands in any of these tables."""
    shown: Set[Tuple[str, str, Part]] = {
        (column.task or section.task, column.metric, part)
        for spec in specs
        for section in spec.sections
        for column in spec.columns
        for part in column.parts
    }
    covered = {
        (r.set, r.task) for r in results if (r.task, r.metric, Part(r.set, r.src, r.tgt)) in shown
    }
    return [r for r in results if (r.set, r.task) not in covered]


def family(r: Result) -> str:
    """Of ``wmt23.en-de`` and others of one pair ``wmt23``, else the set itself."""
    return r.set.removesuffix(f".{r.src}-{r.tgt}").removesuffix(f".{r.src}")


def own_specs(results: Sequence[Result], speech_lang: str = "en") -> List[Spec]:
    """Tables for these results, in the order of the paper's: ASR, MT, APE, NER, ST, ablations."""
    specs = []
    recognised = [r for r in results if r.task == "asr"]
    if recognised:
        specs.append(_recognition(recognised))
    sets: Dict[str, List[Result]] = {}
    for r in results:
        sets.setdefault(family(r), []).append(r)
    for name, some in sets.items():
        for task in ("mt", "ape"):
            for out in (True, False):
                chosen = [r for r in some if r.task == task and (r.src == speech_lang) == out]
                title = f"{TASK_NAMES[task]} on {name}, "
                title += f"{speech_lang}→xx" if out else f"xx→{speech_lang}"
                specs += _by_language(title, chosen, [Section(task=task)], out)
        entities = [r for r in some if r.task == "ner"]
        specs += _by_language(f"NER on {name}", entities, [Section(task="ner")], True)
        spoken = [r for r in some if r.task in _SPEECH]
        sections = [
            Section(TASK_NAMES[task].removeprefix("ST ").capitalize(), task)
            for task in _SPEECH
            if any(r.task == task for r in spoken)
        ]
        specs += _by_language(f"ST on {name}, {speech_lang}→xx", spoken, sections, True)
    for name, some in sets.items():
        specs += _ablation(name, some, speech_lang)
    return specs


def _recognition(results: Sequence[Result]) -> Spec:
    parts = dict.fromkeys(Part(r.set, r.src, r.tgt) for r in results)
    columns = tuple(
        Column((_recognised(part, parts), METRICS[metric].title), metric, (part,), "asr")
        for part in parts
        for metric in read_by("asr", (r.metric for r in results))
    )
    return Spec("ASR on various test sets", columns, (Section(),))


def _recognised(part: Part, parts: Iterable[Part]) -> str:
    several = len({other.tgt for other in parts}) > 1
    return f"{part.set} {part.tgt}" if several else part.set


def _by_language(
    title: str, results: Sequence[Result], sections: List[Section], out: bool
) -> List[Spec]:
    """A column for each language and metric, and averages, as in Tables 5, 7 and 11."""
    if not results:
        return []
    parts = sorted(dict.fromkeys(Part(r.set, r.src, r.tgt) for r in results))
    metrics = read_by(results[0].task, (r.metric for r in results))
    heads: List[Tuple[str, Tuple[Part, ...]]] = [
        (part.tgt if out else part.src, (part,)) for part in parts
    ]
    if len(parts) > 1:
        heads.append((f"avg {len(parts)}", tuple(parts)))
    if len(parts) <= _WIDE:
        columns = tuple(
            Column((head, METRICS[metric].title), metric, some)
            for head, some in heads
            for metric in metrics
        )
        return [Spec(title, columns, tuple(sections))] if columns else []
    return [
        Spec(
            f"{title} in terms of {METRICS[metric].title}",
            tuple(Column((head,), metric, some) for head, some in heads),
            tuple(sections),
        )
        for metric in metrics
    ]


_ABLATED = (
    ("ASR", "asr", None),
    ("MT {s}→xx", "mt", True),
    ("MT xx→{s}", "mt", False),
    ("ST direct", "st", True),
    ("ST self-cascade", "st_cascade", True),
)


def _ablation(name: str, results: Sequence[Result], speech_lang: str) -> List[Spec]:
    """All runs of a set side by side, as in Table 9: by one metric each, averaged over pairs."""
    runs = own_figures(results)
    if len(runs) < 2:
        return []
    columns = []
    for title, task, out in _ABLATED:
        some = [r for r in results if r.task == task and out in (None, r.src == speech_lang)]
        parts = tuple(sorted({Part(r.set, r.src, r.tgt) for r in some}))
        for metric in read_by(task, (r.metric for r in some))[:1]:
            head = (title.format(s=speech_lang), METRICS[metric].title)
            columns.append(Column(head, metric, parts, task))
    title = f"All models on {name}"
    return [Spec(title, tuple(columns), (Section(),), ablation=True)] if columns else []
