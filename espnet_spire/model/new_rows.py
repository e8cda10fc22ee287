"""Training of the new rows alone of both embedding matrices, for LoRA.

The old rows stay in the frozen matrix, bit for bit; the new ones, which end the matrix, are a
parameter of their own. (peft's ``trainable_token_indices`` copies the whole matrix in each
forward pass, and under ZeRO-3 it needs CUDA.)
"""

from typing import List

import torch
from torch.nn.functional import embedding, linear

from espnet_spire.utils.errors import SpireError


class NewRowsEmbedding(torch.nn.Module):
    """An input embedding whose rows from ``first`` on are trained.

    Args:
        base_layer: the embedding, not trained.
        first: id of the first new token.
        new_rows: shape (V - first, D).
    """

    def __init__(
        self, base_layer: torch.nn.Embedding, first: int, new_rows: torch.nn.Parameter
    ) -> None:
        super().__init__()
        if type(base_layer) is not torch.nn.Embedding and not hasattr(base_layer, "embed_scale"):
            raise SpireError(f"LoRA does not know the embedding {type(base_layer).__name__}")
        self.base_layer = base_layer.requires_grad_(False)
        self.first = first
        self.new_rows = new_rows

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Rows of the ids, of shape ``input_ids.shape + (D,)``."""
        old = self.base_layer(input_ids)
        new = embedding((input_ids - self.first).clamp(min=0), self.new_rows)
        scale = getattr(self.base_layer, "embed_scale", None)  # Gemma's
        if scale is not None:
            new = new * torch.as_tensor(scale).to(new)
        return torch.where((input_ids >= self.first).unsqueeze(-1), new, old)


class NewRowsHead(torch.nn.Module):
    """An output matrix whose rows from ``first`` on are trained; see :class:`NewRowsEmbedding`."""

    def __init__(
        self, base_layer: torch.nn.Linear, first: int, new_rows: torch.nn.Parameter
    ) -> None:
        super().__init__()
        if base_layer.bias is not None:
            raise SpireError("LoRA does not know an output matrix with a bias")
        self.base_layer = base_layer.requires_grad_(False)
        self.first = first
        self.new_rows = new_rows

    def blocks(self) -> List[torch.Tensor]:
        """Old and new rows of the matrix."""
        return [self.base_layer.weight[: self.first], self.new_rows]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, of shape ``hidden.shape[:-1] + (V,)``."""
        return torch.cat([linear(hidden, block) for block in self.blocks()], dim=-1)
