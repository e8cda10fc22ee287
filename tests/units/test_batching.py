import numpy as np
import pytest

from espnet_spire.units.batching import batches


def utterances(lengths):
    return [(f"u{number}", np.zeros(length)) for number, length in enumerate(lengths)]


def lengths_of(result):
    return [[len(samples) for _, samples in batch] for batch in result]


def test_by_hand():
    # sorted 1 2 3 9: 1 and 2 pad to 4, with 3 it would be 9 > 6
    assert lengths_of(batches(utterances([3, 1, 9, 2]), max_samples=6)) == [[1, 2], [3], [9]]


def test_nothing():
    assert list(batches([], max_samples=10)) == []


@pytest.mark.parametrize("window", [1, 7, 256])
def test_each_utterance_once_and_budget_kept(window):
    lengths = np.random.default_rng(0).integers(1, 120, 300)
    result = list(batches(utterances(lengths), max_samples=400, window=window))
    keys = [key for batch in result for key, _ in batch]
    assert sorted(keys) == sorted(f"u{number}" for number in range(300))
    for batch in lengths_of(result):
        assert len(batch) * max(batch) <= 400
    long = lengths_of(batches(utterances([500, 3]), max_samples=400, window=window))
    assert [500] in long


def test_a_window_at_a_time_is_read():
    read = []

    def source():
        for utterance in utterances([5] * 10):
            read.append(utterance[0])
            yield utterance

    next(batches(source(), max_samples=10, window=4))
    assert len(read) == 4
