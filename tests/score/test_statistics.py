import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from espnet_spire.score.statistics import (
    bleu_values,
    chrf_values,
    error_rates,
    f1_values,
    means,
    ter_values,
)


def sentences(seed, number, words="abcdefghij", longest=9):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(0, longest))) for _ in range(number)]


REFS, HYPS = sentences(1, 200), sentences(2, 200)


def rows(metric):
    return metric._extract_corpus_statistics(HYPS, [REFS])


@pytest.mark.parametrize(
    "metric, values",
    [
        (BLEU(), bleu_values),
        (CHRF(), chrf_values),
        (CHRF(word_order=2), chrf_values),
        (TER(), ter_values),
    ],
)
def test_values_are_those_of_sacrebleu(metric, values):
    statistics = rows(metric)
    corpus = metric.corpus_score(HYPS, [REFS]).score
    assert float(values(np.sum(statistics, axis=0))) == pytest.approx(corpus, rel=1e-12)
    # sums of a few, where orders without a match and without any n-gram are common
    expected = [
        metric._compute_score_from_stats([sum(c) for c in zip(*statistics[i : i + 3], strict=True)])
        for i in range(len(statistics) - 3)
    ]
    sums = np.stack([np.sum(statistics[i : i + 3], axis=0) for i in range(len(statistics) - 3)])
    assert values(sums) == pytest.approx([score.score for score in expected], rel=1e-12)


def test_values_of_sentences_are_those_of_sacrebleu():
    sentence = BLEU(effective_order=True)
    expected = [sentence.sentence_score(h, [r]).score for h, r in zip(HYPS, REFS, strict=True)]
    found = bleu_values(np.array(rows(BLEU())), effective_order=True)
    assert found == pytest.approx(expected, rel=1e-12)
    expected = [CHRF().sentence_score(h, [r]).score for h, r in zip(HYPS, REFS, strict=True)]
    assert chrf_values(np.array(rows(CHRF()))) == pytest.approx(expected, rel=1e-12)


def test_bleu_by_hand():
    # five words of six, short by one: the penalty is exp(1 - 6/5)
    value = 100 * math.exp(-0.2) * (4 / 5 * 2 / 4 * 1 / 3 * 1 / (2 * 2)) ** 0.25
    assert bleu_values([5, 6, 4, 2, 1, 0, 5, 4, 3, 2]) == pytest.approx(value)
    assert bleu_values([0, 6, 0, 0, 0, 0, 0, 0, 0, 0]) == 0


def test_rates_by_hand():
    assert error_rates([[6, 2, 1, 3], [0, 0, 0, 0]])[0] == pytest.approx(100 * 6 / 9)
    assert np.isnan(error_rates([0, 0, 0, 2]))
    assert means([1.5, 2]) == 75
    assert f1_values([2, 5, 3]) == 50
    assert np.isnan(f1_values([0, 0, 0]))
    assert list(ter_values([[3, 2], [1, 0], [0, 0]])) == [150, 100, 0]


def test_any_shape():
    sums = np.arange(2 * 3 * 10).reshape(2, 3, 10)
    assert bleu_values(sums).shape == (2, 3)
    assert chrf_values(np.ones((2, 3, 18))).shape == (2, 3)
