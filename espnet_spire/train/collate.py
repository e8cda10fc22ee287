"""Packed rows of documents to tensors; a row of one document is an ordinary padded row."""

from typing import NamedTuple, Sequence

import numpy as np
import torch

from espnet_spire.train.examples import IGNORE


class Document(NamedTuple):
    """What is attended to as a whole, and nothing beyond it.

    ``input_ids``: integers, shape (n,). ``target_spans``: integers, shape (s, 2): the positions
    [start, end) of the ids that are to be predicted; position 0 is in none.
    """

    input_ids: np.ndarray
    target_spans: np.ndarray


class PackedRows(NamedTuple):
    """All int64, shape (B, L), padded on the right.

    ``input_ids``. ``position_ids``: from 0 in each document, and from 0 in the padding.
    ``labels``: not shifted; the id itself where it is to be predicted, -100 elsewhere, at the
    first token of each document and in the padding too. ``documents``: number of the document
    within the batch, row by row; in the padding the number of all documents.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    documents: torch.Tensor


def collate(rows: Sequence[Sequence[Document]], pad_id: int) -> PackedRows:
    """Join documents to rows and pad rows to the longest.

    No rows give one row of two padding tokens without labels: a rank with nothing to do still
    takes part in collective operations.

    Args:
        rows: the documents of each row.
        pad_id: id that fills up.
    """
    lengths = [sum(len(document.input_ids) for document in row) for row in rows]
    shape = (len(rows), max(lengths)) if rows else (1, 2)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    documents = np.full(shape, sum(map(len, rows)), dtype=np.int64)
    positions = np.arange(shape[1])
    number = 0
    for row, members in enumerate(rows):
        start = 0
        for document in members:
            end = start + len(document.input_ids)
            input_ids[row, start:end] = document.input_ids
            position_ids[row, start:end] = positions[: end - start]
            documents[row, start:end] = number
            for first, last in document.target_spans:
                labels[row, start + first : start + last] = document.input_ids[first:last]
            start, number = end, number + 1
    for row, end in enumerate(lengths or [0]):
        position_ids[row, end:] = positions[: shape[1] - end]
    return PackedRows(*map(torch.from_numpy, (input_ids, position_ids, labels, documents)))
