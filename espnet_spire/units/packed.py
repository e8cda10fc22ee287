"""HuBERT's and wav2vec 2.0's transformer over sequences that lie one after the other.

Nothing is padded: products and norms run over the frames of all sequences at once, attention and
the positional convolution within each. The residual stream is float32 in either precision; in
bfloat16 only the products are, with float32 sums.
"""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional

from espnet_spire.units.attention import attention
from espnet_spire.units.layout import Layout
from espnet_spire.units.matmul import linear, packed
from espnet_spire.units.position import PositionalConvolution


class _Linear(NamedTuple):
    weight: Tensor
    bias: Optional[Tensor]

    @classmethod
    def of(cls, module: torch.nn.Linear, dtype: torch.dtype) -> "_Linear":
        weight = module.weight.detach()
        return cls(
            # in float32 the module's own weights, which are kept for the plain way as well
            weight if dtype == torch.float32 else packed(weight.to(dtype)),
            None if module.bias is None else module.bias.detach().to(dtype),
        )

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=gelu)


class _Block(NamedTuple):
    query: _Linear
    key: _Linear
    value: _Linear
    out: _Linear
    norm: torch.nn.LayerNorm
    wide: _Linear
    narrow: _Linear
    final_norm: torch.nn.LayerNorm


def can_pack(config) -> bool:
    """Whether :class:`PackedTransformer` computes what a model of this configuration does."""
    return (
        config.model_type in ("hubert", "wav2vec2")
        and config.hidden_act == "gelu"
        and config.feat_extract_activation == "gelu"
        and not getattr(config, "conv_pos_batch_norm", False)
        and getattr(config, "adapter_attn_dim", None) is None
    )


class PackedTransformer:
    """``feature_projection`` and the blocks of ``encoder`` of a transformers model.

    Args:
        model: float32 ``HubertModel`` or ``Wav2Vec2Model`` whose stack ends with block L.
        dtype: of the products.
    """

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        config = model.config
        self.dtype = dtype
        self.heads = config.num_attention_heads
        self.pre_norm = config.do_stable_layer_norm
        projection = model.feature_projection
        self.input_norm = getattr(projection, "layer_norm", None)
        self.projection = _Linear.of(projection.projection, dtype)
        self.position = PositionalConvolution(model.encoder.pos_conv_embed)
        self.first_norm = model.encoder.layer_norm
        self.blocks = [self._block(layer) for layer in model.encoder.layers]

    def _block(self, layer: torch.nn.Module) -> _Block:
        heads, wide = layer.attention, layer.feed_forward
        return _Block(
            query=_Linear.of(heads.q_proj, self.dtype),
            key=_Linear.of(heads.k_proj, self.dtype),
            value=_Linear.of(heads.v_proj, self.dtype),
            out=_Linear.of(heads.out_proj, self.dtype),
            norm=layer.layer_norm,
            wide=_Linear.of(wide.intermediate_dense, self.dtype),
            narrow=_Linear.of(wide.output_dense, self.dtype),
            final_norm=layer.final_layer_norm,
        )

    def _norm(self, norm: torch.nn.LayerNorm, hidden: Tensor) -> Tensor:
        return functional.layer_norm(
            hidden.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps
        )

    def _attend(self, block: _Block, hidden: Tensor, layout: Layout) -> Tensor:
        mixed = attention(
            block.query(hidden), block.key(hidden), block.value(hidden), layout, self.heads
        )
        return block.out(mixed)

    def __call__(self, frames: Tensor, lengths: List[int]) -> Tensor:
        """The residual stream after the last block.

        Args:
            frames: (frames of all sequences, channels of the front end).
            lengths: frames of each sequence.

        Returns:
            float32, (frames of all sequences, D).
        """
        layout = Layout(lengths, frames.device)
        if self.input_norm is not None:
            frames = self._norm(self.input_norm, frames)
        hidden = self.projection(frames.to(self.dtype)).float()
        hidden = hidden + self.position(hidden, layout)
        if not self.pre_norm:
            hidden = self._norm(self.first_norm, hidden)
        for block in self.blocks:
            if self.pre_norm:
                hidden += self._attend(block, self._norm(block.norm, hidden).to(self.dtype), layout)
                inner = self._norm(block.final_norm, hidden).to(self.dtype)
                hidden += block.narrow(block.wide(inner, gelu=True))
            else:
                hidden = hidden + self._attend(block, hidden.to(self.dtype), layout)
                hidden = self._norm(block.norm, hidden)
                hidden = hidden + block.narrow(block.wide(hidden.to(self.dtype), gelu=True))
                hidden = self._norm(block.final_norm, hidden)
        return hidden
