"""Model directories to language models; what ZeRO-3 does is checked in ``train_worker.py``."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from espnet_spire.model.loading import load_lm
from espnet_spire.utils.errors import SpireError


def stored(model):
    tensors = {}
    for path in model.glob("*.safetensors"):
        tensors.update(load_file(path))
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_those_of_the_files(model_dirs, dtype):
    lm = load_lm(model_dirs["llama"], dtype=dtype)
    expected = stored(model_dirs["llama"])
    assert dict(lm.named_parameters()).keys() == expected.keys()
    for name, parameter in lm.named_parameters():
        assert torch.equal(parameter, expected[name].to(getattr(torch, dtype)))
        assert parameter.requires_grad
    assert lm.config._attn_implementation == "varlen" and lm.config.use_cache is False
    assert not lm.is_activation_checkpointing


def test_options_are_obeyed(model_dirs):
    lm = load_lm(
        model_dirs["llama"], dtype="float32", attention="sdpa", gradient_checkpointing=True
    )
    assert lm.config._attn_implementation == "sdpa" and lm.is_activation_checkpointing
    assert load_lm(model_dirs["gemma"], dtype="float32").config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "lacks model.layers.1.input_layernorm.weight"),
        ("unexpected", "has an unknown weight model.extra.weight"),
        ("shape", "mismatch"),
    ],
)
def test_a_broken_model_is_refused(model_dirs, tmp_path, broken_model, how, words):
    broken = broken_model(model_dirs["llama"], tmp_path / "broken", how)
    with pytest.raises(SpireError, match=f"--model {broken}.*{words}"):
        load_lm(broken, dtype="float32")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "lacks model.layers.1.input_layernorm.weight"),
        ("unexpected", "has an unknown weight model.extra.weight"),
        ("shape", r"model.layers.1.input_layernorm.weight has shape (31,), config.json says (32,)"),
    ],
)
def test_zero_3_refuses_a_broken_model_on_every_rank(checkpoints, how, words):
    for rank in range(2):
        said = (checkpoints / how / f"rank{rank}").read_text()
        assert words in said and said.startswith("--model ")


def test_no_model_is_an_error(tmp_path):
    with pytest.raises(SpireError, match=f"--model {tmp_path}"):
        load_lm(tmp_path, dtype="float32")


def test_stages_and_ranks_give_the_same_losses(checkpoints):
    def losses(name):
        manifest = json.loads((checkpoints / name / "step_2" / "manifest.json").read_text())
        return manifest["losses"]

    for same in (
        ("zero0", "zero1", "zero3"),
        ("zero2_tied", "zero3_tied"),
        ("zero0_lora", "zero2_lora", "zero3_lora"),
    ):
        first, *others = map(losses, same)
        assert first[0] > first[1] > 0
        for other in others:
            assert other == pytest.approx(first, rel=1e-5)


def test_old_frequencies_of_llama_2_are_passed_over(model_dirs, tmp_path):
    """They lie in the files of TowerBase; transformers drops them, so must we."""
    from safetensors.torch import save_file

    model = tmp_path / "model"
    shutil.copytree(model_dirs["llama"], model)
    path = sorted(model.glob("*.safetensors"))[0]
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**load_file(path), **extra}, path, metadata={"format": "pt"})
    load_lm(model, dtype="float32")
