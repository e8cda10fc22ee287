"""Units against distances written out; what rounding could decide is in test_fast_parts."""

import numpy as np
import torch

from espnet_spire.units.assign import Assigner
from espnet_spire.units.codebook import Codebook


def test_nearest_by_hand():
    assign = Assigner(Codebook(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 1.0]]), {}))
    # (6, 0) is nearer to the long centroid, (4, 0) to the origin: the norms count
    features = torch.tensor([[6.0, 0.0], [4.0, 0.0], [0.0, 0.6], [0.0, 0.4]])
    units, margins = assign(features)
    assert units.tolist() == [1, 0, 2, 0]
    assert units.dtype == torch.int64
    assert torch.isinf(margins).all()


def test_nearest_is_the_brute_force_one():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.2, 3, 40)[:, None]
    book = torch.randn(40, 16, generator=generator) * scale
    features = torch.randn(1100, 16, generator=generator)  # more than a chunk
    distance = np.linalg.norm(features.numpy()[:, None] - book.numpy()[None], axis=2)
    units = Assigner(Codebook(book, {}))(features).units
    assert units.tolist() == distance.argmin(axis=1).tolist()
    assert units.equal(torch.cdist(features, book).argmin(dim=1))
    assert len(set(units.tolist())) > 10
