"""Plans of batches: completeness, resume, windows; pieces and shares of ranks."""

import json

import numpy as np
import pytest

from espnet_spire.train.packing import pack_best_fit
from espnet_spire.train.plan import Plan, PlanSettings, micro_batches, share_of_rank
from espnet_spire.utils.errors import SpireError

LENGTHS = np.random.default_rng(0).integers(5, 200, 1000)
SETTINGS = PlanSettings(
    sequence_length=256, batch_sequences=16, packing=True, seed=1, num_epochs=1.0, window=128
)


def make(lengths=LENGTHS, **changes):
    return Plan.build(lengths.__getitem__, len(lengths), SETTINGS._replace(**changes))


def listed(batches):
    return [[sequence.tolist() for sequence in batch] for batch in batches]


@pytest.mark.parametrize("window", [1, 7, 128, 999, 1000, 65536])
@pytest.mark.parametrize("packing", [True, False])
def test_each_example_once_in_a_pass(window, packing):
    plan = make(window=window, packing=packing)
    batches = list(plan.batches())
    assert len(batches) == plan.total_steps and plan.steps_per_pass == [plan.total_steps]
    sequences = [sequence for batch in batches for sequence in batch]
    assert sorted(np.concatenate(sequences).tolist()) == list(range(1000))
    assert all(0 < LENGTHS[sequence].sum() <= 256 for sequence in sequences)
    assert {len(batch) for batch in batches[:-1]} == {16} and 0 < len(batches[-1]) <= 16
    assert packing or all(len(sequence) == 1 for sequence in sequences)
    assert packing or len(sequences) == 1000


def test_efficiency_is_tokens_over_room():
    plan = make(window=1000)
    count = sum(len(batch) for batch in plan.batches())
    assert count == pack_best_fit(LENGTHS, 256).max() + 1
    assert plan.tokens == LENGTHS.sum()
    assert plan.efficiency == pytest.approx(LENGTHS.sum() / (count * 256))
    assert plan.efficiency > 0.95
    # The second pass is packed otherwise; a cut one counts as a whole.
    twice = make(num_epochs=1.1, window=1000)
    assert 0.95 < twice.efficiency < 1
    assert make(packing=False).efficiency is None


def test_larger_windows_pack_better():
    found = [make(window=window).efficiency for window in (4, 32, 1000)]
    assert found == sorted(found) and found[0] < 0.93


def test_steps_of_whole_and_broken_passes():
    lengths = np.full(100, 10)

    def steps(num_epochs):
        settings = {"batch_sequences": 10, "sequence_length": 10, "num_epochs": num_epochs}
        return make(lengths, **settings).steps_per_pass

    assert steps(2) == [10, 10]
    assert steps(1.34) == [10, 3]
    assert steps(0.5) == [5]
    assert steps(0.001) == [1]
    assert make(lengths, batch_sequences=7, sequence_length=20).steps_per_pass == [8]  # 50 / 7


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("window", [50, 65536])
def test_a_resumed_run_sees_the_rest_of_what_an_undisturbed_one_sees(packing, window):
    plan = make(num_epochs=2.5, packing=packing, window=window)
    undisturbed = listed(plan.batches())
    assert len(undisturbed) == plan.total_steps == sum(plan.steps_per_pass)
    first, second, _ = plan.steps_per_pass
    stored = json.loads(json.dumps(plan.to_json()))
    again = Plan.from_json(
        LENGTHS.__getitem__,
        1000,
        SETTINGS._replace(num_epochs=2.5, packing=packing, window=window),
        stored,
    )
    assert again.steps_per_pass == plan.steps_per_pass
    assert (again.tokens, again.efficiency) == (plan.tokens, plan.efficiency)
    last = plan.total_steps
    for start in {0, 1, 5, first - 1, first, first + 1, first + second, last - 1, last}:
        assert listed(again.batches(start)) == undisturbed[start:]


def test_a_later_start_packs_only_what_it_needs():
    asked = []

    def lengths(indices):
        asked.append(len(indices))
        return LENGTHS[indices]

    plan = Plan.build(lengths, 1000, SETTINGS)
    assert asked == [128] * 7 + [104]
    asked.clear()
    again = Plan.from_json(lengths, 1000, SETTINGS, plan.to_json())
    assert asked == []
    list(again.batches(again.total_steps - 1))
    assert asked == [104]


def test_plans_depend_on_seed_and_pass_only():
    def order(**changes):
        return listed(make(**changes).batches())

    assert order() == order()
    assert order() != order(seed=2)
    twice = make(num_epochs=2)
    both = listed(twice.batches())
    assert both[: twice.steps_per_pass[0]] == order()
    assert both[twice.steps_per_pass[0] :] != order()


@pytest.mark.parametrize("window", [5000, 777])
def test_every_step_is_a_fair_sample_of_lengths(window):
    # Short and long examples; packing puts like with like.
    draw = np.random.default_rng(1)
    lengths = np.concatenate([draw.integers(5, 20, 4000), draw.integers(100, 120, 1000)])
    plan = make(lengths, window=window)
    long = [np.mean(lengths[np.concatenate(batch)] >= 100) for batch in plan.batches()][:-1]
    assert len(long) > 30
    # A random sample of as many examples, 100 or more a step, deviates by 0.04.
    assert np.std(long) < 0.04 and abs(np.mean(long) - 0.2) < 0.02
    assert abs(np.corrcoef(long, range(len(long)))[0, 1]) < 0.5


def test_windows_are_about_as_large_as_steps():
    """Counted by what is asked for; the first is the sample that the size is taken from."""

    def windows(count, **changes):
        asked = []

        def lengths(indices):
            asked.append(len(indices))
            return np.full(len(indices), 64)

        Plan.build(lengths, count, SETTINGS._replace(window=None, **changes))
        return asked[1:]

    # 16 sequences of 256 tokens hold 64 examples of 64: the smallest window.
    assert windows(700) == [256, 256, 188]
    # 32 of 1024 hold 512, and so many there must be.
    assert windows(700, sequence_length=1024) == [512, 188]
    # 300 hold 1200, which is 2048 to the next power of two.
    assert windows(5000, batch_sequences=300) == [2048, 2048, 904]
    assert windows(700, batch_sequences=300, packing=False) == [512, 188]
    assert windows(70000, batch_sequences=10**6) == [65536, 4464]
    # Not more than 4096 windows.
    assert max(windows(1_100_000)) == 512


def test_mistakes():
    with pytest.raises(SpireError, match="no examples to train on"):
        make(LENGTHS[:0])
    long = LENGTHS.copy()
    long[123] = 257
    for packing in (True, False):
        with pytest.raises(
            SpireError,
            match="example 123 has 257 tokens, --sequence_length is 256; raise it or lower max_len",
        ):
            make(long, packing=packing)
    with pytest.raises(SpireError, match="batch_sequences is 0; it must be above 0"):
        make(batch_sequences=0)
    with pytest.raises(SpireError, match="num_epochs is -1"):
        make(num_epochs=-1)


def test_examples_that_have_changed_since():
    stored = make().to_json()
    plan = Plan.from_json((LENGTHS // 2 + 1).__getitem__, 1000, SETTINGS, stored)
    with pytest.raises(SpireError, match="not those that the plan of batches was made for"):
        list(plan.batches())


# Pieces -------------------------------------------------------------------------------------


def rows_of(lengths):
    """One sequence of one example a length."""
    return [np.array([number]) for number in range(len(lengths))], np.array(lengths)


def sizes(pieces, lengths):
    """Tokens of each piece, counting padding."""
    return [len(piece) * max(lengths[row[0]] for row in piece) for piece in pieces]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [250, 600, 5000, None])
def test_pieces_are_a_partition_within_the_limit(world_size, limit):
    sequences, lengths = rows_of(LENGTHS[:100])
    pieces = micro_batches(sequences, lengths, limit, world_size=world_size)
    rows = [int(row[0]) for piece in pieces for row in piece]
    assert sorted(rows) == list(range(100)) and all(pieces)
    assert limit is None or max(sizes(pieces, lengths)) <= limit
    assert len(pieces) % world_size == 0 or len(pieces) == 100
    # The longest first: what fits in memory then fits later on.
    assert [lengths[row] for row in rows] == sorted(lengths[rows], reverse=True)


def test_pieces_pad_little():
    sequences, lengths = rows_of(LENGTHS[:300])
    pieces = micro_batches(sequences, lengths, 2000)
    assert lengths.sum() / sum(sizes(pieces, lengths)) > 0.9


def test_no_limit_is_one_piece_a_rank():
    sequences, lengths = rows_of([10] * 12)
    assert [len(piece) for piece in micro_batches(sequences, lengths, None)] == [12]
    found = micro_batches(sequences, lengths, None, world_size=4)
    assert [len(piece) for piece in found] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "count, limit, world_size, counts",
    [
        # Full rows, two to a piece: 8 pieces for 16; three ranks want 9.
        (16, 200, 1, [2] * 8),
        (16, 200, 3, [1, 1, 2, 2, 2, 2, 2, 2, 2]),
        (16, 200, 8, [2] * 8),
        # As even as can be where a larger piece was allowed.
        (16, 1000, 2, [8, 8]),
        (16, 300, 4, [2] * 8),
        (9, 800, 1, [4, 5]),
        # Fewer rows than ranks: one row each, the rest of the ranks is idle.
        (3, 1000, 8, [1, 1, 1]),
        # A row that is longer than the limit goes alone.
        (3, 50, 1, [1, 1, 1]),
    ],
)
def test_pieces_of_equal_rows_by_hand(count, limit, world_size, counts):
    sequences, lengths = rows_of([100] * count)
    pieces = micro_batches(sequences, lengths, limit, world_size=world_size)
    assert sorted(len(piece) for piece in pieces) == counts


def test_the_largest_piece_is_as_small_as_it_can_be():
    # Two pieces of 100 90 20 20 20 20 within 400: {100 90} {20 20 20 20} has the least padding.
    sequences, lengths = rows_of([20, 100, 20, 20, 90, 20])
    pieces = micro_batches(sequences, lengths, 400)
    assert sizes(pieces, lengths) == [200, 80]
    assert micro_batches([], np.array([]), 400) == []


@pytest.mark.parametrize("count, world", [(1, 1), (1, 4), (5, 2), (6, 3), (7, 8)])
def test_all_ranks_get_as_many_pieces_and_every_piece_once(count, world):
    pieces = [[np.array([2 * i]), np.array([2 * i + 1])] for i in range(count)]
    shares = [share_of_rank(pieces, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-count // world)}
    rows = [row for share in shares for piece in share for row in piece]
    assert sorted(np.concatenate(rows).tolist()) == list(range(2 * count))
