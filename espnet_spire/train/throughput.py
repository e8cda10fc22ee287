"""How much arithmetic a step is, and how much the machine could do."""

import re
import time
from typing import NamedTuple, Optional

import numpy as np
import torch

from espnet_spire.utils.errors import SpireError

# Dense bfloat16 operations a second of tensor cores, from the makers' data sheets, by words in the
# device's name; the first that fits counts.
GPU_PEAK_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "A40": 149.7,
    "A6000": 154.8,
    "RTX 6000 Ada": 364.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "A10": 125.0,
}


class ModelSize(NamedTuple):
    """What the arithmetic of a decoder depends on.

    ``matrices``: parameters that each token is multiplied with, embeddings and head left out;
    ``trained_matrices``: those of them that get a gradient (fewer under LoRA); ``head``: hidden
    size × rows of the output matrix; ``attention``: layers × width of all query heads.
    """

    matrices: int
    trained_matrices: int
    head: int
    attention: int


def model_size(lm) -> ModelSize:
    """Sizes of a Hugging Face causal LM; partitioned (ZeRO-3) parameters count in full."""
    ends = (lm.get_input_embeddings(), lm.get_output_embeddings())
    tables = {id(parameter) for end in ends for parameter in end.parameters()}
    matrices = trained = 0
    for parameter in lm.parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        if id(parameter) in tables or len(shape) < 2:
            continue
        size = int(np.prod(shape))
        matrices += size
        trained += size if parameter.requires_grad else 0
    config = lm.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return ModelSize(
        matrices,
        trained,
        config.hidden_size * config.vocab_size,
        config.num_hidden_layers * config.num_attention_heads * head_dim,
    )


def step_flops(size: ModelSize, lengths: np.ndarray, num_targets: int) -> float:
    """Operations that one step needs, forward and backward; recomputation does not count.

    Twice the parameters a token forward, as much for gradients of activations, and as much for
    those of trained matrices; causal attention within each document; the head at targets only.

    Args:
        lengths: tokens of each document of the step.
        num_targets: tokens that carry loss.
    """
    tokens = float(lengths.sum())
    body = (4.0 * size.matrices + 2.0 * size.trained_matrices) * tokens
    attention = 6.0 * size.attention * float((lengths.astype(np.float64) ** 2).sum())
    return body + attention + 6.0 * size.head * num_targets


def peak_flops(device: torch.device, dtype: torch.dtype, tflops: Optional[float]) -> float:
    """Operations a second that one device could do at best; 0.0 where nobody knows.

    A GPU's are looked up by its name (bfloat16 only), a CPU's are measured with a matrix product.

    Args:
        tflops: what the user says it is (``--peak_tflops``), in 1e12 a second.
    """
    if tflops is not None:
        if tflops <= 0:
            raise SpireError(f"--peak_tflops {tflops}: must be above 0")
        return tflops * 1e12
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        fitting = (t for w, t in GPU_PEAK_TFLOPS.items() if re.search(rf"\b{w}\b", name))
        known = next(fitting, 0.0)
        return known * 1e12 if dtype == torch.bfloat16 else 0.0
    if device.type != "cpu":
        return 0.0
    return _measured(dtype)


def _measured(dtype: torch.dtype, size: int = 1024, seconds: float = 0.2) -> float:
    """The best of as many matrix products as fit into ``seconds``."""
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        left @ right
        finished = time.perf_counter()
        best = min(best, finished - started)
        if finished > end:
            return 2.0 * size**3 / best


def memory_gib(device: torch.device) -> float:
    """The most memory that this process has used: of its GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
