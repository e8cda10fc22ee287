"""The stand-in for CometKiwi, against values by hand and one example at a time."""

import math

import pytest
import torch

from espnet_spire.decode.generate import Generator
from espnet_spire.mini.quality import DualCrossEntropy, dual_score

PAIRS = [
    ("the cook cuts bread", "der Koch schneidet Brot"),
    ("bread", "Brot"),
    ("a child reads the blue book", "x"),
    ("the old farmer", "der alte Bauer füttert ein braunes Pferd"),
]


@pytest.mark.parametrize(
    "forward, backward, value",
    [
        (0.0, 0.0, 1.0),
        (1.0, 2.0, math.exp(-2.5)),  # |1 - 2| + (1 + 2) / 2
        (2.0, 1.0, math.exp(-2.5)),
        (0.1, 0.1, math.exp(-0.1)),
        (0.0, 4.0, math.exp(-6.0)),
    ],
)
def test_the_score_of_two_cross_entropies(forward, backward, value):
    assert dual_score(forward, backward) == pytest.approx(value, rel=1e-6)


@pytest.fixture(scope="module")
def generator(lm_dir):
    return Generator(lm_dir)


def simple_nll(generator, prompt, answer):
    """Mean over the answer's tokens and </s>; the prompt's tokens are context."""
    tokenizer = generator.tokenizer
    context = tokenizer(prompt).input_ids
    ids = tokenizer(prompt + answer).input_ids + [2]
    assert ids[: len(context)] == context and ids[0] == 1
    with torch.no_grad():
        logs = generator.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    losses = [-float(logs[i - 1, ids[i]]) for i in range(len(context), len(ids))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_scores_equal_a_computation_of_one_example_at_a_time(generator, batch_tokens):
    found = DualCrossEntropy(generator, batch_tokens)(
        [a for a, _ in PAIRS], [b for _, b in PAIRS], "en", "de"
    )
    for (source, target), score in zip(PAIRS, found, strict=True):
        forward = simple_nll(generator, f"English: {source}\nGerman:", f" {target}")
        backward = simple_nll(generator, f"German: {target}\nEnglish:", f" {source}")
        expected = math.exp(-(abs(forward - backward) + (forward + backward) / 2))
        assert score == pytest.approx(expected, rel=1e-4)


def test_empty_translations_score_nothing(generator):
    score = DualCrossEntropy(generator)
    first, empty, last = score(["bread", "a", "bread"], ["Brot", "", "Brot"], "en", "de")
    assert empty == 0 and 0 < first < 1 and first == pytest.approx(last, rel=1e-5)
    assert score(["a"], [""], "en", "de") == [0.0]
