"""Checkpoints to Hugging Face directories."""

import json
import shutil

import pytest
import torch
from helpers_lm import NUM_UNITS

from espnet_spire.bin import export as export_command
from espnet_spire.model.export import export
from espnet_spire.utils.errors import SpireError


def load(path, **kwargs):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype="auto", **kwargs)


def checkpoint(run):
    """Weights as the first rank's model file has them (all of them below ZeRO 3)."""
    path = run / "step_24" / "mp_rank_00_model_states.pt"
    module = torch.load(path, map_location="cpu", weights_only=False)["module"]
    return {name.removeprefix("lm."): tensor for name, tensor in module.items()}


@pytest.fixture(scope="module")
def exported(trained, lm_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    for name in ("zero0", "zero1", "zero2"):
        export(trained[0] / name, lm_dir, out / name, instruct=True, dtype="float32")
    return out


@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2"])
def test_weights_are_those_of_the_checkpoint(trained, exported, lm_dir, name):
    expected = checkpoint(trained[0] / name)
    found, start = load(exported / name).state_dict(), load(lm_dir).state_dict()
    assert expected.keys() == found.keys() == start.keys()
    for key in expected:
        assert found[key].dtype == torch.float32 and torch.equal(found[key], expected[key])
        assert not torch.equal(found[key], start[key])  # it was trained


def test_zero_3_shards_of_two_ranks_are_joined(trained, trained_two_ranks, lm_dir, tmp_path):
    export(trained_two_ranks[0], lm_dir, tmp_path / "hf", instruct=True, dtype="float32")
    found, expected = load(tmp_path / "hf").state_dict(), checkpoint(trained[0] / "zero1")
    assert found.keys() == expected.keys()
    for key in expected:
        # The same training, summed in another order.
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=2e-3)
        assert found[key].sub(expected[key]).abs().mean() < 1e-5


def test_the_model_ends_its_turns(exported, lm_dir):
    from transformers import AutoTokenizer

    model, tokenizer = load(exported / "zero1"), AutoTokenizer.from_pretrained(exported / "zero1")
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.eos_token_id == im_end
    assert model.config.eos_token_id == im_end == model.generation_config.eos_token_id
    assert model.generation_config.bos_token_id == 1
    assert model.generation_config.pad_token_id == tokenizer.convert_tokens_to_ids("<PAD>")
    assert model.generation_config.do_sample is False
    assert model.generation_config.max_new_tokens == 256


def test_the_tokenizer_is_that_of_the_start_model(exported, lm_dir, lm_tokenizer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported / "zero1")
    assert tokenizer.get_vocab() == lm_tokenizer.get_vocab()
    units = "".join(chr(0xF0000 + unit) for unit in range(NUM_UNITS))
    for text in (f"Speech: {units}\nEnglish: the cook  ", "<|im_start|>user\n面<|im_end|>\n"):
        assert tokenizer(text).input_ids == lm_tokenizer(text).input_ids
    messages = [{"role": "user", "content": "a"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<s><|im_start|>user\na<|im_end|>\n"
    )
    for name in ("tokenizer.json", "tokenizer.model", "spire.json"):
        assert (exported / "zero1" / name).read_bytes() == (lm_dir / name).read_bytes()


def test_a_pre_trained_model_keeps_its_eos_in_bfloat16(trained, lm_dir, tmp_path):
    from transformers import AutoTokenizer

    out = tmp_path / "hf"
    export_command.main(
        [
            *("--train-dir", str(trained[0] / "zero1"), "--start-model", str(lm_dir)),
            *("--out", str(out), "--dtype", "bfloat16"),
        ]
    )
    model = load(out)
    assert model.config.eos_token_id == 2 == AutoTokenizer.from_pretrained(out).eos_token_id
    for key, tensor in checkpoint(trained[0] / "zero1").items():
        assert torch.equal(model.state_dict()[key], tensor.to(torch.bfloat16))
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_unfinished_training_is_refused(trained, lm_dir, tmp_path):
    def refused(run):
        with pytest.raises(SpireError, match=f"{run}: training has not finished"):
            export(run, lm_dir, tmp_path / "hf", instruct=True, dtype="float32")
        assert not (tmp_path / "hf").exists()

    run = tmp_path / "run"
    run.mkdir()
    refused(run)
    shutil.copytree(trained[0] / "zero1" / "step_20", run / "step_20")
    value = {"tag": "step_20", "kept": ["step_20"], "finished": False}
    (run / "checkpoint.json").write_text(json.dumps(value))
    refused(run)
