"""Features to units, and how sure each unit is."""

from typing import NamedTuple

import torch
from torch import Tensor

from espnet_spire.units.codebook import Codebook
from espnet_spire.units.matmul import linear

# A chunk's scores stay in the processor's cache: 512 frames of K = 5000 are 10 MB.
_CHUNK = 512
# Frames whose margin may be below _DOUBT, and those that rounding could decide, are looked at again
# in float64, with so many candidates.
_DOUBT = 1e-4
_ROUNDING = 1e-5
_NEAREST = 4


class Assigned(NamedTuple):
    """Units of some frames.

    ``units``: int64, (frames,). ``margins``: float64, (frames,): how far a frame lies from the
    plane between its two nearest centroids, as a share of the frame's own length; infinite where it
    is more than 1e-4. An error of the features below that share cannot change the unit.
    """

    units: Tensor
    margins: Tensor


class Assigner:
    """Nearest centroids of a codebook: argmax(x·c - ½‖c‖²).

    Products are float32 over centred centroids (a mean that all frames share would eat their
    precision); where the nearest few are close to each other they are compared in float64, so that
    the result is the nearest centroid of the features as they are, however the products were
    rounded. Of equal centroids the first is taken.
    """

    def __init__(self, codebook: Codebook, device: str = "cpu") -> None:
        exact = codebook.centroids.double()
        self.centroids = exact.to(device)
        self.mean = exact.mean(dim=0).float().to(device)
        centred = exact - self.mean.double().cpu()
        offsets = -0.5 * (centred * centred).sum(dim=1)
        _, first = torch.unique(exact, dim=0, return_inverse=True)
        order = torch.arange(len(exact))
        firsts = torch.full((int(first.max()) + 1,), len(exact)).scatter_reduce(
            0, first, order, "amin"
        )
        offsets[firsts[first] != order] = -torch.inf
        self.weight = centred.float().to(device)
        self.offsets = offsets.float().to(device)
        self.candidates = min(_NEAREST, len(firsts))

    def __call__(self, features: Tensor) -> Assigned:
        """Assign frames.

        Args:
            features: float32, (frames, D), on the device.

        Returns:
            units and margins on the CPU.
        """
        parts = [self._assign(chunk) for chunk in features.split(_CHUNK)]
        return Assigned(
            torch.cat([part.units for part in parts]).cpu(),
            torch.cat([part.margins for part in parts]).cpu(),
        )

    def _assign(self, features: Tensor) -> Assigned:
        centred = features - self.mean
        scores = linear(centred, self.weight, self.offsets)
        if self.candidates == 1:
            return Assigned(scores.argmax(dim=1), torch.full_like(scores[:, 0], torch.inf).double())
        best, nearest = scores.topk(2, dim=1)
        units = nearest[:, 0].contiguous()
        margins = torch.full_like(units, torch.inf, dtype=torch.float64)
        # ‖x - c‖² = ‖x‖² - 2 score; the distance of two centroids is at most the sum of both
        squares = centred.square().sum(dim=1)
        distances = (squares[:, None] - 2 * best).clamp_min(0).sqrt().sum(dim=1)
        doubtful = _DOUBT * features.norm(dim=1) * distances + _ROUNDING * squares
        close = (best[:, 0] - best[:, 1] <= doubtful).nonzero()[:, 0]
        if len(close):
            candidates = scores[close].topk(self.candidates, dim=1).indices
            units[close], margins[close] = self._compare(features[close], candidates)
        return Assigned(units, margins)

    def _compare(self, features: Tensor, candidates: Tensor) -> Assigned:
        """The nearest of some candidates (frames, n), in float64."""
        # sorted by index, so that of equally near ones the first is taken
        candidates = candidates.sort(dim=1).values
        exact = features.double()
        distances = (exact[:, None] - self.centroids[candidates]).square().sum(dim=2)
        ordered, order = distances.sort(dim=1, stable=True)
        nearest = candidates.gather(1, order)
        between = (self.centroids[nearest[:, 0]] - self.centroids[nearest[:, 1]]).norm(dim=1)
        gap = (ordered[:, 1] - ordered[:, 0]) / (2 * between)
        return Assigned(nearest[:, 0], gap / exact.norm(dim=1).clamp_min(1e-30))
