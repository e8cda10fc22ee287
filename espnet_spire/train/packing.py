"""Examples to sequences of a given length, each example whole in one sequence."""

from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from espnet_spire.utils.errors import SpireError

# Room that best fit may leave before the second way is tried as well.
_WASTE = 0.01


class _Placed(NamedTuple):
    """``size`` examples of one length, ``repeat`` to a sequence, from sequence ``start`` on."""

    length: int
    start: int
    repeat: int
    size: int


def pack_best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The number of the sequence that each example goes into.

    Best-fit decreasing: the longest example first, each into the fullest sequence that still has
    room for it. That leaves room where there are no short examples to fill gaps with; then
    sequences that are filled to the last token are looked for as well, and the fewer sequences
    win. All examples of one length are treated at once, so that the work grows with the number of
    different lengths.

    Args:
        lengths: tokens of each example, at least 1, shape (n,).
        capacity: tokens of a sequence.

    Returns:
        int64, shape (n,): numbers 0 … sequences-1, each of them used.

    Raises:
        SpireError: an example is longer than a sequence.

    Example:
        >>> pack_best_fit(np.array([3, 8, 7, 2]), 10).tolist()
        [1, 0, 1, 0]
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) == 0:
        return np.empty(0, dtype=np.int64)
    longest, shortest = int(lengths.max()), int(lengths.min())
    if longest > capacity:
        raise SpireError(f"an example has {longest} tokens, a sequence {capacity}")
    if shortest < 1:
        raise ValueError(f"an example of {shortest} tokens")
    counts = np.bincount(lengths, minlength=capacity + 1)
    opened, placed = _best_fit(counts, capacity)
    if int(lengths.sum()) < (1 - _WASTE) * opened * capacity:
        fewer, filled = _exact_fill(counts, capacity)
        placed = filled if fewer < opened else placed
    # Both by length now, what was placed and the examples; those of one length as they came.
    placed.sort(key=lambda some: -some.length)
    order = np.argsort(-lengths, kind="stable")
    _, starts, repeats, sizes = np.array(placed, dtype=np.int64).T
    firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    within = (np.arange(len(order)) - firsts) // np.repeat(repeats, sizes)
    bins = np.empty(len(order), dtype=np.int64)
    bins[order] = np.repeat(starts, sizes) + within
    return bins


def members(bins: np.ndarray) -> List[np.ndarray]:
    """The examples of each sequence, ascending, from the sequence of each example."""
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins)).tolist()
    return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _best_fit(counts: np.ndarray, capacity: int) -> Tuple[int, List[_Placed]]:
    """Best-fit decreasing of ``counts[n]`` examples of each length n; how many sequences, what."""
    placed: List[_Placed] = []
    # Runs of sequences (first, end) by the room that is left in them, and which room any has:
    # bit r of `rooms` for room r. The smallest room of at least n is one lowest bit away.
    runs: Dict[int, List[Tuple[int, int]]] = {}
    rooms = 0
    opened = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        count = int(counts[length])
        while count:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                stack = runs[room]
                first, end = stack.pop()
                if not stack:
                    rooms ^= 1 << room
            else:
                room, first = capacity, opened
                opened += -(-count // (capacity // length))
                end = opened
            # A sequence that has just been given an example has the least room of those that fit:
            # it takes the next ones of this length as well, as long as they fit.
            repeat = room // length
            used = min(end - first, -(-count // repeat))
            size = min(count, used * repeat)
            placed.append(_Placed(length, first, repeat, size))
            count -= size
            whole, rest = divmod(size, repeat)
            for start, stop, left in (
                (first, first + whole, room - repeat * length),
                (first + whole, first + used, room - rest * length),
                (first + used, end, room),
            ):
                if start < stop and left:
                    runs.setdefault(left, []).append((start, stop))
                    rooms |= 1 << left
    return opened, placed


def _exact_fill(counts: np.ndarray, capacity: int) -> Tuple[int, List[_Placed]]:
    """Sequence after sequence, filled to the last token where that can be.

    The longest example that fits, again and again, until two examples are left that fill the
    sequence; of such pairs the one that there are most of, so that lengths are used up evenly.
    What has been found for one sequence is done as often as there are examples for it.
    """
    counts = counts.copy()
    shortest = int(np.flatnonzero(counts)[0])
    placed: List[_Placed] = []
    opened = 0
    while (left := np.flatnonzero(counts)).size:
        pattern: Dict[int, int] = {}
        room = capacity
        while at := int(np.searchsorted(left, room, side="right")):
            longest = int(left[at - 1])
            chosen = (longest,)
            if pattern and longest < room and room >= 2 * shortest:
                chosen = _fullest_pair(counts, room, shortest) or chosen
            for length in chosen:
                pattern[length] = pattern.get(length, 0) + 1
                counts[length] -= 1
                room -= length
                if not counts[length]:
                    left = left[left != length]
        more = min(int(counts[length]) // repeat for length, repeat in pattern.items())
        for length, repeat in pattern.items():
            counts[length] -= more * repeat
            placed.append(_Placed(length, opened, repeat, (more + 1) * repeat))
        opened += more + 1
    return opened, placed


def _fullest_pair(counts: np.ndarray, room: int, shortest: int) -> Tuple[int, ...]:
    """Two lengths that together are ``room``, those that most pairs can be made of; or nothing."""
    some = counts[shortest : room - shortest + 1]
    pairs = np.minimum(some, some[::-1])
    if room % 2 == 0:
        pairs[room // 2 - shortest] //= 2
    best = int(pairs.argmax())
    return (shortest + best, room - shortest - best) if pairs[best] else ()
