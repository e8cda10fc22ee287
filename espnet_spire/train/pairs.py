"""Pairs of documents for distillation: speech → translation, transcript → the same translation.

A pair is one example, so that both documents lie in one row and one forward pass: the ids of the
student's document (which reads units), then those of the teacher's (which reads the transcript).
In ``target_spans`` a span of no width, ``[n, n]``, says that the teacher's document begins at n.
The tokens of both answers are the same ids, so the k-th target of one belongs to the k-th of the
other; they are counted once.

Source: the multi-task training of the GMU systems (arXiv 2505.21781), there with SeamlessM4T.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.train.examples import Ragged, Tokens

# The task of such examples, in mixtures and in data sets.
PAIRED = "st_kd"


class KdWeights(NamedTuple):
    """Weights of cross entropy after speech, of that after the transcript, and of the divergence
    of both distributions; the defaults are those of the GMU systems."""

    st: float = 1.0
    mt: float = 1.0
    kd: float = 2.0


GMU_WEIGHTS = KdWeights()


def answer_of(tokens: Tokens) -> List[int]:
    """The ids that are learned."""
    spans = tokens.spans or []
    borders = zip(spans[::2], spans[1::2], strict=True)
    return [token for start, end in borders for token in tokens.ids[start:end]]


def join_pairs(
    students: Tuple[Ragged, Ragged], teachers: Tuple[Ragged, Ragged]
) -> Tuple[Ragged, Ragged]:
    """``input_ids`` and ``target_spans`` of pairs from those of both documents, row by row."""
    ids, spans = students
    twin_ids, twin_spans = teachers
    begins = np.diff(ids.offsets)
    marks = Ragged(np.repeat(begins, 2), 2 * np.arange(len(begins) + 1))
    moved = twin_spans.values + np.repeat(begins, np.diff(twin_spans.offsets))
    return (
        _side_by_side(ids, twin_ids),
        _side_by_side(spans, marks, Ragged(moved, twin_spans.offsets)),
    )


def _side_by_side(*parts: Ragged) -> Ragged:
    """Rows that begin with the row of the first part and end with that of the last."""
    sizes = np.stack([np.diff(part.offsets) for part in parts], axis=1)
    rows = len(sizes)
    # Where each row of each part begins in the result, row after row.
    begins = np.concatenate([[0], np.cumsum(sizes.reshape(-1))])
    values = np.empty(begins[-1], np.int32)
    for number, part in enumerate(parts):
        starts = begins[:-1].reshape(rows, len(parts))[:, number]
        shift = np.repeat(starts - part.offsets[:-1], sizes[:, number])
        values[np.arange(len(part.values)) + shift] = part.values
    return Ragged(values, begins[:: len(parts)].astype(np.int32))


def split_pair(
    ids: np.ndarray, spans: np.ndarray
) -> Optional[Sequence[Tuple[np.ndarray, np.ndarray]]]:
    """Ids and spans, shape (s, 2), of student and teacher; ``None`` if it is no sound pair.

    Args:
        ids: of the example, shape (n,).
        spans: of the example, shape (s, 2).
    """
    marks = np.flatnonzero(spans[:, 0] == spans[:, 1])
    if len(marks) != 1:
        return None
    begin = spans[marks[0], 0]
    documents = (
        (ids[:begin], spans[: marks[0]]),
        (ids[begin:], spans[marks[0] + 1 :] - begin),
    )
    answers = [[some[start:end] for start, end in where] for some, where in documents]
    if not all(answers) or not np.array_equal(*map(np.concatenate, answers)):
        return None
    return documents
