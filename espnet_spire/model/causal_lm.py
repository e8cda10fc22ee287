"""A causal LM with the loss that SPIRE trains, and its shell for ESPnet."""

from typing import Dict, NamedTuple, Tuple

import torch
from espnet2.train.abs_espnet_model import AbsESPnetModel

from espnet_spire.train.examples import IGNORE


class LossOutput(NamedTuple):
    """``loss_sum``: scalar, summed over target tokens; ``example_loss``: the same for each row,
    shape (B,), without gradient; ``example_targets``: target tokens of each row, shape (B,)."""

    loss_sum: torch.Tensor
    example_loss: torch.Tensor
    example_targets: torch.Tensor


class CausalLMLoss(torch.nn.Module):
    """Next-token cross entropy, *summed*: the trainer knows the global batch, a batch does not.

    Logits are computed at target positions only, which in instruction tuning is a small part.

    Args:
        lm: a Hugging Face causal LM.
    """

    def __init__(self, lm) -> None:
        super().__init__()
        self.lm = lm

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> LossOutput:
        """All of shape (B, L); labels are not shifted, -100 carries no loss."""
        hidden = self.lm.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        targets = labels[:, 1:]
        is_target = targets != IGNORE
        logits = self.lm.get_output_embeddings()(hidden[:, :-1][is_target]).float()
        losses = torch.nn.functional.cross_entropy(logits, targets[is_target], reduction="none")
        per_example = torch.zeros(len(labels), device=losses.device).index_add(
            0, is_target.nonzero()[:, 0], losses.detach()
        )
        return LossOutput(losses.sum(), per_example, is_target.sum(dim=1))


class SpireShell(AbsESPnetModel):
    """What AbsTask holds in place of the LLM.

    AbsTask moves a full float32 copy of its model to each device before training starts. The
    trainer builds the LLM itself, so AbsTask gets this: a name and one placeholder parameter.
    """

    def __init__(self, model_name: str) -> None:
        super().__init__()
        self.model_name = model_name
        self.placeholder = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, **batch: torch.Tensor
    ) -> Tuple[torch.Tensor, Dict[str, torch.Tensor], torch.Tensor]:
        raise RuntimeError("the LLM is built and called by SpireTrainer, not through this shell")

    def collect_feats(self, **batch: torch.Tensor) -> Dict[str, torch.Tensor]:
        raise RuntimeError("SpireTask has no features to collect")

    def extra_repr(self) -> str:
        return f"placeholder for {self.model_name}, which SpireTrainer builds"
