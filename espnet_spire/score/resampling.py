"""How sure a score is, and a difference of two: bootstrap and approximate randomisation.

Both work on sufficient statistics (:mod:`espnet_spire.score.statistics`): a resample is a row of
counts of utterances, all resamples together one matrix product. The draws are sacreBLEU's for the
same seed and number, so that intervals and p-values are those that it prints. But for one thing: a
drawn difference that is exactly the real one counts as one as large. sacreBLEU counts larger ones
alone, by which two systems that say the same would differ significantly. It matters where few
utterances differ.

Sources: Koehn 2004 (bootstrap), Riezler and Maxwell 2005 (approximate randomisation), Graham et al.
2014 (their comparison); sacreBLEU's ``significance``.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

import numpy as np

# sacreBLEU's: $SACREBLEU_SEED, --paired-bs-n (and --confidence-n), --paired-ar-n.
SEED = 12345
RESAMPLES = 1000
TRIALS = 10000
LEVEL = 0.95
# Counts of a block of resamples are at most this many numbers.
_BLOCK = 2**23

Values = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """Where 95 % of the resampled values lie.

    Attributes:
        low, high: the bounds; half of their distance is what sacreBLEU prints after ``±``.
        mean: of the resampled values, sacreBLEU's ``μ``.
        level: 0.95.
        resamples: their number.
        seed: of the draws.
    """

    low: float
    high: float
    mean: float
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Difference:
    """System B against system A.

    Attributes:
        a, b: scores of both, in percent.
        delta: b - a.
        low, high: bounds of 95 % of the differences in paired resamples.
        p: probability of a difference at least as large, in either direction, if A and B were
            equally good.
        test: ``bootstrap`` or ``randomisation``.
        draws: resamples or trials of that test.
        seed: of the draws.
    """

    a: float
    b: float
    delta: float
    low: float
    high: float
    p: float
    test: str
    draws: int
    seed: int


def resampled_sums(statistics: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums over utterances drawn with replacement.

    Args:
        statistics: shape (N, S), a row an utterance.

    Returns:
        Shape (resamples, S), float64: whole numbers stay exact.
    """
    statistics = np.asarray(statistics, float)
    number = len(statistics)
    rng = np.random.default_rng(seed)
    result = np.empty((resamples, statistics.shape[1]))
    block = max(1, _BLOCK // number)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        # Row by row as in one draw of all: what a call leaves in the generator, the next begins at.
        drawn = rng.choice(number, size=(rows, number), replace=True)
        drawn += np.arange(rows)[:, None] * number
        counts = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        result[start : start + rows] = counts.astype(float) @ statistics
    return result


def interval(
    statistics: np.ndarray, values: Values, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Bootstrap interval of a score; statistics are of shape (N, S)."""
    low, high, mean = _bounds(values(resampled_sums(statistics, resamples, seed)))
    return Interval(low, high, mean, LEVEL, resamples, seed)


def _bounds(drawn: np.ndarray) -> Tuple[float, float, float]:
    # A resample without any reference has no error rate.
    drawn = np.sort(drawn[~np.isnan(drawn)])
    outside = len(drawn) // 40
    return float(drawn[outside]), float(drawn[-1 - outside]), float(drawn.mean())


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    values: Values,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Resample utterances, the same ones for both systems; statistics are of shape (N, S) each.

    The p-value is sacreBLEU's (``--paired-bs``): the share of resamples whose absolute difference
    exceeds the mean of the absolute differences by the real one or more (plus one on both sides of
    the fraction). The mean of absolute values being above that of the values, it comes out smaller
    than the interval would have it where systems are close: trust the randomisation.
    """
    score_a, score_b, first, second = _paired(a, b, values, resamples, seed)
    apart = np.abs(second - first)
    # A resample without any reference has no error rate.
    p = _p_value(apart - np.nanmean(apart), abs(score_b - score_a))
    low, high, _ = _bounds(second - first)
    return Difference(
        score_a, score_b, score_b - score_a, low, high, p, "bootstrap", resamples, seed
    )


def approximate_randomisation(
    a: np.ndarray,
    b: np.ndarray,
    values: Values,
    *,
    trials: int = TRIALS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Swap the systems' outputs of randomly chosen utterances; statistics are of shape (N, S) each.

    The p-value is the share of trials whose difference is the real one or more (plus one on both
    sides of the fraction). The interval is the paired bootstrap's.
    """
    score_a, score_b, first, second = _paired(a, b, values, resamples, seed)
    a, b = np.asarray(a, float), np.asarray(b, float)
    kept = np.random.default_rng(seed).integers(2, size=(trials, len(a)), dtype=bool)
    both = a.sum(axis=0) + b.sum(axis=0)
    one = np.empty((trials, a.shape[1]))
    block = max(1, _BLOCK // len(a))
    for start in range(0, trials, block):
        part = slice(start, start + block)
        one[part] = kept[part].astype(float) @ (a - b)
    one += b.sum(axis=0)
    apart = np.abs(values(one) - values(both - one))
    p = _p_value(apart, abs(score_b - score_a))
    low, high, _ = _bounds(second - first)
    return Difference(
        score_a, score_b, score_b - score_a, low, high, p, "randomisation", trials, seed
    )


def _paired(a: np.ndarray, b: np.ndarray, values: Values, resamples: int, seed: int):
    if np.shape(a) != np.shape(b):
        raise ValueError(f"statistics of shapes {np.shape(a)} and {np.shape(b)} are no pair")
    width = np.shape(a)[1]
    sums = resampled_sums(np.hstack([a, b]), resamples, seed)
    first, second = values(sums[:, :width]), values(sums[:, width:])
    score_a, score_b = (float(values(np.asarray(x, float).sum(axis=0))) for x in (a, b))
    return score_a, score_b, first, second


def _p_value(drawn: np.ndarray, real: float) -> float:
    # Less than rounding is no difference.
    reached = int((drawn >= real - 1e-9).sum())
    return (reached + 1) / (int((~np.isnan(drawn)).sum()) + 1)


def signature_with(signature: str, how: Dict[str, Any]) -> str:
    """A signature with fields after its first, where sacreBLEU puts those of its tests.

    >>> signature_with("nrefs:1|case:mixed", {"bs": 1000, "seed": 12345})
    'nrefs:1|bs:1000|seed:12345|case:mixed'
    """
    first, *rest = signature.split("|")
    return "|".join([first, *(f"{name}:{value}" for name, value in how.items()), *rest])
