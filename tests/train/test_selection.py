"""Which examples a budget keeps, against sorting all of them."""

import hashlib

import numpy as np
import pytest

from espnet_spire.train.selection import (
    EVERYTHING,
    FACTS,
    Limits,
    find_border,
    kept,
    sample_hash,
    sample_position,
    uniform_limits,
)


def facts(places, lengths):
    array = np.zeros(len(places), FACTS)
    array["place"], array["length"] = places, lengths
    return array


def chosen(arrays, tokens=None, examples=None):
    border = find_border(lambda: iter(arrays), Limits(tokens, examples))
    return [np.flatnonzero(kept(array, border)).tolist() for array in arrays]


def test_by_hand():
    # fractions of 2**64: the order is 1, 3, 0, 2
    places = [int(share * 2**64) for share in (0.5, 0.1, 0.9, 0.3)]
    array = facts(np.array(places, np.uint64), [10, 20, 30, 40])

    def some(tokens, examples):
        return chosen([array], tokens, examples)[0]

    assert some(None, None) == [0, 1, 2, 3]
    assert some(None, 2) == [1, 3]
    assert some(None, 0) == []
    assert some(60, None) == [1, 3]
    assert some(59, None) == [1]
    assert some(19, None) == []
    assert some(70, None) == [0, 1, 3]
    assert some(60, 3) == [1, 3]
    assert some(10**9, 1) == [1]
    assert some(100, None) == [0, 1, 2, 3]
    assert some(99, None) == [0, 1, 3]
    # an example that does not fit ends it, although a later one would
    assert some(25, None) == [1]


def plainly(places, lengths, tokens, examples):
    order = np.argsort(places, kind="stable")
    fits = np.ones(len(order), bool)
    if tokens is not None:
        fits &= np.cumsum(lengths[order]) <= tokens
    if examples is not None:
        fits &= np.arange(len(order)) < examples
    return set(order[fits].tolist())


@pytest.mark.parametrize("spread", [2**64, 2**49, 2**47])
def test_against_sorting(spread):
    """With places close together, many share a bucket of the histogram."""
    draw = np.random.default_rng(0)
    places = draw.choice(spread >> 8, 500, replace=False).astype(np.uint64)
    places *= np.uint64(256)
    lengths = draw.integers(1, 50, 500)
    array = facts(places, lengths)
    parts = np.split(array, [0, 120, 121, 400])
    starts = np.cumsum([0] + [len(part) for part in parts])
    before = set()
    for tokens in range(0, int(lengths.sum()) + 80, 397):
        found = {
            int(start) + index
            for start, rows in zip(starts, chosen(parts, tokens), strict=False)
            for index in rows
        }
        assert found == plainly(places, lengths, tokens, None)
        assert before <= found
        assert {*chosen([array], tokens, 77)[0]} == plainly(places, lengths, tokens, 77)
        before = found
    for examples in (0, 1, 250, 499, 500, 501):
        assert {*chosen([array], None, examples)[0]} == plainly(places, lengths, None, examples)


def test_everything_and_nothing():
    none = np.empty(0, FACTS)
    assert find_border(lambda: [none], Limits(5, None)) == EVERYTHING
    assert kept(none, EVERYTHING).tolist() == []
    last = facts(np.array([2**64 - 1], np.uint64), [3])
    assert chosen([last], 3) == [[0]] and chosen([last], 2) == [[]]
    assert find_border(lambda: [last], Limits(3, None)) == EVERYTHING


def test_limits_of_languages():
    assert uniform_limits(Limits(10, None), 3) == Limits(3, None)
    assert uniform_limits(Limits(None, 540_000), 9) == Limits(None, 60_000)


def test_sample_positions_are_uniform_and_depend_on_all_three():
    positions = np.array([sample_position(0, "a", f"utt{i}") for i in range(4000)])
    assert 0 <= positions.min() and positions.max() < 1
    # Each tenth expects 400 ± 19 (binomial); five deviations are never seen.
    assert np.abs(np.histogram(positions, 10, (0, 1))[0] - 400).max() < 95
    assert sample_position(0, "a", "utt0") == positions[0]
    assert sample_position(1, "a", "utt0") != positions[0] != sample_position(0, "b", "utt0")


def test_the_hash_is_the_documented_one():
    digest = hashlib.blake2b(b"3\tsource\tkey", digest_size=8).digest()
    assert sample_hash(3, "source", "key") == int.from_bytes(digest, "big")
    assert (
        abs(sample_position(3, "source", "key") - sample_hash(3, "source", "key") / 2**64) < 1e-15
    )
