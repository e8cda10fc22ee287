"""Utterances to encoder batches: sorted by length inside a window, under a budget of samples."""

from typing import Any, Callable, Iterable, Iterator, List, Tuple

import numpy as np

Utterance = Tuple[str, np.ndarray]


def windows(
    items: Iterable[Any], *, size: Callable[[Any], int], most: int, most_items: int = 1024
) -> Iterator[List[Any]]:
    """Cut a stream into runs: each ends when its sizes reach ``most``, or with ``most_items``.

    The cuts depend on the items alone, so that a job that starts again cuts as before.

    >>> list(windows([3, 4, 5, 6], size=lambda item: item, most=7))
    [[3, 4], [5, 6]]
    """
    window: List[Any] = []
    total = 0
    for item in items:
        window.append(item)
        total += size(item)
        if total >= most or len(window) == most_items:
            yield window
            window, total = [], 0
    if window:
        yield window


def plan_batches(utterances: List[Utterance], max_samples: int) -> List[List[Utterance]]:
    """Group utterances, shortest first, so that a padded batch holds at most ``max_samples``.

    An utterance longer than the budget is a batch of its own.
    """
    result: List[List[Utterance]] = []
    for utterance in sorted(utterances, key=lambda pair: len(pair[1])):
        # Lengths ascend, so the newest utterance is the padded length.
        if not result or (len(result[-1]) + 1) * len(utterance[1]) > max_samples:
            result.append([])
        result[-1].append(utterance)
    return result


def batches(
    utterances: Iterable[Utterance], *, max_samples: int, window: int = 256
) -> Iterator[List[Utterance]]:
    """:func:`plan_batches` over a stream; at most ``window`` utterances are in memory."""
    for run in windows(utterances, size=lambda _: 0, most=1, most_items=window):
        yield from plan_batches(run, max_samples)
