"""Checkpoints of every ZeRO stage to Hugging Face directories."""

import json
import shutil

import pytest
import torch
from helpers_lm import NUM_UNITS
from safetensors.torch import load_file

from espnet_spire.bin import export as export_command
from espnet_spire.model.export import export
from espnet_spire.utils.errors import SpireError

START = {
    **dict.fromkeys(("zero3_bfloat16", "zero3_lora_tied"), "gemma"),
    **dict.fromkeys(("zero2_tied", "zero3_tied", "zero1_lora_tied"), "qwen"),
}
FULL = (
    *("zero0", "zero0_bfloat16", "zero1", "zero2_bfloat16", "zero3", "zero3_bfloat16"),
    *("zero2_tied", "zero3_tied"),
)
ADAPTERS = ("zero0_lora", "zero2_lora", "zero3_lora", "zero3_lora_tied", "zero1_lora_tied")


def load(path, **kwargs):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype="auto", **kwargs)


@pytest.fixture(scope="module")
def exported(checkpoints, model_dirs, tmp_path_factory):
    """Every checkpoint as a model in float32, by the name of its run."""
    out = tmp_path_factory.mktemp("export")
    for name in FULL + ADAPTERS:
        start = model_dirs[START.get(name, "llama")]
        export(checkpoints / name, start, out / name, instruct=True, dtype="float32")
    return out


def reference(checkpoints, name):
    """Trained parameters as DeepSpeed's engine had them, without the loss module's prefix."""
    tensors = load_file(checkpoints / name / "reference.safetensors")
    return {key.removeprefix("lm."): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", FULL)
def test_weights_are_those_of_the_engine(checkpoints, exported, model_dirs, name):
    expected = reference(checkpoints, name)
    found = load(exported / name).state_dict()
    start = load(model_dirs[START.get(name, "llama")]).state_dict()
    assert found.keys() == start.keys() and expected.keys() <= found.keys()
    for key, value in expected.items():
        assert found[key].dtype == torch.float32
        written = found[key]
        if name == "zero0_bfloat16":  # its engine shows no float32 weights
            written = written.to(torch.bfloat16).float()
        assert torch.equal(written, value)
        assert not torch.equal(found[key], start[key])  # it was trained


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_merged_as_peft_merges_them(checkpoints, exported, model_dirs, name):
    from peft import LoraConfig, get_peft_model

    start_dir = model_dirs[START.get(name, "llama")]
    first = json.loads((start_dir / "spire.json").read_text())["base_vocab_size"]
    start, trained = load(start_dir), reference(checkpoints, name)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    rows = {key: trained.pop(key) for key in list(trained) if key.endswith("new_rows")}
    with torch.no_grad():
        for key, value in rows.items():
            start.get_parameter(f"{key.removesuffix('new_rows')}weight")[first:] = value
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(start, config)
    report = adapted.load_state_dict(
        {f"base_model.model.{key}": value for key, value in trained.items()}, strict=False
    )
    assert report.unexpected_keys == [] and len(trained) == 2 * 7 * 2  # A and B of 7 matrices
    assert not any("lora" in key for key in report.missing_keys)
    expected = adapted.merge_and_unload().state_dict()
    found = load(exported / name).state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-6)
        if "embed_tokens" in key or "lm_head" in key:
            assert torch.equal(value[:first], before[key][:first])  # bit for bit
            assert not torch.equal(value[first:], before[key][first:])
        else:
            frozen = "norm" in key or key.endswith("bias")
            assert torch.equal(value, before[key]) == frozen


@pytest.mark.parametrize("name", ["zero3", "zero3_bfloat16", "zero3_lora_tied", "zero2_tied"])
def test_the_pipeline_answers_as_our_generator(exported, name):
    from transformers import pipeline

    from espnet_spire.decode.generate import Generator
    from espnet_spire.text.prompts import Turn
    from espnet_spire.train.examples import encode_chatml_prompt

    generator = Generator(str(exported / name), max_new_tokens=12)
    content = f"Speech: {chr(0xF0000)}{chr(0xF0007)}\nEnglish:"
    prompt = encode_chatml_prompt(generator.tokenizer, [Turn("user", content)])
    (answer,) = generator([prompt])
    assert len(answer.ids) > 0
    ask = pipeline("text-generation", model=str(exported / name))
    conversation = [{"role": "user", "content": content}]
    rendered = ask.tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
    assert list(rendered["input_ids"]) == prompt
    said = ask(conversation, max_new_tokens=12, return_full_text=False)[0]["generated_text"]
    assert said == generator.tokenizer.decode(answer.ids, skip_special_tokens=True)


def test_the_model_ends_its_turns(exported):
    from transformers import AutoTokenizer

    for name, bos in (("zero1", 1), ("zero2_tied", None)):
        model, tokenizer = load(exported / name), AutoTokenizer.from_pretrained(exported / name)
        im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert tokenizer.eos_token == "<|im_end|>" and tokenizer.eos_token_id == im_end
        assert model.config.eos_token_id == im_end == model.generation_config.eos_token_id
        assert model.generation_config.bos_token_id == bos == tokenizer.bos_token_id
        assert model.generation_config.pad_token_id == tokenizer.convert_tokens_to_ids("<PAD>")
        assert model.generation_config.do_sample is False
        assert model.generation_config.max_new_tokens == 256
        padding = list(range(len(tokenizer), model.config.vocab_size))
        assert model.generation_config.suppress_tokens == padding and padding


def test_all_but_weights_and_settings_is_the_start_models(
    checkpoints, exported, model_dirs, lm_tokenizer, tmp_path
):
    from transformers import AutoTokenizer

    start = tmp_path / "start"
    shutil.copytree(model_dirs["llama"], start)
    (start / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    (start / "special_tokens_map.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    (start / "pytorch_model.bin").write_bytes(b"old")
    export(checkpoints / "zero1", start, tmp_path / "hf", instruct=True, dtype="float32")
    changed = ("config.json", "generation_config.json", "tokenizer_config.json")
    changed += ("special_tokens_map.json", "pytorch_model.bin")
    for path in start.iterdir():
        if path.name not in changed and not path.name.startswith("model"):
            assert (tmp_path / "hf" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "hf" / "pytorch_model.bin").exists()
    roles = json.loads((tmp_path / "hf" / "special_tokens_map.json").read_text())
    assert roles == {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a!"
    tokenizer = AutoTokenizer.from_pretrained(exported / "zero1")
    assert tokenizer.get_vocab() == lm_tokenizer.get_vocab()
    units = "".join(chr(0xF0000 + unit) for unit in range(NUM_UNITS))
    for text in (f"Speech: {units}\nEnglish: the cook  ", "<|im_start|>user\n面<|im_end|>\n"):
        assert tokenizer(text).input_ids == lm_tokenizer(text).input_ids


def test_a_pre_trained_model_keeps_its_eos_in_bfloat16(checkpoints, model_dirs, tmp_path):
    from transformers import AutoTokenizer

    out = tmp_path / "hf"
    export_command.main(
        [
            *("--train-dir", str(checkpoints / "zero3"), "--dtype", "bfloat16"),
            *("--start-model", str(model_dirs["llama"]), "--out", str(out)),
        ]
    )
    model = load(out)
    assert model.config.eos_token_id == 2 == AutoTokenizer.from_pretrained(out).eos_token_id
    for key, tensor in reference(checkpoints, "zero3").items():
        assert torch.equal(model.state_dict()[key], tensor.to(torch.bfloat16))
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_large_models_are_written_in_several_files(checkpoints, model_dirs, exported, tmp_path):
    start = model_dirs["llama"]
    options = {"instruct": True, "dtype": "float32", "shard_size": "50KB"}
    export(checkpoints / "zero2_lora", start, tmp_path / "hf", **options)
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 2 and all(path.stat().st_size < 60_000 for path in files)
    found, expected = load(tmp_path / "hf").state_dict(), load(exported / "zero2_lora").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


# What is exported ---------------------------------------------------------------------------


@pytest.fixture
def unfinished(checkpoints, tmp_path):
    """A training that goes on: ``step_2`` is whole, the pointer is not finished."""
    run = tmp_path / "run"
    shutil.copytree(checkpoints / "zero1", run)
    pointer = json.loads((run / "checkpoint.json").read_text())
    (run / "checkpoint.json").write_text(json.dumps({**pointer, "finished": False}))
    return run


def test_an_unfinished_training_is_refused(unfinished, model_dirs, tmp_path):
    start = model_dirs["llama"]
    with pytest.raises(SpireError, match=f"{unfinished}: training has not finished.*--unfinished"):
        export(unfinished, start, tmp_path / "hf", instruct=True, dtype="float32")
    with pytest.raises(SpireError, match="training has not finished"):
        export(tmp_path, start, tmp_path / "hf", instruct=True, dtype="float32")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("choice", [["--unfinished"], ["--checkpoint", "last"]])
def test_an_unfinished_training_is_exported_by_choice(
    unfinished, exported, model_dirs, tmp_path, choice
):
    export_command.main(
        [
            *("--train_dir", str(unfinished), "--start_model", str(model_dirs["llama"])),
            *("--out", str(tmp_path / "hf"), *choice),
        ]
    )
    found, expected = load(tmp_path / "hf").state_dict(), load(exported / "zero1").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("choice", "words"), [("step_7", "no checkpoint 'step_7'"), ("best", "none is the best")]
)
def test_a_checkpoint_that_is_not_there_is_an_error(
    unfinished, model_dirs, tmp_path, choice, words
):
    with pytest.raises(SpireError, match=words):
        export(
            unfinished,
            model_dirs["llama"],
            tmp_path / "hf",
            instruct=True,
            dtype="float32",
            checkpoint=choice,
        )


def test_another_start_model_is_refused(checkpoints, model_dirs, tmp_path):
    options = {"instruct": True, "dtype": "float32"}
    with pytest.raises(SpireError, match="norm.*is not a weight of the start model"):
        export(checkpoints / "zero3_bfloat16", model_dirs["llama"], tmp_path / "hf", **options)
    with pytest.raises(SpireError, match="layernorm.weight: in the start model or in the ch"):
        export(checkpoints / "zero2_lora", model_dirs["gemma"], tmp_path / "hf", **options)
    assert not (tmp_path / "hf").exists()


def test_a_start_model_that_is_none_is_named(checkpoints, model_dirs, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(model_dirs["llama"], start)
    (start / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(SpireError, match=f"^--start_model {start}: .*nonesuch") as caught:
        export(checkpoints / "zero1", start, tmp_path / "hf", instruct=True, dtype="float32")
    assert "\n" not in str(caught.value) and not (tmp_path / "hf").exists()


def test_adapters_must_fit(checkpoints, model_dirs, tmp_path):
    from espnet_spire.model.weights import checkpoint_weights, merge_lora, stored_weights

    found = checkpoint_weights(checkpoints / "zero2_lora" / "step_2")
    start = stored_weights(model_dirs["llama"])
    name = "model.layers.1.mlp.down_proj.lora_A.default.weight"
    words = f"{name}: not an adapter of the start model with r"
    lora = {"r": 4, "alpha": 12}
    assert merge_lora(found, start, lora).keys() == start.keys()
    with pytest.raises(SpireError, match="lora_A.* with r 8"):
        merge_lora(found, start, {**lora, "r": 8})
    lacking = {key: weight for key, weight in found.items() if key != name.replace("A.d", "B.d")}
    with pytest.raises(SpireError, match=words):
        merge_lora(lacking, start, lora)
    narrow = {**found, name: found[name]._replace(shape=(4, 31))}
    with pytest.raises(SpireError, match=words):
        merge_lora(narrow, start, lora)
    extra = {**found, "model.extra.weight": found[name]}
    with pytest.raises(SpireError, match="model.extra.weight: in the start model or in the check"):
        merge_lora(extra, start, lora)


def test_a_lost_shard_is_noticed(checkpoints, model_dirs, tmp_path):
    """Also where nothing but the files themselves could tell."""
    from espnet_spire.model.weights import checkpoint_weights

    checkpoint = tmp_path / "step_2"
    shutil.copytree(checkpoints / "zero3" / "step_2", checkpoint)
    next(checkpoint.glob("*rank_1*optim_states.pt")).unlink()
    with pytest.raises(SpireError, match=f"{checkpoint}: cannot be read: .*Expected 2"):
        checkpoint_weights(checkpoint)
