"""Self-attention over sequences of different lengths that lie one after the other."""

from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional

from espnet_spire.units.layout import Layout
from espnet_spire.units.matmul import linear

# On a CPU, float32 sequences below have too little work a head for a product of its own; bfloat16
# ones take so many heads at once that their weights stay in the cache.
_SHORT = 256
_HEADS = 4


def attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout, heads: int) -> Tensor:
    """softmax(q kᵀ / √d) v within each sequence.

    Args:
        query, key, value: (frames of all sequences, heads * d).
        layout: of the sequences.
        heads: number of heads.

    Returns:
        (frames of all sequences, heads * d).
    """
    if query.device.type != "cpu":
        return _padded(query, key, value, layout, heads)
    output = torch.empty_like(query)
    parts = (tensor.split(layout.lengths) for tensor in (query, key, value, output))
    for q, k, v, out in zip(*parts, strict=True):
        if q.dtype == torch.bfloat16:
            _by_heads(q, k, v, out, heads)
        elif len(q) >= _SHORT:
            _by_head(q, k, v, out, heads)
        else:
            out.copy_(_fused(q[None], k[None], v[None], None, heads)[0])
    return output


def _by_head(query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int) -> None:
    """A long sequence: a head's weights stay in the cache between its two products."""
    frames, width = query.shape
    dim = width // heads
    query = (query * dim**-0.5).view(frames, heads, dim).transpose(0, 1).contiguous()
    key = key.view(frames, heads, dim).transpose(0, 1).contiguous()
    value = value.view(frames, heads, dim).permute(1, 2, 0).contiguous()
    for head in range(heads):
        weights = linear(query[head], key[head]).softmax(dim=-1)
        out[:, head * dim : (head + 1) * dim] = linear(weights, value[head])


def _by_heads(query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int) -> None:
    """The same with batched products of a few heads."""
    frames, width = query.shape
    dim = width // heads
    query = (query * dim**-0.5).view(frames, heads, dim).transpose(0, 1).contiguous()
    key = key.view(frames, heads, dim).permute(1, 2, 0).contiguous()
    value = value.view(frames, heads, dim).transpose(0, 1).contiguous()
    out = out.view(frames, heads, dim)
    for first in range(0, heads, _HEADS):
        some = slice(first, first + _HEADS)
        weights = torch.bmm(query[some], key[some]).softmax(dim=-1)
        out[:, some] = torch.bmm(weights, value[some]).transpose(0, 1)


def _padded(query: Tensor, key: Tensor, value: Tensor, layout: Layout, heads: int) -> Tensor:
    """All sequences in one padded batch: few, large pieces of work, as GPUs want them."""
    mask = None if layout.mask is None else layout.mask[:, None, None]
    padded = (layout.pad(tensor) for tensor in (query, key, value))
    return layout.unpad(_fused(*padded, mask, heads))


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor], heads: int) -> Tensor:
    """torch's own attention over (sequences, frames, heads * d)."""

    def by_head(tensor: Tensor) -> Tensor:
        return tensor.unflatten(2, (heads, -1)).transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(
        by_head(query), by_head(key), by_head(value), attn_mask=mask
    )
    return mixed.transpose(1, 2).flatten(2)
