"""Tensors of packed rows, worked out by hand."""

import numpy as np
import torch

from espnet_spire.train.collate import Document, collate

I = -100  # noqa: E741


def document(ids, *spans):
    return Document(np.array(ids, dtype=np.int32), np.array(spans, dtype=np.int32))


def test_two_rows_by_hand():
    rows = [
        [document([1, 11, 12, 2], (2, 4)), document([1, 21, 22], (1, 3))],
        [document([1, 31, 32, 33, 2], (1, 2), (4, 5))],
    ]
    batch = collate(rows, pad_id=9)
    assert all(tensor.dtype == torch.int64 for tensor in batch)
    assert batch.input_ids.tolist() == [[1, 11, 12, 2, 1, 21, 22], [1, 31, 32, 33, 2, 9, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1]]
    assert batch.labels.tolist() == [[I, I, 12, 2, I, 21, 22], [I, 31, I, I, 2, I, I]]
    assert batch.documents.tolist() == [[0, 0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 2, 3, 3]]


def test_one_document_a_row_is_a_padded_batch():
    # An end token that was written is learnt, padding with the same id is not.
    batch = collate([[document([5, 2, 9], (1, 3))], [document([7, 2], (1, 2))]], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 2, 9], [7, 2, 2]]
    assert batch.labels.tolist() == [[I, 2, 9], [I, 2, I]]
    assert batch.documents.tolist() == [[0, 0, 0], [1, 1, 2]]


def test_no_rows_are_a_row_of_padding():
    batch = collate([], pad_id=4)
    assert batch.input_ids.tolist() == [[4, 4]]
    assert batch.position_ids.tolist() == [[0, 1]]
    assert batch.labels.tolist() == [[I, I]]
    assert batch.documents.tolist() == [[0, 0]]  # there are no documents: padding has number 0


def test_examples_in_a_file_cannot_be_changed_through_the_tensors():
    ids = np.array([1, 2, 3], dtype=np.int32)
    ids.setflags(write=False)
    collate([[Document(ids, np.array([[1, 3]]))]], pad_id=0).input_ids.zero_()
    assert ids.tolist() == [1, 2, 3]
