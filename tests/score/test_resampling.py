import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, _bootstrap_resample, estimate_ci

from espnet_spire.score import resampling
from espnet_spire.score.resampling import (
    approximate_randomisation,
    interval,
    paired_bootstrap,
    resampled_sums,
    signature_with,
)
from espnet_spire.score.statistics import bleu_values, chrf_values, error_rates, means, ter_values

WORDS = [f"w{i}" for i in range(60)]


def corrupted(texts, share, seed):
    rng = random.Random(seed)
    return [
        " ".join(w if rng.random() > share else rng.choice(WORDS) for w in text.split())
        for text in texts
    ]


@pytest.fixture(scope="module")
def corpus():
    rng = random.Random(0)
    refs = [" ".join(rng.choices(WORDS, k=rng.randint(1, 15))) for _ in range(150)]
    return refs, corrupted(refs, 0.30, 1), corrupted(refs, 0.31, 4)


METRICS = [(BLEU, bleu_values), (CHRF, chrf_values), (TER, ter_values)]


@pytest.mark.parametrize("kind, values", METRICS)
def test_interval_is_sacrebleus(corpus, kind, values):
    refs, hyps, _ = corpus
    metric = kind()
    rows = metric._extract_corpus_statistics(hyps, [refs])
    seed, scores = _bootstrap_resample(rows, metric, 300)
    mean, half = estimate_ci(np.array([score.score for score in scores]))
    found = interval(np.array(rows), values, resamples=300)
    assert str(found.seed) == seed
    # sacreBLEU sums in float32
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-4)
    assert found.low < metric.corpus_score(hyps, [refs]).score < found.high


@pytest.mark.parametrize("kind, values", METRICS)
@pytest.mark.parametrize("test", ["bs", "ar"])
def test_p_values_are_sacrebleus(corpus, kind, values, test):
    refs, one, other = corpus
    metric = kind()
    _, scores = PairedTest([("a", one), ("b", other)], {"m": metric}, [refs], test, n_samples=500)()
    (_, expected) = next(value for name, value in scores.items() if name != "System")
    a, b = (np.array(metric._extract_corpus_statistics(h, [refs])) for h in (one, other))
    if test == "bs":
        found = paired_bootstrap(a, b, values, resamples=500)
    else:
        found = approximate_randomisation(a, b, values, trials=500)
    assert found.b == pytest.approx(expected.score)
    if (kind, test) == (TER, "ar"):
        # edits are whole numbers, and trials that do as much as the real difference are counted
        assert expected.p_value < found.p < expected.p_value + 0.1
    else:
        assert found.p == expected.p_value
    assert 1 / 501 < found.p < 1, "a p-value at a bound would say little"


def word_errors(*errors):
    """Utterances of ten words with so many substitutions."""
    return np.array([[10 - n, n, 0, 0] for n in errors])


def test_randomisation_by_hand():
    """A and B differ in three utterances by one error each: of 8 ways to swap, 2 do as much."""
    a, b = word_errors(1, 1, 1, 5), word_errors(0, 0, 0, 5)
    found = approximate_randomisation(a, b, error_rates, trials=20000)
    assert (found.a, found.b, found.delta) == (20, 12.5, -7.5)
    assert found.p == pytest.approx(2 / 8, abs=0.01)
    # of errors 2, 1 and 1 apart, sums of at least 2 in absolute value: ±4, ±2 (twice each)
    a, b = word_errors(2, 0, 1), word_errors(0, 1, 0)
    found = approximate_randomisation(a, b, error_rates, trials=20000)
    assert found.p == pytest.approx(6 / 8, abs=0.01)


def test_bootstrap_by_hand():
    """Two utterances: both drawn are the first (1/4), the second (1/4), or one of each (1/2)."""
    sums = resampled_sums(word_errors(0, 10), 8000, 7)
    shares = [(sums[:, 1] == n).mean() for n in (0, 10, 20)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    bounds = interval(word_errors(0, 10), error_rates)
    assert (bounds.low, bounds.high) == (0, 100)
    assert bounds.mean == pytest.approx(50, abs=3)


def test_delta_is_of_paired_resamples():
    """B is better by one error in each utterance, whatever is drawn."""
    a, b = word_errors(1, 5, 9, 3), word_errors(0, 4, 8, 2)
    found = paired_bootstrap(a, b, error_rates)
    assert (found.low, found.high) == (pytest.approx(-10), pytest.approx(-10))
    assert interval(a, error_rates).high > interval(a, error_rates).low


@pytest.mark.parametrize("test", [paired_bootstrap, approximate_randomisation])
def test_the_same_twice_is_no_difference(corpus, test):
    a = word_errors(1, 2, 3, 0, 0, 5)
    found = test(a, a, error_rates)
    assert (found.delta, found.p, found.low, found.high) == (0, 1, 0, 0)


@pytest.mark.parametrize("test", [paired_bootstrap, approximate_randomisation])
def test_swapped_systems_have_the_same_p(test):
    a, b = word_errors(*range(9)), word_errors(*[3] * 9)
    one, other = test(a, b, error_rates), test(b, a, error_rates)
    assert (one.p, one.delta) == (other.p, -other.delta)
    assert (one.low, one.high) == (-other.high, -other.low)


def test_means_of_values():
    scores = np.array([0.5, 0.7, 0.9, 0.8])
    a = np.stack([scores, np.ones(4)], axis=1)
    b = a + [[0.05, 0]]
    found = paired_bootstrap(a, b, means)
    assert (found.a, found.b) == (pytest.approx(72.5), pytest.approx(77.5))
    assert (found.low, found.high) == (pytest.approx(5), pytest.approx(5))


def test_blocks_make_no_difference(monkeypatch):
    rows = np.arange(40).reshape(10, 4)
    other = rows[::-1].copy()
    whole = resampled_sums(rows, 50, 3)
    p = approximate_randomisation(rows, other, error_rates, trials=50).p
    monkeypatch.setattr(resampling, "_BLOCK", 70)
    assert (resampled_sums(rows, 50, 3) == whole).all()
    assert approximate_randomisation(rows, other, error_rates, trials=50).p == p
    assert (resampled_sums(rows, 50, 4) != whole).any()


def test_resamples_without_a_reference_are_left_out():
    rows = np.array([[0, 0, 0, 0], [1, 1, 0, 0]])
    found = interval(rows, error_rates)
    assert (found.low, found.mean, found.high) == (50, 50, 50)


def test_pairs_must_fit():
    with pytest.raises(ValueError, match="no pair"):
        paired_bootstrap(word_errors(1, 2), word_errors(1), error_rates)


def test_signature_is_sacrebleus(corpus):
    metric = BLEU()
    metric.corpus_score(corpus[1], [corpus[0]])
    plain = str(metric.get_signature())
    metric.corpus_score(corpus[1], [corpus[0]], n_bootstrap=20)
    assert signature_with(plain, {"bs": 20, "seed": 12345}) == str(metric.get_signature())
