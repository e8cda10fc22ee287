"""Self-attention over sequences of different lengths that lie one after the other."""

from typing import List

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from espnet_spire.units.matmul import linear

# On a CPU, sequences below have too little work a head for a product of its own.
_SHORT = {torch.float32: 256, torch.bfloat16: 512}


def attention(query: Tensor, key: Tensor, value: Tensor, lengths: List[int], heads: int) -> Tensor:
    """softmax(q kᵀ / √d) v within each sequence.

    Args:
        query, key, value: (frames of all sequences, heads * d).
        lengths: frames of each sequence.
        heads: number of heads.

    Returns:
        (frames of all sequences, heads * d).
    """
    if query.device.type != "cpu":
        return _padded(query, key, value, lengths, heads)
    output = torch.empty_like(query)
    parts = (tensor.split(lengths) for tensor in (query, key, value, output))
    for q, k, v, out in zip(*parts, strict=True):
        if len(q) >= _SHORT[q.dtype]:
            _by_head(q, k, v, out, heads)
        elif q.dtype == torch.bfloat16:
            _products(q, k, v, out, heads)
        else:
            out.copy_(_padded(q, k, v, [len(q)], heads))
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


def _products(query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int) -> None:
    """A short sequence: all heads at once."""
    frames, width = query.shape
    dim = width // heads
    query = (query * dim**-0.5).view(frames, heads, dim).transpose(0, 1)
    key = key.view(frames, heads, dim).permute(1, 2, 0)
    weights = torch.bmm(query, key).softmax(dim=-1)
    mixed = torch.bmm(weights, value.view(frames, heads, dim).transpose(0, 1))
    out.copy_(mixed.transpose(0, 1).reshape(frames, width))


def _padded(query: Tensor, key: Tensor, value: Tensor, lengths: List[int], heads: int) -> Tensor:
    """torch's fused attention over a padded batch; a mask only where lengths differ."""
    width = query.shape[1]

    def batch(tensor: Tensor) -> Tensor:
        rows = pad_sequence(tensor.split(lengths), batch_first=True)
        return rows.unflatten(2, (heads, width // heads)).transpose(1, 2)

    longest = max(lengths)
    counts = torch.tensor(lengths, device=query.device)
    inside = torch.arange(longest, device=query.device) < counts[:, None]
    mask = inside[:, None, None] if min(lengths) < longest else None
    mixed = functional.scaled_dot_product_attention(
        batch(query), batch(key), batch(value), attn_mask=mask
    )
    return mixed.transpose(1, 2).flatten(2)[inside]
