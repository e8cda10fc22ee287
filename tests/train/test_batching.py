"""Plans of batches: completeness, budgets, shares of ranks."""

import numpy as np
import pytest

from espnet_spire.train.batching import BatchBudget, micro_batches, plan_pass, share_of_rank
from espnet_spire.train.trainer import iter_batches, plan_steps
from espnet_spire.utils.errors import SpireError

LENGTHS = np.random.default_rng(0).integers(5, 200, 1000)


def padded(batch):
    return len(batch) * int(LENGTHS[batch].max())


@pytest.mark.parametrize("tokens, examples", [(1000, None), (None, 16), (1000, 7), (200, 3)])
def test_each_example_once_and_within_the_budget(tokens, examples):
    plan = plan_pass(LENGTHS, BatchBudget(tokens, examples), seed=1, epoch=0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(1000))
    for batch in plan:
        assert len(batch) > 0
        assert tokens is None or LENGTHS[batch].sum() <= tokens
        assert examples is None or len(batch) <= examples


def test_examples_alone_fill_every_batch_but_the_last():
    plan = plan_pass(LENGTHS, BatchBudget(None, 16), seed=1, epoch=0)
    assert len(plan) == 63 and sorted(map(len, plan))[0] == 1000 - 62 * 16


def test_a_batch_is_closed_only_when_the_next_example_does_not_fit():
    plan = plan_pass(LENGTHS, BatchBudget(1000, None), seed=1, epoch=0)
    for batch, following in zip(plan, plan[1:], strict=False):
        assert LENGTHS[batch].sum() + LENGTHS[following[0]] > 1000


def test_micro_batches_pad_little():
    plan = plan_pass(LENGTHS, BatchBudget(20000, None), seed=1, epoch=0)
    pieces = [piece for batch in plan for piece in micro_batches(batch, LENGTHS, 2000)]
    assert LENGTHS.sum() / sum(map(padded, pieces)) > 0.9


def test_plans_depend_on_seed_and_epoch_only():
    def plan(seed, epoch):
        budget = BatchBudget(1000, None)
        return [batch.tolist() for batch in plan_pass(LENGTHS, budget, seed=seed, epoch=epoch)]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1) != plan(2, 0) != plan(1, 0)
    # Not sorted by length: neighbours differ.
    longest = [LENGTHS[batch].max() for batch in plan(1, 0)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.5


def test_an_example_that_exceeds_the_budget_and_no_examples():
    with pytest.raises(SpireError, match="199 tokens, --batch_tokens is 100; raise it or lower"):
        plan_pass(LENGTHS, BatchBudget(100, None), seed=0, epoch=0)
    with pytest.raises(SpireError, match="no examples"):
        plan_pass(LENGTHS[:0], BatchBudget(100, None), seed=0, epoch=0)


def test_micro_batches_are_a_partition():
    batch = np.arange(100, 200)
    pieces = micro_batches(batch, LENGTHS, 600)
    assert sorted(np.concatenate(pieces).tolist()) == batch.tolist()
    assert all(padded(piece) <= 600 for piece in pieces) and len(pieces) > 10
    (single,) = micro_batches(batch, LENGTHS, None)
    assert single.tolist() == batch.tolist()
    # An example longer than a micro-batch goes alone.
    assert [len(piece) for piece in micro_batches(batch[:5], LENGTHS, 1)] == [1] * 5


@pytest.mark.parametrize("count, world", [(1, 1), (1, 4), (5, 2), (6, 3), (7, 8)])
def test_all_ranks_get_as_many_pieces_and_every_piece_once(count, world):
    pieces = [np.array([2 * i, 2 * i + 1]) for i in range(count)]
    shares = [share_of_rank(pieces, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-count // world)}
    together = np.concatenate([piece for share in shares for piece in share])
    assert sorted(together.tolist()) == list(range(2 * count))
    assert all(piece.dtype == pieces[0].dtype for share in shares for piece in share)


def test_steps_of_whole_and_broken_passes():
    lengths, budget = np.full(100, 10), BatchBudget(None, 10)
    assert plan_steps(lengths, budget, seed=0, num_epochs=2) == [10, 10]
    assert plan_steps(lengths, budget, seed=0, num_epochs=1.34) == [10, 3]
    assert plan_steps(lengths, budget, seed=0, num_epochs=0.5) == [5]
    assert plan_steps(lengths, budget, seed=0, num_epochs=0.001) == [1]


@pytest.mark.parametrize("start", [0, 1, 62, 63, 64, 90, 94, 95])
def test_a_resumed_run_sees_the_rest_of_what_an_undisturbed_one_sees(start):
    budget = BatchBudget(None, 16)
    steps = plan_steps(LENGTHS, budget, seed=5, num_epochs=1.5)
    assert steps == [63, 32]

    def batches(start):
        found = iter_batches(LENGTHS, budget, seed=5, steps=steps, start=start)
        return [batch.tolist() for batch in found]

    undisturbed = batches(0)
    assert len(undisturbed) == 95 and batches(start) == undisturbed[start:]
    assert (
        undisturbed[63:] == [b.tolist() for b in plan_pass(LENGTHS, budget, seed=5, epoch=1)][:32]
    )
