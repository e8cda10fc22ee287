"""Matrix products at the speed of the machine.

torch hands float32 products on x86 to MKL, which on processors that are not Intel's leaves half
of the vector units idle; oneDNN, which torch also ships, does not. The operator is the one that
torch's own compiler emits; where it is missing, ``torch.nn.functional.linear`` does the work. The
choice depends on the machine alone, never on a measurement: the same machine, the same bits.
"""

from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional

_USUAL_ROWS = 2048


@lru_cache(maxsize=1)
def _onednn():
    """torch's linear layer on oneDNN, or ``None``."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        sample = torch.ones(1, 2)
        with torch.no_grad():
            product = operator(sample, torch.ones(1, 2), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    return operator if product.item() == 2.0 else None


def linear(
    x: Tensor, weight: Tensor, bias: Optional[Tensor] = None, *, gelu: bool = False
) -> Tensor:
    """``x @ weight.T + bias``, then GELU (the exact one) if asked; no gradients.

    Args:
        x: (rows, in), float32 or bfloat16.
        weight: (out, in), of the same type, or what :func:`packed` made of it.
        bias: (out,), of the same type.
        gelu: apply the activation in the same pass.

    Returns:
        (rows, out); sums are kept in float32.
    """
    operator = _onednn() if x.device.type == "cpu" else None
    if operator is not None:
        activation = ("gelu", [], "none") if gelu else ("none", [], "")
        return operator(x, weight, bias, *activation)
    output = functional.linear(x, weight, bias)
    return functional.gelu(output) if gelu else output


def packed(weight: Tensor) -> Tensor:
    """The weight in the order that the processor's kernels read it, for :func:`linear` alone.

    A copy of the same size. In bfloat16 a product takes about a sixth less time; in float32 the
    gain is small.
    """
    if weight.device.type != "cpu" or _onednn() is None:
        return weight
    try:
        # The second argument is the number of rows to expect; other numbers give the same result.
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)
    except (AttributeError, RuntimeError):
        return weight
