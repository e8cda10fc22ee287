"""Scores from sufficient statistics: a metric's sums over utterances in, percentages out.

Every metric here is a function of sums: edits and words for WER, n-grams for BLEU and chrF, values
and their number for COMET. What is computed once an utterance can so be scored for any choice of
utterances, for a thousand resamples in one matrix product, and for an utterance alone.

All functions take an array of shape (…, S), the last axis being one row of sums, and give an array
of shape (…), where a score that is not defined (a rate over nothing) is NaN.
"""

import numpy as np

# Matched, hypothesis' and reference's n-grams up to this order (Papineni et al. 2002).
BLEU_ORDER = 4


def error_rates(sums: np.ndarray) -> np.ndarray:
    """Percentage of errors from (hits, substitutions, deletions, insertions)."""
    hits, substitutions, deletions, insertions = np.moveaxis(np.asarray(sums, float), -1, 0)
    return _percent(substitutions + deletions + insertions, hits + substitutions + deletions)


def ter_values(sums: np.ndarray) -> np.ndarray:
    """TER from (edits, reference words); as sacreBLEU has it, 100 for a text where none is due."""
    edits, words = np.moveaxis(np.asarray(sums, float), -1, 0)
    return np.where(words > 0, np.nan_to_num(_percent(edits, words)), 100.0 * (edits > 0))


def means(sums: np.ndarray) -> np.ndarray:
    """Percentage from (sum of values between 0 and 1, their number)."""
    total, number = np.moveaxis(np.asarray(sums, float), -1, 0)
    return _percent(total, number)


def f1_values(sums: np.ndarray) -> np.ndarray:
    """F1 in percent from (correct, predicted, true)."""
    correct, predicted, true = np.moveaxis(np.asarray(sums, float), -1, 0)
    return _percent(2 * correct, predicted + true)


def bleu_values(sums: np.ndarray, *, effective_order: bool = False) -> np.ndarray:
    """BLEU with exponential smoothing, as sacreBLEU computes it.

    Args:
        sums: (hypothesis length, reference length, matches of orders 1-4, n-grams of orders 1-4).
        effective_order: leave out orders of which the hypothesis has no n-gram, as sacreBLEU does
            for single sentences; else they make the score 0.

    Source: Papineni et al. 2002; Chen and Cherry 2014, method 3; sacreBLEU's ``compute_bleu``.
    """
    sums = np.asarray(sums, float)
    hypothesis, reference = sums[..., 0], sums[..., 1]
    matched, total = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    there = total > 0
    # The k-th order without a match counts as 1/2^k matches.
    smooth = np.exp2(np.cumsum(there & (matched == 0), axis=-1))
    safe = np.where(there, total, 1.0)
    precision = np.where(matched > 0, matched / safe, 1.0 / (smooth * safe))
    log_precision = np.where(there, np.log(precision), 0.0)
    orders = there.sum(axis=-1) if effective_order else BLEU_ORDER
    mean = log_precision.sum(axis=-1) / np.maximum(orders, 1)
    short = hypothesis < reference
    penalty = np.where(short, 1.0 - reference / np.maximum(hypothesis, 1.0), 0.0)
    defined = (matched > 0).any(axis=-1) & (there.all(axis=-1) | effective_order)
    return np.where(defined, np.minimum(100.0 * np.exp(penalty + mean), 100.0), 0.0)


def chrf_values(sums: np.ndarray, *, beta: float = 2.0) -> np.ndarray:
    """ChrF from (hypothesis', reference's, matched) n-grams of each order, as sacreBLEU has it.

    Precision and recall are means over the orders that both sides have.

    Source: Popović 2015; sacreBLEU's ``CHRF`` without epsilon smoothing.
    """
    sums = np.asarray(sums, float)
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    hypothesis, reference, matched = np.moveaxis(counts, -1, 0)
    there = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision = np.where(there, matched / np.maximum(hypothesis, 1), 0.0).sum(axis=-1) / orders
    recall = np.where(there, matched / np.maximum(reference, 1), 0.0).sum(axis=-1) / orders
    factor = beta**2
    below = factor * precision + recall
    score = (1 + factor) * precision * recall / np.where(below > 0, below, 1.0)
    return np.minimum(100.0 * score, 100.0)


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    nothing = np.full(np.shape(whole), np.nan)
    return 100.0 * np.divide(part, whole, out=nothing, where=np.asarray(whole) > 0)
