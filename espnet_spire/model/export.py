"""Checkpoints of a training to a Hugging Face directory."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Dict, Optional

import torch

from espnet_spire.model.generation import padding_rows
from espnet_spire.model.weights import Weight, Weights, stored_weights, trained_weights
from espnet_spire.text.matrices import empty_model
from espnet_spire.text.prompts import IM_END
from espnet_spire.text.vocabulary import CODEBOOK_DIR
from espnet_spire.text.weight_files import INDEX_FILE
from espnet_spire.train.checkpoints import checkpoint_tag, read_manifest, read_pointer
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError

# Files of the start model that are not copied: they are written anew.
_WRITTEN = ("*.safetensors", "*.index.json", "*.bin", "config.json", "generation_config.json")
# Files that name the token that ends an answer.
_ROLES = ("tokenizer_config.json", "special_tokens_map.json")
SHARD_SIZE = "4GB"


def export(
    train_dir: PathLike,
    start_model: PathLike,
    out: PathLike,
    *,
    instruct: bool,
    dtype: str,
    checkpoint: Optional[str] = None,
    unfinished: bool = False,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Write a checkpoint as a Hugging Face model directory.

    Weights are written one file of at most ``shard_size`` at a time; at the end the whole model is
    loaded once from what was written, as a user will.

    Args:
        train_dir: ``--output_dir`` of ``spire_train``.
        start_model: the model that the training started from: architecture, tokenizer, and with
            LoRA the weights that adapters are merged into.
        out: directory to write; replaced as a whole.
        instruct: whether the model ends its turns with ``<|im_end|>``, which becomes its EOS.
        dtype: of the weights written.
        checkpoint: ``last``, ``best`` or ``step_N``; by default the last of a finished training.
        unfinished: whether the default may be of a training that goes on.
        shard_size: of one file, as ``"4GB"``.

    Raises:
        SpireError: there is no such checkpoint, it is not whole, or it does not fit the model.
    """
    if checkpoint is None and not unfinished:
        pointer = read_pointer(train_dir)
        if pointer is None or not pointer.finished:
            raise SpireError(
                f"{train_dir}: training has not finished; run its stage first, or choose what to"
                " export with --checkpoint or --unfinished"
            )
    tag = checkpoint_tag(train_dir, checkpoint or "last")
    directory = Path(train_dir) / tag
    lora = read_manifest(directory).get("settings", {}).get("lora")
    weights = trained_weights(directory, start_model, lora)
    try:
        model = empty_model(start_model)
    except SpireError as error:
        raise SpireError(f"--start_model {start_model}: {error}") from None
    with atomic_dir(out) as aside:
        weights = _as_saved(model, weights, directory)
        write_weights(aside, weights, getattr(torch, dtype), shard_size)
        _copy_files(Path(start_model), aside, instruct)
        _write_settings(model.config, aside, dtype)
        _check(aside, weights)
    logging.info("%s", json.dumps({"exported": str(out), "from": tag, "dtype": dtype}))


def _as_saved(model, weights: Weights, where: Path) -> Weights:
    """The model's weights in its order, of a tied matrix the first name alone."""
    groups: Dict[int, list] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    known = {name for names in groups.values() for name in names}
    unknown = sorted(set(weights) - known)
    saved: Weights = {}
    for names in groups.values():
        present = [name for name in names if name in weights]
        if not present:
            raise SpireError(f"{where}: {names[0]} is missing")
        saved[names[0]] = weights[present[0]]
    if unknown:
        raise SpireError(f"{where}: {unknown[0]} is not a weight of the start model")
    return saved


def write_weights(directory: Path, weights: Weights, dtype: torch.dtype, shard_size: str) -> None:
    """Write safetensors files of at most ``shard_size`` and, if there are several, their index.

    Only one file's tensors are in memory at a time.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(w.shape, dtype=dtype, device="meta") for name, w in weights.items()},
        max_shard_size=shard_size,
    )
    for file, names in plan.filename_to_tensors.items():
        tensors = {name: weights[name].read().to(dtype).contiguous() for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(directory / INDEX_FILE, index)


def _copy_files(start_model: Path, out: Path, instruct: bool) -> None:
    """All of the start model but its weights and settings: tokenizer, ``spire.json``, licences.

    Of directories the codebook's alone.
    """
    for path in sorted(start_model.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in _WRITTEN):
            shutil.copyfile(path, out / path.name)
    if (start_model / CODEBOOK_DIR).is_dir():
        shutil.copytree(start_model / CODEBOOK_DIR, out / CODEBOOK_DIR)
    if instruct:
        for name in _ROLES:
            if (out / name).exists():
                write_json(out / name, {**read_json(out / name), "eos_token": IM_END})


def _write_settings(config, out: Path, dtype: str) -> None:
    """``config.json`` and ``generation_config.json``: greedy, to the end token."""
    from transformers import AutoTokenizer, GenerationConfig

    config.dtype = getattr(torch, dtype)
    config.save_pretrained(out)  # transformers chooses the tokenizer's class by it
    tokenizer = AutoTokenizer.from_pretrained(out)
    config.eos_token_id = tokenizer.eos_token_id
    config.save_pretrained(out)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.convert_tokens_to_ids("<PAD>"),
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        suppress_tokens=padding_rows(tokenizer, config) or None,
    ).save_pretrained(out)


def _check(directory: Path, weights: Dict[str, Weight]) -> None:
    """Load what was written, as a user will."""
    from transformers import AutoModelForCausalLM

    shapes = {name: weight.shape for name, weight in stored_weights(directory).items()}
    _, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype="auto", output_loading_info=True
    )
    problems: Dict[str, Any] = {name: value for name, value in report.items() if value}
    if problems or shapes != {name: weight.shape for name, weight in weights.items()}:
        raise SpireError(f"{directory}: does not load as it was written ({problems}); a bug")
