"""Settings of the CTC baseline."""

from dataclasses import dataclass
from typing import Optional

from espnet_spire.utils.errors import SpireError


@dataclass
class CtcConfig:
    """``conf/train_ctc.yaml``; the defaults are the paper's where it says something (Appendix B).

    ``batch_utterances``: of an update; ``micro_batch_utterances`` of them are in memory at a time
    on each device. ``head_size`` 0: as wide as the encoder. ``encoder_dropout`` and
    ``mask_time_prob`` (SpecAugment): by default what the encoder's own configuration says.
    ``dtype``: of products; ``auto`` is bfloat16 on GPUs, float32 else.
    """

    num_epochs: float = 50.0
    batch_utterances: int = 32
    micro_batch_utterances: int = 8
    learning_rate: float = 1e-4
    warmup_ratio: float = 0.15
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    dropout: float = 0.3
    encoder_dropout: Optional[float] = None
    mask_time_prob: Optional[float] = None
    head_layers: int = 3
    head_size: int = 0
    head_activation: str = "gelu"
    freeze_feature_encoder: bool = True
    min_char_count: int = 10
    max_seconds: float = 30.0
    eval_interval_steps: int = 5000
    num_workers: int = 4
    dtype: str = "auto"
    seed: int = 0

    def __post_init__(self):
        for name in ("num_epochs", "learning_rate", "grad_clip", "max_seconds"):
            if not getattr(self, name) > 0:
                raise SpireError(f"{name}: {getattr(self, name)} must be above 0")
        for name in ("batch_utterances", "micro_batch_utterances", "eval_interval_steps"):
            if getattr(self, name) < 1:
                raise SpireError(f"{name}: {getattr(self, name)}: at least 1 is needed")
        for name in ("weight_decay", "head_layers", "head_size", "num_workers", "min_char_count"):
            if getattr(self, name) < 0:
                raise SpireError(f"{name}: {getattr(self, name)} must not be negative")
        for name in ("warmup_ratio", "dropout", "encoder_dropout", "mask_time_prob"):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, float) and 0 <= value < 1):
                raise SpireError(f"{name}: {value} is not from 0 to below 1")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise SpireError(f"dtype: {self.dtype}: choose auto, float32 or bfloat16")
        if self.batch_utterances % self.micro_batch_utterances:
            raise SpireError(
                f"batch_utterances: {self.batch_utterances} is no multiple of"
                f" micro_batch_utterances ({self.micro_batch_utterances})"
            )
