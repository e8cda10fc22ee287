"""The shell of a language model that ESPnet holds in its place."""

from typing import Dict, Tuple

import torch
from espnet2.train.abs_espnet_model import AbsESPnetModel


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
