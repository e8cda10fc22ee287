"""DeepSpeed around the language model: its settings, the optimizer, the engine."""

from typing import Any, Dict, List

import torch

from espnet_spire.train.options import TrainingOptions
from espnet_spire.train.pairs import KdWeights
from espnet_spire.utils.atomic import PathLike, read_json
from espnet_spire.utils.errors import SpireError

# Options of spire_train decide these; two places that say it would contradict each other.
OURS = (
    "optimizer",
    "scheduler",
    "gradient_clipping",
    "bf16",
    "fp16",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "checkpoint",
)


def read_deepspeed_config(path: PathLike, *, dtype: str, clip: float) -> Dict[str, Any]:
    """DeepSpeed's JSON with what our options decide filled in.

    ``train_micro_batch_size_per_gpu`` and ``gradient_accumulation_steps`` are 1: batches are made
    by sequences, and the trainer marks where a step ends.

    Raises:
        SpireError: the file decides what an option of ours decides, names no ZeRO stage of 0-3, or
            stage 0 or 1 for bfloat16.
    """
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("zero_optimization", {}), dict):
        raise SpireError(f"{path}: not a DeepSpeed configuration, which is a JSON object")
    for key in OURS:
        if key in config:
            raise SpireError(f"{path}: {key!r} is decided by options of spire_train; remove it")
    if zero_stage(config) not in (0, 1, 2, 3):
        raise SpireError(f"{path}: zero_optimization.stage must be 0, 1, 2 or 3")
    if dtype == "bfloat16" and zero_stage(config) < 2:
        # DeepSpeed 0.19 has other optimizers there: their float32 weights are not exact (0), their
        # gradients are whole on each rank and their checkpoints cannot be consolidated (1).
        raise SpireError(
            f"{path}: --dtype bfloat16 needs zero_optimization.stage 2 (conf/ds_zero2.json) or 3"
        )
    if dtype == "bfloat16":
        # DeepSpeed would add up the gradients of all micro-batches in bfloat16.
        config.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    config.update(
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        gradient_clipping=clip,
        bf16={"enabled": dtype == "bfloat16"},
        zero_allow_untested_optimizer=True,
        zero_force_ds_cpu_optimizer=False,
        steps_per_print=2**31,
    )
    return config


def zero_stage(config: Dict[str, Any]) -> Any:
    """ZeRO stage of a DeepSpeed configuration, 0 where it says nothing."""
    return config.get("zero_optimization", {}).get("stage", 0)


def parameter_groups(network: torch.nn.Module, weight_decay: float) -> List[Dict[str, Any]]:
    """Trained parameters in two groups: matrices decay, vectors (norms, biases) do not."""
    trained = [p for p in network.parameters() if p.requires_grad]
    # Under ZeRO-3 a parameter's own shape is that of its placeholder: (0,).
    ranks = {p: len(getattr(p, "ds_shape", p.shape)) for p in trained}
    groups = [
        {"params": [p for p in trained if ranks[p] > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if ranks[p] <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_engine(options: TrainingOptions, config: Dict[str, Any], device: torch.device):
    """Load the language model and give it to DeepSpeed; the process group must exist.

    Returns:
        the engine, whose module is a ``CausalLMLoss``.

    Raises:
        SpireError: the model cannot be trained in packed rows, or in this way.
    """
    import deepspeed
    from pydantic import ValidationError
    from transformers.integrations import HfDeepSpeedConfig

    from espnet_spire.model.causal_lm import CausalLMLoss, check_packing
    from espnet_spire.model.loading import load_lm

    # Under ZeRO-3 transformers partitions weights as long as this object lives; without it its
    # initialisation is skipped in silence.
    keep_alive = HfDeepSpeedConfig(config)
    lm = load_lm(
        options.model,
        dtype=options.dtype,
        attention=options.attention,
        gradient_checkpointing=options.gradient_checkpointing,
        lora=options.lora,
        zero3=zero_stage(config) == 3,
    )
    network = CausalLMLoss(
        lm,
        fused=options.fused_loss,
        loss_chunk_tokens=options.loss_chunk_tokens,
        kd_weights=KdWeights(*options.kd_weights),
    )
    optimizer = torch.optim.AdamW(
        parameter_groups(network, options.weight_decay),
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_eps,
    )
    try:
        engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"]))
        raise SpireError(
            f"{options.deepspeed_config}: DeepSpeed refuses {where}: {what['msg']}"
        ) from None
    engine.hf_deepspeed_config = keep_alive
    check_packing(engine, lm, device)
    return engine


def unclipped_norm(engine) -> float:
    """Norm of the gradient that is about to be used under ZeRO 0, where DeepSpeed tells none."""
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
