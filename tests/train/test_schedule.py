"""Learning rates worked out by hand."""

import pytest

from espnet_spire.train.schedule import learning_rate


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 0.25),  # 1/4 of the peak
        (2, 0.75),
        (3, 1.0),
        (4, 1.0),  # cos 0
        (6, 0.1 + 0.9 * 0.8535533905932737),  # a quarter: (1 + cos 45°) / 2
        (8, 0.1 + 0.9 * 0.5),  # half way
        (12, 0.1),
        (99, 0.1),
    ],
)
def test_warm_up_and_cosine(step, rate):
    found = learning_rate(step, total_steps=12, warmup_steps=4, peak=3e-5, final_ratio=0.1)
    assert found == pytest.approx(3e-5 * rate, rel=1e-12)


def test_without_warm_up_and_without_a_decay():
    assert learning_rate(0, total_steps=10, warmup_steps=0, peak=2.0, final_ratio=0.0) == 2.0
    assert learning_rate(5, total_steps=10, warmup_steps=0, peak=2.0, final_ratio=1.0) == 2.0
    # A warm-up longer than the training is still a warm-up.
    assert learning_rate(1, total_steps=2, warmup_steps=100, peak=1.0, final_ratio=0) == 0.02
