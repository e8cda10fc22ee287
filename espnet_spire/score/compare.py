"""Two systems on the same test sets: differences, their intervals and p-values.

Reads the score directories that :mod:`espnet_spire.score.files` leaves; nothing is computed again
but sums of the statistics in them.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from espnet_spire.score.files import SCORE_JSON, UTTERANCES, read_entries
from espnet_spire.score.measured import Texts
from espnet_spire.score.metrics import METRICS, Settings, score_texts
from espnet_spire.score.resampling import (
    Difference,
    approximate_randomisation,
    paired_bootstrap,
    signature_with,
)
from espnet_spire.utils.atomic import PathLike, read_json
from espnet_spire.utils.errors import SpireError

BOOTSTRAP = "bootstrap"
RANDOMISATION = "randomisation"
SIGNIFICANT = 0.05


class System(NamedTuple):
    """What a system scored by one metric on one test set.

    ``statistics`` has shape (N, S), in the order of ``keys``.
    """

    name: str
    signature: str
    keys: Sequence[str]
    references: Sequence[str]
    statistics: np.ndarray


class Comparison(NamedTuple):
    """System B against system A; ``job`` is where both lie beneath what was compared."""

    job: str
    metric: str
    signature: str
    utterances: int
    difference: Difference

    @property
    def better(self) -> str:
        """``A`` or ``B``; ``-`` if both are the same."""
        gain = self.difference.delta
        if METRICS[self.metric].lower_is_better:
            gain = -gain
        return "B" if gain > 0 else "A" if gain < 0 else "-"

    def as_dict(self) -> Dict[str, Any]:
        """The comparison as JSON takes it."""
        content = self._asdict()
        difference = asdict(content.pop("difference"))
        return {**content, **difference, "better": self.better}


def find_scores(directory: PathLike) -> Dict[str, Dict[str, System]]:
    """All scores beneath a directory: job (a relative path) → metric → system.

    Raises:
        SpireError: there is none, or one cannot be read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such directory")
    found: Dict[str, Dict[str, System]] = {}
    for path in sorted(directory.rglob(f"score_*/{SCORE_JSON}")):
        relative = path.relative_to(directory)
        if any(part.startswith(".") for part in relative.parts):
            continue
        job = found.setdefault(relative.parent.parent.as_posix(), {})
        job.update(_read_scores(path))
    if not found:
        raise SpireError(f"{directory}: no score_*/{SCORE_JSON} beneath it; score first")
    return found


def _read_scores(path: Path) -> Dict[str, System]:
    entries = read_entries(path.parent / UTTERANCES)
    keys = [entry["utterance"] for entry in entries]
    references = [entry["reference"] for entry in entries]
    systems = {}
    try:
        for score in read_json(path)["scores"]:
            statistics = np.array([e["statistics"][score["metric"]] for e in entries], float)
            systems[score["metric"]] = System(
                str(path.parent), score["signature"], keys, references, statistics
            )
    except (KeyError, TypeError, ValueError) as error:
        raise SpireError(f"{path}: not a score file ({error!r}); score again") from None
    return systems


def system_of(name: str, metric: str, texts: Texts, settings: Settings) -> System:
    """A system from texts that were not scored yet."""
    score, measured = score_texts(metric, texts, settings)
    return System(name, score.signature, texts.keys, texts.references, measured.statistics)


def compare_scores(
    a: Mapping[str, Mapping[str, System]],
    b: Mapping[str, Mapping[str, System]],
    *,
    metrics: Optional[Sequence[str]] = None,
    **how: Any,
) -> List[Comparison]:
    """Compare what both systems have; what only one has is logged.

    Args:
        a, b: see :func:`find_scores`.
        metrics: only these; ``None``: all that both have.
        how: see :func:`compare`.

    Raises:
        SpireError: they have nothing in common, or what they have cannot be compared.
    """
    for name in metrics or ():
        if name not in METRICS:
            raise SpireError(f"metric {name!r} is unknown; known are {', '.join(METRICS)}")
    wanted = [name for name in METRICS if metrics is None or name in metrics]
    comparisons = []
    for job in sorted({*a, *b}):
        for metric in wanted:
            first, second = a.get(job, {}).get(metric), b.get(job, {}).get(metric)
            if first and second:
                comparisons.append(compare(job, metric, first, second, **how))
            elif first or second:
                logging.warning(f"{job}: only {'A' if first else 'B'} has {metric}; left out")
    if not comparisons:
        raise SpireError(
            "A and B have no score in common"
            + (f" of {', '.join(metrics)}" if metrics else "")
            + "; score both by the same metrics"
        )
    return comparisons


def compare(
    job: str,
    metric: str,
    a: System,
    b: System,
    *,
    test: str,
    seed: int,
    resamples: int,
    trials: int,
) -> Comparison:
    """Test one difference.

    Args:
        test: ``bootstrap`` or ``randomisation``.
        seed: of the draws.
        resamples: of the bootstrap, which gives the interval in both tests.
        trials: of the randomisation.

    Raises:
        SpireError: the systems were not scored on the same references in the same way.
    """
    _check_comparable(job, metric, a, b)
    values = METRICS[metric].values
    if test == BOOTSTRAP:
        found = paired_bootstrap(a.statistics, b.statistics, values, resamples=resamples, seed=seed)
        fields = {"bs": resamples, "seed": seed}
    else:
        found = approximate_randomisation(
            a.statistics, b.statistics, values, trials=trials, resamples=resamples, seed=seed
        )
        fields = {"bs": resamples, "ar": trials, "seed": seed}
    return Comparison(job, metric, signature_with(a.signature, fields), len(a.keys), found)


def _check_comparable(job: str, metric: str, a: System, b: System) -> None:
    where = f"{job}, {metric}"
    if a.signature != b.signature:
        raise SpireError(
            f"{where}: A was scored with {a.signature}, B with {b.signature}; score both again"
        )
    if list(a.keys) != list(b.keys):
        only = sorted(set(a.keys) ^ set(b.keys))
        raise SpireError(
            f"{where}: A and B are not of the same utterances ({len(a.keys)} and {len(b.keys)};"
            f" {only[0] if only else 'another order'})"
        )
    for key, one, other in zip(a.keys, a.references, b.references, strict=True):
        if one != other:
            raise SpireError(f"{where}: the references of {key} differ in {a.name} and {b.name}")


def comparison_rows(comparisons: Sequence[Comparison]) -> List[List[str]]:
    """Header and a row a comparison, for a table."""
    rows = [["job", "metric", "A", "B", "B - A", "95 %", "p", "better"]]
    for comparison in comparisons:
        d = comparison.difference
        mark = "*" if d.p < SIGNIFICANT else " "
        rows.append(
            [
                comparison.job,
                METRICS[comparison.metric].title,
                f"{d.a:.2f}",
                f"{d.b:.2f}",
                f"{d.delta:+.2f}",
                f"[{d.low:+.2f}, {d.high:+.2f}]",
                f"{d.p:.4f}{mark}",
                comparison.better,
            ]
        )
    return rows
