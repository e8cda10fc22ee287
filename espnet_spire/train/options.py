"""All that a training obeys, as plain data."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence


@dataclass
class TrainingOptions:
    """One field an option of ``spire_train``; ``conf/train_cpt.yaml`` has the paper's values.

    Units: a *sequence* is what is packed up to ``sequence_length`` tokens; ``batch_sequences`` are
    those of one optimizer step over all ranks; ``micro_batch_tokens`` counts one forward pass of
    one rank, padding included.
    """

    output_dir: str
    model: str
    deepspeed_config: str
    seed: int
    dtype: str
    attention: str
    fused_loss: bool
    loss_chunk_tokens: Optional[int]
    kd_weights: Sequence[float]
    gradient_checkpointing: bool
    lora: Optional[Dict[str, Any]]
    num_epochs: float
    max_steps: Optional[int]
    sequence_length: int
    packing: bool
    batch_sequences: int
    micro_batch_tokens: Optional[int]
    learning_rate: float
    warmup_steps: int
    final_lr_ratio: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float
    clip_grad_norm: float
    save_interval_steps: int
    eval_interval_steps: int
    keep_checkpoints: int
    log_interval: int
    resume: bool
    restart_if_changed: bool
    use_tensorboard: bool
    peak_tflops: Optional[float]
    ngpu: int
