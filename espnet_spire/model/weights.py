"""Weights of a training's checkpoint, whatever ZeRO stage and number of ranks wrote it.

A weight is read when it is wanted and not before, so that a model need not fit into memory.
"""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch

from espnet_spire.model.lora import lora_settings
from espnet_spire.text.weight_files import read_header, weight_files
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

# CausalLMLoss holds the LM under this name.
PREFIX = "lm."
_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.default\.weight$")
_NEW_ROWS = re.compile(r"(.+)\.new_rows$")
# Llama-2's first checkpoints hold RoPE's frequencies, which follow from the config.
DERIVED = re.compile(r"rotary_emb\.inv_freq$")
# Frozen parts of a model with adapters; they are read from the start model instead.
_FROZEN = re.compile(r"(.+)\.base_layer\.(weight|bias)$")


class Weight(NamedTuple):
    """A tensor that is not in memory yet: its shape, and what reads it."""

    shape: Tuple[int, ...]
    read: Callable[[], torch.Tensor]


Weights = Dict[str, Weight]


def stored_weights(model_dir: PathLike) -> Weights:
    """What lies in a model directory's safetensors files; only their headers are read.

    Raises:
        SpireError: a file is missing or broken, or there is none.
    """
    files = weight_files(Path(model_dir))
    if not files:
        raise SpireError(f"{model_dir}: no safetensors files; make it with extend_vocabulary")
    return {
        name: Weight(tuple(stored.shape), _reader(path, name))
        for path in files
        for name, stored in read_header(path)[1].items()
    }


def _reader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    return read


def checkpoint_weights(checkpoint: PathLike) -> Weights:
    """Trained weights of a DeepSpeed checkpoint in float32, by their names in the LM.

    With adapters, also the frozen weights, if the checkpoint has them.

    Raises:
        SpireError: files of the checkpoint are missing or broken.
    """
    checkpoint = Path(checkpoint)
    try:
        if any(checkpoint.glob("*_optim_states.pt")):
            state = _consolidate(checkpoint)
        else:  # ZeRO 0 in float32: the first rank has everything
            path = checkpoint / "mp_rank_00_model_states.pt"
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=False)["module"]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpireError(f"{checkpoint}: cannot be read: {reason}") from None
    stray = [name for name in state if not name.startswith(PREFIX)]
    if stray:
        raise SpireError(f"{checkpoint}: {stray[0]} is not a weight of the LM")
    return {
        name.removeprefix(PREFIX): Weight(
            tuple(value.shape), lambda value=value: value.contiguous().float()
        )
        for name, value in state.items()
    }


def _consolidate(checkpoint: Path) -> Dict[str, Any]:
    """DeepSpeed's own join of the ranks' parts; under ZeRO-3 each tensor when it is asked for."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(sys.stderr):
        return get_fp32_state_dict_from_zero_checkpoint(
            str(checkpoint.parent), checkpoint.name, lazy_mode=True
        )


def trained_weights(
    checkpoint: PathLike, start_model: PathLike, lora: Optional[Dict[str, Any]]
) -> Weights:
    """Weights of the trained model under the names of the model that it started from.

    Args:
        checkpoint: directory of one checkpoint.
        start_model: what the training started from; adapters are merged into its weights, and
            old rows of its embedding matrices stay as they are.
        lora: settings of the training's adapters, ``None`` if it had none.

    Raises:
        SpireError: a weight is missing, unknown, or of another shape than the start model's.
    """
    found, start = checkpoint_weights(checkpoint), stored_weights(start_model)
    if lora is not None:
        found = merge_lora(found, start, lora)
    for name, weight in found.items():
        if name in start and start[name].shape != weight.shape:
            raise SpireError(
                f"{checkpoint}: {name} has shape {weight.shape}, in {start_model}"
                f" {start[name].shape}; give the model that training started from"
            )
    return found


def merge_lora(found: Weights, start: Weights, lora: Dict[str, Any]) -> Weights:
    """Adapters and new rows put into the weights of the start model.

    A matrix becomes W + alpha/r · B A, computed in float32; of the embedding matrices the last
    rows are replaced; all else is the start model's.

    Args:
        found: weights of the checkpoint, as peft names them.
        start: weights of the start model.
        lora: settings of the training.
    """
    settings = lora_settings(lora)
    merged = {name: weight for name, weight in start.items() if not DERIVED.search(name)}
    frozen, embeddings = set(), set()
    for name, weight in found.items():
        adapter, rows = _ADAPTER.match(name), _NEW_ROWS.match(name)
        if rows:
            # A tied matrix is stored under one of its names.
            embeddings.add(target := f"{rows[1]}.weight")
            if target in merged:
                merged[target] = _with_last_rows(start[target], weight)
        elif adapter is None:
            frozen.add(_FROZEN.sub(r"\1.\2", name))
        elif adapter[2] == "A":
            target, b = f"{adapter[1]}.weight", found.get(name.replace("lora_A", "lora_B"))
            shapes = b is not None and (settings.r, (b.shape[0], weight.shape[1]))
            if target not in start or shapes != (weight.shape[0], start[target].shape):
                raise SpireError(f"{name}: not an adapter of the start model with r {settings.r}")
            merged[target] = _adapted(start[target], weight, b, settings.alpha / settings.r)
    # A checkpoint may be without all that is frozen, not without some of it.
    strange = sorted((frozen ^ merged.keys()) - embeddings) if frozen else []
    if strange:
        raise SpireError(f"{strange[0]}: in the start model or in the checkpoint, not in both")
    return merged


def _adapted(start: Weight, a: Weight, b: Weight, scale: float) -> Weight:
    return Weight(start.shape, lambda: start.read().float() + scale * (b.read() @ a.read()))


def _with_last_rows(start: Weight, rows: Weight) -> Weight:
    def read() -> torch.Tensor:
        matrix = start.read().float()
        matrix[-rows.shape[0] :] = rows.read()
        return matrix

    return Weight(start.shape, read)
