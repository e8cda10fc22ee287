"""A few steps of training by DeepSpeed, run by each rank; see the fixture ``checkpoints``.

    python train_worker.py RUNS.json

Each run: ``out``, ``model``, ``stage``, ``dtype``, ``lora``. Leaves ``out/step_2`` and, by
DeepSpeed's own function for looking at a parameter, ``out/reference.safetensors``.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from safetensors.torch import load_file, save_file
from transformers.integrations import HfDeepSpeedConfig

from espnet_spire.model.causal_lm import CausalLMLoss
from espnet_spire.model.loading import load_lm
from espnet_spire.train.checkpoints import advance_pointer, write_manifest
from espnet_spire.train.distributed import init_process_group
from espnet_spire.utils.errors import SpireError


def settings(stage: int, dtype: str) -> dict:
    """DeepSpeed's; every parameter is partitioned under ZeRO-3, however small."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def whole(parameter, stage):
    """A parameter in full for a while."""
    return deepspeed.zero.GatheredParameters([parameter]) if stage == 3 else nullcontext()


def check_loaded(lm, run) -> None:
    """Every weight is the file's, and under ZeRO-3 this rank holds its part only."""
    stored = {}
    for path in Path(run["model"]).glob("*.safetensors"):
        stored.update(load_file(path))
    seen = set()
    for name, parameter in lm.named_parameters():
        if run["stage"] == 3:
            assert parameter.numel() == 0, name
            part = -(-parameter.ds_numel // dist.get_world_size())
            assert parameter.ds_tensor.numel() == part, name
        with whole(parameter, run["stage"]):
            expected = stored[name].to(getattr(torch, run["dtype"]))
            assert parameter.dtype == expected.dtype and torch.equal(parameter, expected), name
        seen.add(name)
    assert seen == set(stored)
    tied = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    assert tied == lm.config.tie_word_embeddings
    width = lm.config.head_dim
    expected = 1 / 10000 ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    frequencies = lm.base_model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    torch.testing.assert_close(frequencies.cpu(), expected, rtol=1e-6, atol=0)


def train(run) -> None:
    stage, out = run["stage"], Path(run["out"])
    config = settings(stage, run["dtype"])
    keep_alive = HfDeepSpeedConfig(config)
    arguments = {"dtype": run["dtype"], "zero3": stage == 3}
    if run["lora"] is None:
        lm = load_lm(run["model"], **arguments)
        check_loaded(lm, run)
    else:
        lm = load_lm(run["model"], lora=run["lora"], gradient_checkpointing=True, **arguments)
    network = CausalLMLoss(lm, loss_chunk_tokens=5)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, eps=1e-3)
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
    draw = torch.Generator().manual_seed(7)
    ranks, losses = dist.get_world_size(), []
    for step in range(2):
        # The same global batch for any number of ranks; in the second step half has no target.
        input_ids = torch.randint(3, lm.config.vocab_size, (2, 20), generator=draw)
        positions = torch.cat([torch.arange(8), torch.arange(12)]).expand(2, 20).contiguous()
        labels = input_ids.masked_fill(positions == 0, -100)
        if step == 1:
            labels[1] = -100
        mine = slice(None) if ranks == 1 else slice(dist.get_rank(), dist.get_rank() + 1)
        documents = (torch.arange(20) >= 8).long().expand(2, 20)[mine]
        output = engine(input_ids[mine], positions[mine], labels[mine], documents, 2)
        engine.backward(output.loss_sum * (ranks / 40))
        engine.step()
        total = output.loss_sum.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item())
    # With adapters a checkpoint may lack what is frozen, or not.
    lean = run["lora"] is not None and stage in (1, 3)
    engine.save_checkpoint(
        str(out), tag="step_2", save_latest=False, exclude_frozen_parameters=lean
    )
    if stage == 0:
        reference = {name: p.detach().float() for name, p in trained.items()}
    else:
        reference = {name: safe_get_full_fp32_param(p) for name, p in trained.items()}
    if dist.get_rank() == 0:
        facts = {"settings": {"lora": run["lora"]}, "losses": losses}
        write_manifest(out / "step_2", facts)
        advance_pointer(out, "step_2", keep=1, finished=True)
        reference = {name: tensor.clone().contiguous() for name, tensor in reference.items()}
        save_file(reference, out / "reference.safetensors")
    dist.barrier()
    del keep_alive


def refusal(run) -> None:
    """Record with which words a broken model is refused under ZeRO-3, on every rank."""
    keep_alive = HfDeepSpeedConfig(settings(3, "float32"))
    try:
        load_lm(run["refused"], dtype="float32", zero3=True)
        words = "loaded"
    except SpireError as error:
        words = str(error)
    Path(run["out"], f"rank{dist.get_rank()}").write_text(words)
    dist.barrier()
    del keep_alive


if __name__ == "__main__":
    init_process_group(0)
    for each in json.loads(Path(sys.argv[1]).read_text()):
        Path(each["out"]).mkdir(parents=True, exist_ok=True)
        refusal(each) if "refused" in each else train(each)
    dist.destroy_process_group()
