"""The table of all metrics, and which of them a task is scored by.

A new metric is a function of :class:`Texts` that gives a :class:`Measured`, a function that makes
values of its sums, and a line in ``METRICS``.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.score import statistics
from espnet_spire.score.entities import TOWER_TYPES, sequence_f1
from espnet_spire.score.error_rates import CHARACTER, WORD, error_rate
from espnet_spire.score.measured import Measured, Score, Texts
from espnet_spire.score.quality import QualityModels
from espnet_spire.score.resampling import RESAMPLES, SEED, Values, interval
from espnet_spire.score.translation import bleu, chrf, flores200_file, plain_bleu, spbleu, ter
from espnet_spire.utils.errors import SpireError


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        metrics: names in ``METRICS``; ``None``: those of the task.
        tokenize: of BLEU; ``None``: that of the language.
        spm_model: of spBLEU; ``None``: where sacreBLEU keeps it.
        ner_types: types of named entities that count.
        quality: COMET's models.
        resamples, seed: of the intervals.
    """

    metrics: Optional[Sequence[str]] = None
    tokenize: Optional[str] = None
    spm_model: Optional[Path] = None
    ner_types: Sequence[str] = TOWER_TYPES
    quality: QualityModels = field(default_factory=QualityModels)
    resamples: int = RESAMPLES
    seed: int = SEED


@dataclass(frozen=True)
class Metric:
    """How a metric is named, computed and read.

    Attributes:
        title: in tables.
        directory: where its results go, beside the hypotheses.
        lower_is_better: an error rate.
        measure: from texts, by settings.
        values: percentages of sums of its statistics.
        each: the same for single utterances.
    """

    title: str
    directory: str
    lower_is_better: bool
    measure: Callable[[Texts, Settings], Measured]
    values: Values
    each: Values


def _metric(
    title: str,
    directory: str,
    measure: Callable[[Texts, Settings], Measured],
    values: Values,
    *,
    each: Optional[Values] = None,
    lower: bool = False,
) -> Metric:
    return Metric(title, directory, lower, measure, values, each or values)


def _comet(name: str, title: str) -> Metric:
    return _metric(title, "score_comet", lambda t, s: s.quality.measure(name, t), statistics.means)


_SENTENCE_BLEU = partial(statistics.bleu_values, effective_order=True)
# In the order of tables.
METRICS: Dict[str, Metric] = {
    "wer": _metric(
        "WER",
        "score_wer",
        lambda t, s: error_rate(t, WORD),
        statistics.error_rates,
        lower=True,
    ),
    "cer": _metric(
        "CER",
        "score_cer",
        lambda t, s: error_rate(t, CHARACTER),
        statistics.error_rates,
        lower=True,
    ),
    "bleu": _metric(
        "BLEU",
        "score_bleu",
        lambda t, s: bleu(t, s.tokenize),
        statistics.bleu_values,
        each=_SENTENCE_BLEU,
    ),
    "bleu_lc": _metric(
        "BLEU (lc)",
        "score_bleu",
        lambda t, s: plain_bleu(t, s.tokenize),
        statistics.bleu_values,
        each=_SENTENCE_BLEU,
    ),
    "spbleu": _metric(
        "spBLEU",
        "score_bleu",
        lambda t, s: spbleu(t, s.spm_model),
        statistics.bleu_values,
        each=_SENTENCE_BLEU,
    ),
    "chrf": _metric("chrF", "score_bleu", lambda t, s: chrf(t), statistics.chrf_values),
    "chrf++": _metric(
        "chrF++", "score_bleu", lambda t, s: chrf(t, word_order=2), statistics.chrf_values
    ),
    "ter": _metric("TER", "score_bleu", lambda t, s: ter(t), statistics.ter_values, lower=True),
    "comet22": _comet("comet22", "COMET-22"),
    "xcomet": _comet("xcomet", "xCOMET"),
    "cometkiwi": _comet("cometkiwi", "CometKiwi"),
    "f1": _metric("F1", "score_f1", lambda t, s: sequence_f1(t, s.ner_types), statistics.f1_values),
}
_TRANSLATION = tuple(
    name for name, metric in METRICS.items() if metric.directory in ("score_bleu", "score_comet")
)
# What a task can be scored by; what it is scored by unless others are asked for.
TASK_METRICS: Dict[str, Tuple[Tuple[str, ...], Tuple[str, ...]]] = {
    "asr": (("wer", "cer"), ("wer", "cer")),
    "mt": (_TRANSLATION, ("bleu", "spbleu", "chrf")),
    "st": (_TRANSLATION, ("bleu", "spbleu", "chrf")),
    "st_cascade": (_TRANSLATION, ("bleu", "spbleu", "chrf")),
    "st_multi_turn": (_TRANSLATION, ("bleu", "spbleu", "chrf")),
    "ape": (_TRANSLATION, ("bleu", "ter")),
    "ner": (("f1",), ("f1",)),
}


DEFAULT = "default"
MEASURES = (DEFAULT, *METRICS)


def metrics_of(task: str, settings: Settings) -> Tuple[List[str], List[str]]:
    """The metrics that a task is scored by, and lines about usual ones that are left out, and why.

    What was asked for is computed or is an error; of the usual ones spBLEU needs a file that may
    not be here. Of the metrics asked for, a task has those made for it, perhaps none.

    Raises:
        SpireError: a metric is unknown, or a file that was named is missing.
    """
    possible, usual = TASK_METRICS[task]
    asked = set(settings.metrics or [DEFAULT])
    unknown = sorted(asked - set(MEASURES))
    if unknown:
        raise SpireError(f"metric {unknown[0]!r} is unknown; known are {', '.join(MEASURES)}")
    left_out = []
    if DEFAULT in asked:
        for name in usual:
            if name == "spbleu" and name not in asked and not settings.spm_model:
                try:
                    flores200_file()
                except SpireError as error:
                    left_out.append(f"left out: {error}")
                    continue
            asked.add(name)
    return [name for name in METRICS if name in asked and name in possible], left_out


def check(names: Iterable[str], settings: Settings) -> None:
    """Insist that what metrics need is here, before anything is computed."""
    names = list(names)
    if "spbleu" in names:
        flores200_file(settings.spm_model)
    settings.quality.find(names)


def score_texts(name: str, texts: Texts, settings: Settings) -> Tuple[Score, Measured]:
    """A metric's score of texts with its interval, and what it stands on."""
    metric = METRICS[name]
    measured = metric.measure(texts, settings)
    bounds = interval(
        measured.statistics, metric.values, resamples=settings.resamples, seed=settings.seed
    )
    score = Score(
        metric=name,
        value=measured.value,
        signature=measured.signature,
        counts=measured.counts,
        utterances=len(texts.keys),
        interval=bounds,
    )
    return score, measured


def utterance_values(name: str, statistics: np.ndarray) -> List[Optional[float]]:
    """A metric's value of each utterance; ``None`` where it has none (a rate over nothing)."""
    values = METRICS[name].each(np.asarray(statistics))
    return [None if np.isnan(value) else float(value) for value in values]
