"""Utterances to encoder batches: sorted by length inside a window, under a budget of samples."""

from typing import Iterable, Iterator, List, Tuple

import numpy as np

Utterance = Tuple[str, np.ndarray]


def batches(
    utterances: Iterable[Utterance], *, max_samples: int, window: int = 256
) -> Iterator[List[Utterance]]:
    """Group utterances so that a padded batch holds at most ``max_samples`` samples.

    An utterance longer than the budget is a batch of its own. At most ``window`` utterances are
    in memory at a time.
    """
    pending: List[Utterance] = []
    for utterance in utterances:
        pending.append(utterance)
        if len(pending) == window:
            yield from _split(pending, max_samples)
            pending = []
    yield from _split(pending, max_samples)


def _split(utterances: List[Utterance], max_samples: int) -> Iterator[List[Utterance]]:
    batch: List[Utterance] = []
    for utterance in sorted(utterances, key=lambda pair: len(pair[1])):
        # Lengths ascend, so the newest utterance is the padded length.
        if batch and (len(batch) + 1) * len(utterance[1]) > max_samples:
            yield batch
            batch = []
        batch.append(utterance)
    if batch:
        yield batch
