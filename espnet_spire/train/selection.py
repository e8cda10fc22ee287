"""What a budget keeps: the first examples in a random order, found without holding them all.

An example's place in the order is :func:`sample_hash`. A histogram over the places tells in which
bucket the budget ends; the examples of that bucket alone are sorted.
"""

import hashlib
from typing import Callable, Iterable, NamedTuple, Optional

import numpy as np

# Of each example that could be kept, beside its part: its place in the order, its tokens, those
# of them that are learned, and which of the part's languages it is in.
FACTS = np.dtype([("place", "<u8"), ("length", "<i4"), ("targets", "<i4"), ("lang", "<i4")])
_BITS = 16
EVERYTHING = 2**64


class Limits(NamedTuple):
    """``None``: no limit."""

    max_tokens: Optional[int]
    max_examples: Optional[int]


def sample_hash(seed: int, source: str, key: str) -> int:
    """64 random bits that depend on nothing else: a key's place in a random order."""
    digest = hashlib.blake2b(f"{seed}\t{source}\t{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def sample_position(seed: int, source: str, key: str) -> float:
    """:func:`sample_hash` as a number in [0, 1)."""
    return (sample_hash(seed, source, key) >> 11) / 2**53


def find_border(facts: Callable[[], Iterable[np.ndarray]], limits: Limits) -> int:
    """The place below which examples are kept.

    Kept are the first in the order as long as their number and their tokens are within the limits;
    the first that does not fit ends it.

    Args:
        facts: gives arrays of :data:`FACTS`; called twice.
        limits: budgets.

    Returns:
        from 0 to 2**64: all with a smaller place are kept.
    """
    if limits.max_tokens is None and limits.max_examples is None:
        return EVERYTHING
    tokens = np.zeros(2**_BITS, np.int64)
    examples = np.zeros(2**_BITS, np.int64)
    for array in facts():
        bucket = _bucket(array)
        # sums of integers below 2**53 are exact
        tokens += np.bincount(bucket, array["length"], len(tokens)).astype(np.int64)
        examples += np.bincount(bucket, minlength=len(examples))
    over = [
        int(np.searchsorted(np.cumsum(counts), limit, side="right"))
        for counts, limit in ((tokens, limits.max_tokens), (examples, limits.max_examples))
        if limit is not None
    ]
    border = min(over)
    if border == len(tokens):
        return EVERYTHING
    inside = np.concatenate([array[_bucket(array) == border] for array in facts()])
    inside = inside[np.argsort(inside["place"], kind="stable")]
    fits = np.ones(len(inside), dtype=bool)
    if limits.max_tokens is not None:
        fits &= tokens[:border].sum() + np.cumsum(inside["length"]) <= limits.max_tokens
    if limits.max_examples is not None:
        fits &= examples[:border].sum() + np.arange(1, len(inside) + 1) <= limits.max_examples
    # the border lies in this bucket, so at least one does not fit
    return int(inside["place"][int(np.argmin(fits))])


def _bucket(array: np.ndarray) -> np.ndarray:
    return (array["place"] >> np.uint64(64 - _BITS)).astype(np.int64)


def kept(array: np.ndarray, border: int) -> np.ndarray:
    """Which examples are kept; boolean, shape (N,)."""
    if border >= EVERYTHING:
        return np.ones(len(array), dtype=bool)
    return array["place"] < np.uint64(border)


def uniform_limits(limits: Limits, number: int) -> Limits:
    """The limits of each of ``number`` languages that share a budget evenly, rounded down."""
    return Limits(*(None if limit is None else limit // number for limit in limits))
