"""A model directory to a causal LM that is ready for DeepSpeed, on each rank what it needs."""

import contextlib
import ctypes
import sys
from typing import Any, Dict, Iterator, Optional

import torch

from espnet_spire.model.attention import choose_attention, register_varlen
from espnet_spire.model.head import gathered
from espnet_spire.model.lora import add_lora, lora_settings
from espnet_spire.model.weights import DERIVED, Weight, stored_weights
from espnet_spire.text.vocabulary import read_spire_json
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError, model_error

_M_MMAP_THRESHOLD = -3  # malloc.h


def load_lm(
    model_dir: PathLike,
    *,
    dtype: str,
    attention: str = "auto",
    gradient_checkpointing: bool = False,
    lora: Optional[Dict[str, Any]] = None,
    zero3: bool = False,
):
    """Load an extended model for training.

    For ZeRO-3 the process group must exist and an ``HfDeepSpeedConfig`` must live: the model is
    then built in partitions and filled tensor by tensor, so that no rank ever holds all of it.

    Args:
        model_dir: Hugging Face directory with ``spire.json``.
        dtype: ``float32`` or ``bfloat16``, of the weights.
        attention: see :func:`~espnet_spire.model.attention.choose_attention`.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        lora: settings of :class:`~espnet_spire.model.lora.LoraSettings`; ``None`` trains all.
        zero3: whether parameters are to be partitioned.

    Raises:
        SpireError: the directory is not whole, weights are missing or too many, or the options do
            not fit the model.
    """
    from transformers import AutoConfig

    settings = None if lora is None else lora_settings(lora)
    try:
        config = AutoConfig.from_pretrained(model_dir)
    except (OSError, ValueError) as error:
        raise model_error(model_dir, error) from None
    weight_type = getattr(torch, dtype)
    # Every family has eager attention; which one can be had is known when the model is there.
    how = {"dtype": weight_type, "attn_implementation": "eager"}
    lm = _load_partitioned(model_dir, config, how) if zero3 else _load_whole(model_dir, how)
    distributed = torch.distributed.is_initialized()
    device = "cuda" if distributed and torch.distributed.get_backend() == "nccl" else "cpu"
    register_varlen()
    lm.set_attn_implementation(choose_attention(attention, lm, device=device, dtype=weight_type))
    lm.config.use_cache = False
    if gradient_checkpointing:
        lm.activation_checkpointing_enable({"use_reentrant": False})
    if settings is not None:
        add_lora(lm, settings, read_spire_json(model_dir)["base_vocab_size"])
    return lm


def _load_whole(model_dir: PathLike, how: Dict[str, Any]):
    """transformers' own way, with what it only warns of as errors."""
    from transformers import AutoModelForCausalLM

    try:
        lm, report = AutoModelForCausalLM.from_pretrained(
            model_dir, output_loading_info=True, **how
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise model_error(model_dir, error) from None
    _refuse(model_dir, report["missing_keys"], report["unexpected_keys"])
    return lm


def _refuse(model_dir: PathLike, missing, unexpected) -> None:
    for names, what in ((missing, "lacks"), (unexpected, "has an unknown weight")):
        if names:
            raise SpireError(
                f"--model {model_dir} {what} {min(names)} (of {len(names)} such); make it again"
                " with extend_vocabulary"
            )


def _load_partitioned(model_dir: PathLike, config, how: Dict[str, Any]):
    """Build the model in partitions, then fill one parameter after the other.

    transformers' ``from_pretrained`` holds a whole state dict on the first rank under ZeRO-3.
    """
    from transformers import AutoModelForCausalLM

    with blocks_given_back():
        return _fill_all(AutoModelForCausalLM.from_config(config, **how), model_dir)


def _fill_all(lm, model_dir: PathLike):
    """Fill a partitioned model from the files of a directory; names and shapes must agree."""
    lm.eval()
    stored = stored_weights(model_dir)
    # A tied matrix has several names, and may be stored under any of them.
    tensors = lm.state_dict(keep_vars=True)
    unexpected = [n for n in stored if n not in tensors and not DERIVED.search(n)]
    present = {id(tensors[name]) for name in stored if name in tensors}
    _refuse(model_dir, [n for n in tensors if id(tensors[n]) not in present], unexpected)
    for name, weight in stored.items():
        if name in tensors:
            shape = tuple(getattr(tensors[name], "ds_shape", tensors[name].shape))
            if shape != weight.shape:
                raise SpireError(
                    f"--model {model_dir}: {name} has shape {weight.shape}, config.json says"
                    f" {shape}; make it again with extend_vocabulary"
                )
            _fill(tensors[name], weight)
    return lm


@contextlib.contextmanager
def blocks_given_back() -> Iterator[None]:
    """Give large blocks back to the system when they are freed (glibc; elsewhere nothing changes).

    glibc keeps freed blocks of up to 32 MiB in its heap, where the parts that stay lie between
    them: after a partitioned model was loaded a rank would hold more than the whole of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, 128 * 2**10)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # where glibc's own threshold ends up


@torch.no_grad()
def _fill(tensor: torch.Tensor, weight: Weight) -> None:
    """Read a tensor on the first rank; each rank keeps its part."""
    with gathered([tensor], modifier_rank=0):
        # Buffers are not partitioned: each rank reads them.
        if not hasattr(tensor, "ds_id") or torch.distributed.get_rank() == 0:
            tensor.copy_(weight.read())
