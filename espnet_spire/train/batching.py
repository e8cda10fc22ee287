"""Which examples make which step: a pure function of lengths, budgets and seed."""

from typing import List, NamedTuple, Optional

import numpy as np

from espnet_spire.utils.errors import SpireError


class BatchBudget(NamedTuple):
    """What one optimizer step may hold, over all ranks.

    ``tokens``: tokens without padding; ``examples``: sequences; either may be ``None``.
    """

    tokens: Optional[int]
    examples: Optional[int]


def plan_pass(
    lengths: np.ndarray, budget: BatchBudget, *, seed: int, epoch: int
) -> List[np.ndarray]:
    """Batches of one pass over the data, each example once.

    Batches are cut from one random order, so that each step sees a fair sample of all tasks and
    lengths; padding is kept small by :func:`micro_batches`.

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
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    batches, start, tokens = [], 0, 0
    for position, index in enumerate(order):
        tokens += int(lengths[index])
        too_long = budget.tokens is not None and tokens > budget.tokens
        too_many = budget.examples is not None and position - start + 1 > budget.examples
        if too_long or too_many:
            batches.append(order[start:position])
            start, tokens = position, int(lengths[index])
    batches.append(order[start:])
    return batches


def micro_batches(
    batch: np.ndarray, lengths: np.ndarray, micro_tokens: Optional[int]
) -> List[np.ndarray]:
    """Split one step's batch into pieces of similar length.

    Args:
        batch: indices of the step's examples.
        lengths: tokens of each example, shape (N,).
        micro_tokens: tokens of a piece at most, counting padding; an example that is longer is a
            piece of its own. ``None`` for one piece.
    """
    if micro_tokens is None:
        return [batch]
    ordered = batch[np.argsort(lengths[batch], kind="stable")]
    pieces, start = [], 0
    for position, index in enumerate(ordered):
        # Lengths ascend: the newest example is the padded length.
        if position > start and (position - start + 1) * int(lengths[index]) > micro_tokens:
            pieces.append(ordered[start:position])
            start = position
    pieces.append(ordered[start:])
    return pieces


def share_of_rank(pieces: List[np.ndarray], rank: int, world_size: int) -> List[np.ndarray]:
    """The micro-batches of one rank; every rank gets the same number.

    Where they do not divide evenly, empty ones fill up: collective operations need all ranks.
    """
    rounds = -(-len(pieces) // world_size)
    empty = pieces[0][:0]
    padded = pieces + [empty] * (rounds * world_size - len(pieces))
    return padded[rank::world_size]
