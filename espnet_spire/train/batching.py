"""Which examples make which step: a pure function of lengths, budgets and seed."""

from typing import List, NamedTuple, Optional

import numpy as np

from espnet_spire.utils.errors import SpireError


class BatchBudget(NamedTuple):
    """What one optimizer step may hold, over all ranks.

    ``tokens``: padded tokens; ``examples``: sequences; either may be ``None``.
    """

    tokens: Optional[int]
    examples: Optional[int]


def _fill(order: np.ndarray, lengths: np.ndarray, budget: BatchBudget) -> List[np.ndarray]:
    """Cut ``order`` into batches that respect the budget."""
    batches, start, longest = [], 0, 0
    for position, index in enumerate(order):
        longest_with = max(longest, int(lengths[index]))
        count = position - start + 1
        full = (budget.tokens is not None and longest_with * count > budget.tokens) or (
            budget.examples is not None and count > budget.examples
        )
        if full and count > 1:
            batches.append(order[start:position])
            start, longest = position, int(lengths[index])
        else:
            longest = longest_with
    if start < len(order):
        batches.append(order[start:])
    return batches


def plan_pass(
    lengths: np.ndarray, budget: BatchBudget, *, seed: int, epoch: int, window: int = 100
) -> List[np.ndarray]:
    """Batches of one pass over the data, each example once.

    Examples are shuffled, sorted by length inside windows of about ``window`` batches (little
    padding), cut into batches, and the batches are shuffled.

    Args:
        lengths: tokens of each example, shape (N,).
        budget: of one batch.
        seed, epoch: the same pair gives the same plan.

    Returns:
        index arrays, one for each step.
    """
    if len(lengths) == 0:
        raise SpireError("there are no examples to train on")
    if budget.tokens is not None and int(lengths.max()) > budget.tokens:
        raise SpireError(
            f"an example has {int(lengths.max())} tokens, --batch_tokens is {budget.tokens};"
            " raise it or lower max_length of the mixture"
        )
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    per_batch = budget.examples or len(lengths)
    if budget.tokens is not None:
        per_batch = min(per_batch, max(1, int(budget.tokens / lengths.mean())))
    batches: List[np.ndarray] = []
    for start in range(0, len(order), per_batch * window):
        chunk = order[start : start + per_batch * window]
        batches += _fill(chunk[np.argsort(lengths[chunk], kind="stable")], lengths, budget)
    return [batches[index] for index in rng.permutation(len(batches))]


def micro_batches(
    batch: np.ndarray, lengths: np.ndarray, micro_tokens: Optional[int]
) -> List[np.ndarray]:
    """Split one step's batch into pieces of at most ``micro_tokens`` padded tokens."""
    if micro_tokens is None:
        return [batch]
    ordered = batch[np.argsort(lengths[batch], kind="stable")]
    return _fill(ordered, lengths, BatchBudget(micro_tokens, None))


def share_of_rank(pieces: List[np.ndarray], rank: int, world_size: int) -> List[np.ndarray]:
    """The micro-batches of one rank; every rank gets the same number.

    Where they do not divide evenly, empty ones fill up: collective operations need all ranks.
    """
    rounds = -(-len(pieces) // world_size)
    empty = pieces[0][:0]
    padded = pieces + [empty] * (rounds * world_size - len(pieces))
    return padded[rank::world_size]
