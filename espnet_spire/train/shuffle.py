"""A random order of any size without an array of that size: where each position goes is computed.

A position is written as two digits (left, right) of nearly equal range; in each round one digit is
moved by a hash of the other (a generalised Feistel network, Black and Rogaway 2002). Each round can
be undone, so all of it is a bijection. What falls outside the size goes through once more. Integer
arithmetic only: the same order on every machine and with every version of numpy.
"""

from math import isqrt
from typing import Sequence

import numpy as np

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = 6


def permuted(positions: np.ndarray, size: int, key: Sequence[int]) -> np.ndarray:
    """Where the given positions of ``range(size)`` go in the random order of ``key``.

    Args:
        positions: integers in [0, size), shape (n,), any slice of the order.
        size: below 2**62.
        key: numbers that name the order, for example (seed, pass); another key, another order.

    Returns:
        int64, shape (n,); over all positions each number below ``size`` occurs once.

    Example:
        >>> sorted(permuted(np.arange(5), 5, (0, 1)).tolist())
        [0, 1, 2, 3, 4]
    """
    values = np.asarray(positions).astype(np.uint64)
    if size == 0 or len(values) == 0:
        return values.astype(np.int64)
    if int(values.max()) >= size:
        raise ValueError(f"position {int(values.max())} of an order of {size}")
    rows = isqrt(size - 1) + 1
    columns = -(-size // rows)
    keys = _round_keys(key)
    result = _network(values, rows, columns, keys)
    # rows * columns is barely more than size: few positions, seldom more than once.
    outside = np.flatnonzero(result >= np.uint64(size))
    while len(outside):
        result[outside] = _network(result[outside], rows, columns, keys)
        outside = outside[result[outside] >= np.uint64(size)]
    return result.astype(np.int64)


def dealt(size: int, parts: int, key: Sequence[int]) -> np.ndarray:
    """An order of ``range(size)`` in which any ``parts`` in a row are a sample of the whole range.

    The range is cut into so many equal parts; one random number of each, then another of each …
    Some in a row of one such turn come from parts all over the range as well, so that a step that
    begins with the last of one window and ends with the first of the next is no exception.

    Returns:
        int64, shape (size,).
    """
    shuffled = permuted(np.arange(size), size, key)
    part = shuffled * min(parts, size) // size
    by_part = np.argsort(part, kind="stable")
    counts = np.bincount(part)
    turn = np.empty(size, dtype=np.int64)
    turn[by_part] = np.arange(size) - np.repeat(np.cumsum(counts) - counts, counts)
    # Multiples of the golden ratio, modulo 1, are spread evenly however many are taken.
    spread = part.astype(np.uint64) * np.uint64(_STEP)
    return shuffled[np.lexsort((spread, turn))]


def _network(values: np.ndarray, rows: int, columns: int, keys: Sequence[int]) -> np.ndarray:
    left, right = np.divmod(values, np.uint64(columns))
    for left_key, right_key in zip(keys[::2], keys[1::2], strict=True):
        left = _moved(left, _hashed(right, left_key), rows)
        right = _moved(right, _hashed(left, right_key), columns)
    return left * np.uint64(columns) + right


def _moved(digits: np.ndarray, hashes: np.ndarray, radix: int) -> np.ndarray:
    """Digits plus a share of ``radix`` picked by the hashes' upper 32 bits, modulo ``radix``."""
    moved = digits + (((hashes >> np.uint64(32)) * np.uint64(radix)) >> np.uint64(32))
    return np.where(moved >= np.uint64(radix), moved - np.uint64(radix), moved)


def _hashed(values: np.ndarray, key: int) -> np.ndarray:
    """SplitMix64's finaliser of values + key; arrays of uint64 wrap around without a warning."""
    mixed = values + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _round_keys(key: Sequence[int]) -> list:
    """Two 64-bit keys for each round; (1, 2), (2, 1) and (1, 2, 0) give different ones."""
    state = len(key)
    for number in key:
        state = int(_hashed(np.array([state], dtype=np.uint64), (number * _STEP) & _MASK)[0])
    starts = np.full(2 * _ROUNDS, state, dtype=np.uint64)
    counts = np.arange(1, 2 * _ROUNDS + 1, dtype=np.uint64) * np.uint64(_STEP)
    return [int(number) for number in _hashed(starts + counts, 0)]
