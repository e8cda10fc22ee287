"""How the rows of new tokens are drawn."""

import numpy as np
import pytest
import torch
from helpers_bases import check_statistics

from espnet_spire.text.embeddings import draw_rows, padded_rows
from espnet_spire.utils.errors import SpireError

KNOWN = np.array(
    [[1, 0, 2], [2, 1, 0], [0, 3, 1], [4, -1, 5], [-3, 2, 2], [1, 1, -4]], dtype=np.float64
)


def test_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    padded = np.concatenate([KNOWN, np.full((4, 3), 1e6)])  # rows of no token
    rows = draw_rows(torch.from_numpy(padded), 6, 100_000, generator)
    assert rows.dtype == torch.float32
    assert tuple(rows.shape) == (100_000, 3)
    rows = rows.numpy().astype(np.float64)
    check_statistics(rows, KNOWN, 0.02)
    # Gaussian: 68.27 % within a standard deviation, the fourth moment 3
    standard = (rows - KNOWN.mean(axis=0)) / np.sqrt(1e-5 * np.var(KNOWN, axis=0, ddof=1))
    assert np.mean(np.abs(standard) < 1) == pytest.approx(0.6827, abs=0.01)
    assert np.mean(standard**4) == pytest.approx(3, abs=0.1)


def test_same_law_whatever_the_blocks(monkeypatch):
    """Many blocks: the covariance is of all rows, not of each block's."""
    rng = np.random.default_rng(0)
    existing = rng.standard_normal((300, 3)) + np.linspace(-3, 3, 300)[:, None]
    monkeypatch.setattr("espnet_spire.text.embeddings._MAX_BLOCK", 7 * 50_000)
    generator = torch.Generator().manual_seed(0)
    rows = draw_rows(torch.from_numpy(existing), 300, 50_000, generator)
    check_statistics(rows.numpy().astype(np.float64), existing, 0.03)


def test_rows_differ_and_follow_the_generator():
    weight = torch.from_numpy(KNOWN).float()

    def draw(seed, count=700):
        return draw_rows(weight, 6, count, torch.Generator().manual_seed(seed))

    assert draw(1).equal(draw(1))
    assert not draw(1).equal(draw(2))
    assert len(torch.unique(draw(1), dim=0)) == 700
    assert tuple(draw(1, 0).shape) == (0, 3)


def test_the_same_for_any_number_of_threads():
    weight = torch.randn(5000, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            drawn.append(draw_rows(weight, 4999, 600, torch.Generator().manual_seed(1)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert drawn[0].equal(drawn[1]) and drawn[0].equal(drawn[2])


def test_mean_and_unknown_initialisation():
    weight = torch.from_numpy(KNOWN).float()
    rows = draw_rows(weight, 6, 2, torch.Generator(), method="mean")
    np.testing.assert_allclose(rows, [KNOWN.mean(axis=0)] * 2, rtol=1e-6)
    with pytest.raises(SpireError, match="--init zero: choose gaussian or mean"):
        draw_rows(weight, 6, 2, torch.Generator(), method="zero")


def test_padding():
    assert padded_rows(37007) == 37056 == 579 * 64
    assert [padded_rows(n) for n in (1, 64, 65)] == [64, 64, 128]
