"""DeepSpeed's settings, and which parameters decay."""

import json

import pytest
import torch

from espnet_spire.train.engine import (
    OURS,
    parameter_groups,
    read_deepspeed_config,
    unclipped_norm,
    zero_stage,
)
from espnet_spire.utils.errors import SpireError


@pytest.mark.parametrize("key", OURS)
def test_settings_that_are_options_may_not_stand_in_the_file(tmp_path, key):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}, key: {}}))
    with pytest.raises(SpireError, match=f"ds.json: '{key}' is decided by options .* remove it"):
        read_deepspeed_config(str(path), dtype="float32", clip=1.0)


def test_deepspeed_settings(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 2}, "wall_clock_breakdown": true}')
    config = read_deepspeed_config(str(path), dtype="bfloat16", clip=0.5)
    assert config["zero_optimization"] == {"stage": 2} and config["wall_clock_breakdown"]
    assert config["bf16"] == {"enabled": True} and config["gradient_clipping"] == 0.5
    assert config["train_micro_batch_size_per_gpu"] == config["gradient_accumulation_steps"] == 1
    # Else gradients of micro-batches would be added up in bfloat16.
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    with pytest.raises(SpireError, match="none.json: no such file"):
        read_deepspeed_config(str(tmp_path / "none.json"), dtype="float32", clip=1.0)


def test_stages(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text("{}")
    assert zero_stage(read_deepspeed_config(path, dtype="float32", clip=1.0)) == 0
    path.write_text('{"zero_optimization": {"stage": 4}}')
    with pytest.raises(SpireError, match="zero_optimization.stage must be 0, 1, 2 or 3"):
        read_deepspeed_config(path, dtype="float32", clip=1.0)


@pytest.mark.parametrize("text", ["[]", '{"zero_optimization": null}', '"x"'])
def test_what_is_no_configuration(tmp_path, text):
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(SpireError, match="ds.json: not a DeepSpeed configuration"):
        read_deepspeed_config(path, dtype="float32", clip=1.0)


@pytest.mark.parametrize("stage", [0, 1])
def test_bfloat16_needs_float32_weights_and_gradients(tmp_path, stage):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    with pytest.raises(SpireError, match="bfloat16 needs zero_optimization.stage 2 .* or 3"):
        read_deepspeed_config(path, dtype="bfloat16", clip=1.0)


def test_matrices_decay_and_vectors_do_not():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    network.append(torch.nn.Linear(4, 4))
    network[2].weight.requires_grad = False
    groups = parameter_groups(network, 0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [p.shape for p in groups[0]["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(4,)] * 4
    # Under ZeRO-3 a matrix looks like a vector of nothing.
    network[0].weight.ds_shape = torch.Size([4, 3])
    network[0].weight.data = torch.empty(0)
    assert parameter_groups(network, 0.3)[0]["params"][0] is network[0].weight
    for parameter in network.parameters():
        parameter.requires_grad = False
    assert parameter_groups(network, 0.3) == []


def test_norm_by_hand():
    class Engine:
        module = torch.nn.Linear(1, 1)

    Engine.module.weight.grad = torch.tensor([[3.0]])
    Engine.module.bias.grad = torch.tensor([4.0])
    assert unclipped_norm(Engine) == pytest.approx(5.0)
