"""Best-fit packing against the plain algorithm and against bins worked out by hand."""

import numpy as np
import pytest

from espnet_spire.train import packing
from espnet_spire.train.packing import members, pack_best_fit
from espnet_spire.utils.errors import SpireError


def plain_best_fit(lengths, capacity):
    """Best-fit decreasing as books have it; returns the number of bins."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        fitting = [(space, n) for n, space in enumerate(spaces) if space >= length]
        if fitting:
            space, best = min(fitting)
            spaces[best] = space - length
        else:
            spaces.append(capacity - length)
    return len(spaces)


def check(lengths, capacity):
    """Bins of the lengths; each within the capacity, numbered without gaps."""
    bins = pack_best_fit(np.array(lengths), capacity)
    assert len(bins) == len(lengths)
    loads = np.bincount(bins, weights=lengths)
    assert loads.min() > 0 and loads.max() <= capacity
    return bins


@pytest.mark.parametrize(
    "lengths, capacity, sums",
    [
        ([5], 5, [5]),
        ([1, 1, 1], 1, [1, 1, 1]),
        ([3, 8, 7, 2], 10, [10, 10]),
        # 6 5 5 4 → 6+4, 5+5.
        ([4, 5, 6, 5], 10, [10, 10]),
        # The fullest that fits: 2 goes on 8, not on 7; 3 on 7.
        ([2, 3, 7, 8], 10, [10, 10]),
        # Equal ones: three of 3 to a sequence, and the last alone.
        ([3] * 7, 10, [9, 9, 3]),
        # An open sequence takes as many of one length as it holds: 7 + 1 + 1 + 1.
        ([1, 1, 1, 1, 7], 10, [10, 1]),
    ],
)
def test_by_hand(lengths, capacity, sums):
    loads = np.bincount(check(lengths, capacity), weights=lengths)
    assert sorted(loads.tolist(), reverse=True) == sums


def some_lengths(seed):
    """Many or few, alike or not."""
    draw = np.random.default_rng(seed)
    capacity = int(draw.integers(1, 300))
    shortest, longest = sorted(draw.integers(1, capacity + 1, 2))
    return draw.integers(shortest, longest + 1, int(draw.integers(1, 400))), capacity


@pytest.mark.parametrize("seed", range(60))
def test_never_more_sequences_than_the_plain_algorithm(seed):
    lengths, capacity = some_lengths(seed)
    plain = plain_best_fit(lengths, capacity)
    assert packing._best_fit(np.bincount(lengths), capacity)[0] == plain
    assert -(-lengths.sum() // capacity) <= check(lengths, capacity).max() + 1 <= plain


def test_where_best_fit_leaves_room():
    # 5 5 | 4 4 | 3 3 … leaves 10 - 8 = 2; 5 + 5, 4 + 3 + 3 and 4 + 3 + 3 are full.
    lengths = [5, 5, 4, 4, 3, 3, 3, 3]
    assert plain_best_fit(lengths, 10) == 4
    assert np.bincount(check(lengths, 10), weights=lengths).tolist() == [10, 10, 10]


def test_lengths_without_short_ones():
    # Instruction data of two kinds, as in the mini recipe: there is nothing to fill gaps with.
    draw = np.random.default_rng(1)
    lengths = np.concatenate([draw.integers(68, 95, 1750), draw.integers(125, 190, 2000)])
    sequences = check(lengths, 512).max() + 1
    assert lengths.sum() / plain_best_fit(lengths, 512) / 512 < 0.98
    assert lengths.sum() / sequences / 512 > 0.99


def test_a_realistic_window():
    draw = np.random.default_rng(0)
    lengths = np.clip(np.exp(draw.normal(5.5, 1.0, 3000)), 1, 2048).astype(int)
    bins = check(lengths, 2048)
    assert bins.max() + 1 == plain_best_fit(lengths, 2048)
    assert lengths.sum() / (bins.max() + 1) / 2048 > 0.99
    assert (pack_best_fit(lengths, 2048) == bins).all()


def test_what_cannot_be_packed():
    with pytest.raises(SpireError, match="an example has 11 tokens, a sequence 10"):
        pack_best_fit(np.array([3, 11]), 10)
    with pytest.raises(ValueError, match="of 0 tokens"):
        pack_best_fit(np.array([3, 0]), 10)
    assert len(pack_best_fit(np.array([], dtype=int), 10)) == 0


def test_members():
    found = members(np.array([1, 0, 1, 2, 0]))
    assert [one.tolist() for one in found] == [[1, 4], [0, 2], [3]]
    assert members(np.array([], dtype=int)) == []
