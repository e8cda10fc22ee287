"""The nearest of many centres, as fast as the machine multiplies matrices.

float32: argmax(x·c - ½‖c‖²), one matrix product and one pass over the scores.

bfloat16: products of bfloat16 numbers are summed in float32, but come out rounded to 8 bits, and
scores of neighbouring centres differ by less than that. So the norms go into the product as
further columns, together with half of a square radius r²: what comes out is ½(r² - ‖x - c‖²). With
r² about the distance to the nearest centre, this is near 0 where it matters, and 8 bits of a small
number are plenty.
"""

from typing import Iterator, NamedTuple

import torch
from torch import Tensor

from espnet_spire.units.matmul import linear

# A number is written as a sum of this many bfloat16 numbers: 24 bits, as many as float32 has.
_PARTS = 3
_ALIGNMENT = 32
# The scores of that many rows stay in the cache until their maximum is known.
_ROWS_CPU, _ROWS_GPU = 1024, 16384


class Nearest(NamedTuple):
    """``labels``: int64, (n,); ``distances``: square distances, float32, (n,), rounded as the
    products were."""

    labels: Tensor
    distances: Tensor


def row_chunks(count: int, device: torch.device) -> Iterator[slice]:
    """Slices of at most as many rows as one matrix product should take."""
    rows = _ROWS_CPU if device.type == "cpu" else _ROWS_GPU
    for first in range(0, count, rows):
        yield slice(first, min(first + rows, count))


def square_norms(rows: Tensor) -> Tensor:
    """‖x‖² of each row, float32, (n,)."""
    rows = rows.float()
    return torch.linalg.vecdot(rows, rows)


def square_distances(rows: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """‖x - c‖² of each row and the centre that ``labels`` names, in float32, (n,)."""
    result = torch.empty(len(rows), device=centres.device)
    for part in row_chunks(len(rows), centres.device):
        result[part] = square_norms(
            rows[part].to(centres.device, torch.float32) - centres[labels[part]]
        )
    return result


def widened_dim(dim: int) -> int:
    """Columns of a matrix that holds vectors of ``dim`` numbers and the parts of two scalars."""
    return -(-(dim + 2 * _PARTS) // _ALIGNMENT) * _ALIGNMENT


def widened_rows(rows: Tensor) -> Tensor:
    """Frames with room for the square radius, which :func:`set_radius` fills in.

    Args:
        rows: (n, D), any floating type.

    Returns:
        bfloat16, (n, :func:`widened_dim` of D).
    """
    dim = rows.shape[1]
    wide = torch.zeros(len(rows), widened_dim(dim), dtype=torch.bfloat16, device=rows.device)
    wide[:, :dim] = rows
    wide[:, dim + _PARTS : dim + 2 * _PARTS] = 1
    return wide


def set_radius(wide: Tensor, dim: int, norms: Tensor, square_radius) -> None:
    """Put ½(r² - ‖x‖²) into widened rows; ``norms`` are those of the rounded rows."""
    wide[:, dim : dim + _PARTS] = _parts(0.5 * (square_radius - norms))


def widened_centres(centres: Tensor) -> Tensor:
    """The other side of the product with :func:`widened_rows`: bfloat16, (K, wide)."""
    dim = centres.shape[1]
    wide = torch.zeros(len(centres), widened_dim(dim), dtype=torch.bfloat16, device=centres.device)
    wide[:, :dim] = centres
    wide[:, dim : dim + _PARTS] = 1
    wide[:, dim + _PARTS : dim + 2 * _PARTS] = _parts(-0.5 * square_norms(wide[:, :dim]))
    return wide


def _parts(values: Tensor) -> Tensor:
    """bfloat16 numbers, (n, 3), that sum to ``values``."""
    columns = []
    for _ in range(_PARTS):
        column = values.to(torch.bfloat16)
        columns.append(column)
        values = values - column.float()
    return torch.stack(columns, dim=1)


def row_maximum(scores: Tensor) -> Nearest:
    """Index of the largest value of each row, and that value.

    On the CPU by numpy, whose vector code finds the largest of 16-bit integers a hundred times
    faster than torch that of bfloat16: positive ones are ordered as their bits are, and so are,
    the other way round, rows of negative ones only.
    """
    if scores.device.type != "cpu":
        values, index = scores.max(dim=1)
        return Nearest(index, values.float())
    if scores.dtype != torch.bfloat16:
        index = torch.from_numpy(scores.numpy().argmax(axis=1))
        return Nearest(index, scores.gather(1, index[:, None])[:, 0])
    bits = scores.view(torch.int16)
    index = torch.from_numpy(bits.numpy().argmax(axis=1))
    negative = (bits.gather(1, index[:, None])[:, 0] < 0).nonzero()[:, 0]
    if len(negative):
        index[negative] = torch.from_numpy(bits[negative].numpy().argmin(axis=1))
    return Nearest(index, scores.gather(1, index[:, None])[:, 0].float())


class Rows:
    """Frames ready for products of one type, for those who look at them more than once.

    Args:
        rows: (n, D), any floating type.
        dtype: float32 or bfloat16.
    """

    def __init__(self, rows: Tensor, dtype: torch.dtype) -> None:
        self.dim = rows.shape[1]
        self.matrix = widened_rows(rows) if dtype == torch.bfloat16 else rows.float()
        self.norms = torch.empty(len(rows), device=rows.device)
        for part in row_chunks(len(rows), rows.device):
            self.norms[part] = square_norms(self.matrix[part, : self.dim])


class NearestCentre:
    """Finds the nearest of K centres.

    Args:
        centres: float32, (K, D).
        dtype: float32 or bfloat16, of the products.
    """

    def __init__(self, centres: Tensor, dtype: torch.dtype) -> None:
        self.centres = centres
        self.dtype = dtype
        if dtype == torch.bfloat16:
            self._weight = widened_centres(centres)
        else:
            self._weight = centres
            self._bias = -0.5 * square_norms(centres)

    def __call__(self, frames: Tensor, square_radius: float) -> Nearest:
        """Nearest centres of frames.

        Args:
            frames: (n, D), any floating type, any device.
            square_radius: about the square distances to expect; the nearer, the more exact the
                choice in bfloat16. float32 needs none.
        """
        device = self.centres.device
        labels = torch.empty(len(frames), dtype=torch.int64, device=device)
        distances = torch.empty(len(frames), device=device)
        for part in row_chunks(len(frames), device):
            rows = Rows(frames[part].to(device), self.dtype)
            radius = torch.full_like(rows.norms, square_radius)
            labels[part], distances[part] = self.of(rows, slice(None), radius)
        return Nearest(labels, distances)

    def of(self, rows: Rows, part: slice, square_radii: Tensor) -> Nearest:
        """Nearest centres of ``rows[part]``; ``square_radii``: one for each of them."""
        matrix, norms = rows.matrix[part], rows.norms[part]
        if self.dtype == torch.bfloat16:
            set_radius(matrix, rows.dim, norms, square_radii)
            labels, best = row_maximum(linear(matrix, self._weight))
            return Nearest(labels, (square_radii - 2 * best).clamp_min(0))
        labels, best = row_maximum(linear(matrix, self._weight, self._bias))
        return Nearest(labels, (norms - 2 * best).clamp_min(0))

    def gains(self, rows: Rows, square_distances: Tensor) -> Tensor:
        """By how much each centre alone would lower the sum of square distances; float32, (K,).

        Args:
            square_distances: of the first rows to the centres that there are already; so many
                rows are looked at.
        """
        total = torch.zeros(len(self.centres), device=self.centres.device)
        for part in row_chunks(len(square_distances), self.centres.device):
            matrix, norms, before = rows.matrix[part], rows.norms[part], square_distances[part]
            if self.dtype == torch.bfloat16:
                set_radius(matrix, rows.dim, norms, before)
                scores = linear(matrix, self._weight).float()
            else:
                scores = linear(matrix, self._weight, self._bias)
                scores += 0.5 * (before - norms)[:, None]
            total += scores.clamp_min_(0).sum(dim=0)
        return 2 * total
