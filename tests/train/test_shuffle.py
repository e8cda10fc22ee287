"""Random orders without arrays: bijections, slices, mixing, the same everywhere."""

from collections import Counter

import numpy as np
import pytest

from espnet_spire.train.shuffle import dealt, permuted


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 2**16, 2**16 + 1])
@pytest.mark.parametrize("key", [(0,), (7, 3), (-1, 2**70)])
def test_every_number_once(size, key):
    order = permuted(np.arange(size), size, key)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(size))


def test_nothing():
    assert permuted(np.array([], dtype=np.int64), 10, (0,)).tolist() == []
    assert permuted(np.arange(0), 0, (0,)).tolist() == []


def test_a_slice_is_a_slice_of_the_whole_order():
    whole = permuted(np.arange(1001), 1001, (1, 2))
    assert permuted(np.arange(500, 600), 1001, (1, 2)).tolist() == whole[500:600].tolist()
    assert permuted(np.array([1000, 0]), 1001, (1, 2)).tolist() == [whole[1000], whole[0]]
    with pytest.raises(ValueError, match="position 1001 of an order of 1001"):
        permuted(np.array([0, 1001]), 1001, (1, 2))


def test_a_part_of_a_huge_order():
    size = 2**45 + 3
    found = permuted(np.arange(size - 20000, size), size, (0, 0))
    assert len(set(found.tolist())) == 20000 and 0 <= found.min() and found.max() < size
    # Spread over the range: the mean of uniform numbers, within five of its standard deviations.
    assert abs(found.mean() / size - 0.5) < 5 * (1 / 12) ** 0.5 / 20000**0.5


def test_the_same_on_every_machine():
    # A change here would give resumed runs other data than they had.
    assert permuted(np.arange(10), 10, (3, 1)).tolist() == [2, 9, 3, 8, 4, 5, 1, 0, 7, 6]


def plain_order(size, key):
    """The same network on Python's integers, one position at a time."""

    def mix(value):
        value %= 2**64
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    state = len(key)
    for number in key:
        state = mix(state + number * 0x9E3779B97F4A7C15)
    keys = [mix(state + count * 0x9E3779B97F4A7C15) for count in range(1, 13)]
    rows = next(n for n in range(1, size + 1) if n * n >= size)
    columns = -(-size // rows)

    def once(value):
        left, right = divmod(value, columns)
        for number, key in enumerate(keys):
            if number % 2 == 0:
                left = (left + ((mix(right + key) >> 32) * rows >> 32)) % rows
            else:
                right = (right + ((mix(left + key) >> 32) * columns >> 32)) % columns
        return left * columns + right

    found = []
    for value in range(size):
        value = once(value)
        while value >= size:
            value = once(value)
        found.append(value)
    return found


@pytest.mark.parametrize("size", [7, 100, 257])
def test_equal_to_a_computation_one_number_at_a_time(size):
    assert permuted(np.arange(size), size, (12, 5)).tolist() == plain_order(size, (12, 5))


def chi_square(counts, expected):
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum())


def test_all_orders_of_a_few_occur_equally_often():
    # 24 orders, 23 degrees of freedom: above 60 once in thirty thousand times.
    found = Counter(tuple(permuted(np.arange(4), 4, (seed,)).tolist()) for seed in range(4800))
    assert len(found) == 24 and chi_square(list(found.values()), 200) < 60


def test_each_place_gets_each_number_equally_often():
    size, seeds = 30, 3000
    counts = np.zeros((size, size))
    for seed in range(seeds):
        counts[np.arange(size), permuted(np.arange(size), size, (seed, 0))] += 1
    # 29 * 29 = 841 degrees of freedom: standard deviation sqrt(2 * 841) = 41.
    assert abs(chi_square(counts, seeds / size) - 841) < 5 * 41


@pytest.mark.parametrize("size", [1000, 2**16 + 1, 20_000_000])
def test_neighbours_do_not_stay_together(size):
    positions = np.arange(min(size, 50000))
    order = permuted(positions, size, (4, 0)) / size
    deviation = 1 / len(positions) ** 0.5
    assert abs(np.corrcoef(order, positions)[0, 1]) < 5 * deviation
    for distance in (1, 2, int(size**0.5)):
        pair = np.corrcoef(order[distance:], order[:-distance])[0, 1]
        assert abs(pair) < 5 * deviation, distance
    # The 100 cells of (tenth of this one, tenth of the next) fill equally: 99 degrees of freedom.
    cells = np.floor(order[:-1] * 10) * 10 + np.floor(order[1:] * 10)
    counts = np.bincount(cells.astype(int), minlength=100)
    assert chi_square(counts, counts.mean()) < 99 + 5 * 198**0.5


def test_other_keys_other_orders():
    orders = [
        permuted(np.arange(500), 500, key)
        for key in ((0, 0), (0, 1), (1, 0), (0,), (0, 0, 0), (1, 1))
    ]
    agreeing = [np.mean(a == b) for n, a in enumerate(orders) for b in orders[n + 1 :]]
    assert max(agreeing) < 0.03  # one of 500 is expected


@pytest.mark.parametrize("size, parts", [(1, 5), (5, 5), (12, 4), (103, 16), (16, 1)])
def test_dealing(size, parts):
    order = dealt(size, parts, (3, 1, 4)).tolist()
    assert sorted(order) == list(range(size)) and dealt(size, parts, (3, 1, 4)).tolist() == order
    for start in range(0, size - parts + 1, parts):
        # One of each part, whose borders are multiples of size / parts.
        turn = [number * parts // size for number in order[start : start + parts]]
        assert sorted(turn) == list(range(parts))
    orders = [dealt(12, 4, (seed,)).tolist() for seed in range(300)]
    # Each of three that a part has comes first in a third of the orders: 100, deviation 8.
    for part in range(4):
        first = [n - 3 * part for found in orders for n in found[:4] if n // 3 == part]
        assert np.bincount(first, minlength=3).min() > 60
