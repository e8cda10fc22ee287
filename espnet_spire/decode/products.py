"""A model's matrix products at the speed of the processor, for a while."""

import contextlib
from functools import partial
from typing import Iterator

import torch
from torch import Tensor

from espnet_spire.units.matmul import linear, packed


class Products:
    """On a CPU, in float32, weights in the order that its kernels read them: a copy of all of them.

    Elsewhere torch's own products are as good, and nothing is copied or changed.

    Args:
        lm: a model whose products they are.
    """

    def __init__(self, lm: torch.nn.Module) -> None:
        slow = lm.device.type == "cpu" and lm.dtype == torch.float32
        layers = [m for m in lm.modules() if type(m) is torch.nn.Linear] if slow else []
        self._layers = [(m, partial(_product, packed(m.weight), m.bias)) for m in layers]

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the model computes so; behind it, as before."""
        for layer, product in self._layers:
            layer.forward = product
        try:
            yield
        finally:
            for layer, _ in self._layers:
                del layer.forward


def _product(weight: Tensor, bias, x: Tensor) -> Tensor:
    return linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
