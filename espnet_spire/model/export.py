"""Checkpoints of a training to a Hugging Face directory."""

import json
import logging
import shutil
from pathlib import Path
from typing import Dict

import torch

from espnet_spire.text.prompts import IM_END
from espnet_spire.text.vocabulary import SPIRE_JSON
from espnet_spire.train.checkpoints import read_pointer
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.errors import SpireError

# CausalLMLoss holds the LM under this name.
PREFIX = "lm."


def consolidate(output_dir: PathLike, tag: str) -> Dict[str, torch.Tensor]:
    """All weights of a checkpoint in float32, from whatever ZeRO stage wrote it."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    directory = Path(output_dir) / tag
    if any(directory.glob("*zero_pp_rank_*optim_states.pt")):
        state = get_fp32_state_dict_from_zero_checkpoint(str(output_dir), tag)
    else:  # ZeRO 0: the first rank has everything
        file = directory / "mp_rank_00_model_states.pt"
        state = torch.load(file, map_location="cpu", weights_only=False)["module"]
    stray = [name for name in state if not name.startswith(PREFIX)]
    if stray:
        raise SpireError(f"{directory}: {stray[0]} is not a weight of the LM")
    return {name[len(PREFIX) :]: tensor.float() for name, tensor in state.items()}


def export(
    train_dir: PathLike, start_model: PathLike, out: PathLike, *, instruct: bool, dtype: str
) -> None:
    """Write the newest whole checkpoint as a Hugging Face model directory.

    Args:
        train_dir: ``--output_dir`` of ``spire_train``.
        start_model: the model that the training started from: architecture and tokenizer.
        out: directory to write.
        instruct: whether the model ends its turns with ``<|im_end|>``, which becomes its EOS.
        dtype: of the weights written.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    pointer = read_pointer(train_dir)
    if pointer is None or not pointer.finished:
        raise SpireError(f"{train_dir}: training has not finished; run its stage first")
    state = consolidate(train_dir, pointer.tag)
    config = AutoConfig.from_pretrained(start_model)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if config.tie_word_embeddings:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    target = getattr(torch, dtype)
    state = {name: tensor.to(target) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(start_model)
    eos = tokenizer.convert_tokens_to_ids(IM_END) if instruct else tokenizer.eos_token_id
    model.config.eos_token_id = eos
    model.config.dtype = target
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos,
        pad_token_id=tokenizer.convert_tokens_to_ids("<PAD>"),
        do_sample=False,
        max_new_tokens=256,
    )
    with atomic_dir(out) as aside:
        # save_pretrained empties the dictionary that it is given
        model.save_pretrained(aside, state_dict=dict(state))
        for name in ("tokenizer.json", "tokenizer.model", SPIRE_JSON):
            if (Path(start_model) / name).exists():
                shutil.copy(Path(start_model) / name, aside / name)
        settings = read_json(Path(start_model) / "tokenizer_config.json")
        if instruct:
            settings["eos_token"] = IM_END
        write_json(aside / "tokenizer_config.json", settings)
        _check(aside, state)
    logging.info("%s", json.dumps({"exported": str(out), "from": pointer.tag, "dtype": dtype}))


def _check(directory: Path, state: Dict[str, torch.Tensor]) -> None:
    """Load what was written and compare every weight."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").state_dict()
    for name, tensor in state.items():
        if name not in loaded or not torch.equal(loaded[name], tensor):
            raise SpireError(
                f"{directory}: {name} was not written as it was trained; this is a bug"
            )
