"""Both matrices of a base on disk, extended without loading it."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers_bases import check_statistics, make_kind, read_json, write_json
from safetensors.torch import load_file, save_file

from espnet_spire.text.matrices import Matrices, extend_matrices, find_matrices, write_config
from espnet_spire.utils.errors import SpireError

INPUTS, OUTPUTS = "model.embed_tokens.weight", "lm_head.weight"


def load_weights(directory):
    """All tensors of a directory's safetensors files."""
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Untied, 420 tokens and 7 rows of 1000 behind them."""
    return make_kind("llama", tmp_path_factory.mktemp("m") / "llama", surplus=7)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """Tied, 420 tokens and 7 rows of 1000 behind them."""
    return make_kind("gemma", tmp_path_factory.mktemp("m") / "gemma", surplus=7)


def extend(base, out, *, base_size=420, rows=448, seed=0, method="gaussian"):
    out.mkdir()
    write_config(base, out, base_size, rows)
    extend_matrices(
        *(base, out, out / "aside"), base_size=base_size, rows=rows, seed=seed, method=method
    )
    return load_weights(out)


def test_names(llama, gemma):
    assert find_matrices(llama) == Matrices(INPUTS, OUTPUTS, tied=False)
    assert find_matrices(gemma) == Matrices(INPUTS, OUTPUTS, tied=True)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_rows_and_all_else(kind, request, tmp_path):
    base = request.getfixturevalue(kind)
    old, new = load_weights(base), extend(base, tmp_path / "out")
    assert old.keys() == new.keys()
    assert (OUTPUTS in old) is (kind == "llama")
    for name, tensor in old.items():
        if name in (INPUTS, OUTPUTS):
            assert new[name].shape == (448, 16) and new[name].dtype == tensor.dtype
            assert new[name][:420].equal(tensor[:420])
            assert new[name][420:].abs().max() < 10  # not the rows of 1000
            assert len(new[name].unique(dim=0)) == 448
        else:
            assert new[name].equal(tensor)
    assert read_json(tmp_path / "out/config.json") == {
        **read_json(base / "config.json"),
        "vocab_size": 448,
    }


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_each_matrix_has_its_own_statistics(kind, request, tmp_path):
    """Against numpy's; rows of no token (all 1000) take no part."""
    base = tmp_path / "base"
    shutil.copytree(request.getfixturevalue(kind), base)
    tensors, rng = load_weights(base), np.random.default_rng(0)
    for shift, name in enumerate(sorted(tensors.keys() & {INPUTS, OUTPUTS})):
        values = rng.standard_normal((420, 16)) @ rng.standard_normal((16, 16)) + 3 * shift
        tensors[name][:420] = torch.from_numpy(values)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    new = extend(base, tmp_path / "out", rows=20_416)
    for name in tensors.keys() & {INPUTS, OUTPUTS}:
        rows, existing = new[name].double().numpy(), tensors[name][:420].double().numpy()
        check_statistics(rows[420:], existing, 0.05)


def test_loaded_by_transformers(llama, gemma, tmp_path):
    from transformers import AutoModelForCausalLM

    for base, tied in ((llama, False), (gemma, True)):
        out = tmp_path / base.name
        new = extend(base, out)
        model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
        inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
        assert (inputs.weight.data_ptr() == outputs.weight.data_ptr()) is tied
        assert inputs.weight.equal(new[INPUTS])
        assert outputs.weight.equal(new[INPUTS if tied else OUTPUTS])
        ids = torch.tensor([[1, 5, 447]])
        before = AutoModelForCausalLM.from_pretrained(base)
        logits = model(ids).logits
        assert logits.shape == (1, 3, 448)
        # What the base knows it still says.
        expected = before(ids[:, :2]).logits[..., :420]
        torch.testing.assert_close(logits[:, :2, :420], expected)


def test_seed_and_mean(llama, tmp_path):
    one = extend(llama, tmp_path / "one", seed=3)
    two = extend(llama, tmp_path / "two", seed=3)
    other = extend(llama, tmp_path / "other", seed=4)
    for name in (INPUTS, OUTPUTS):
        assert one[name].equal(two[name])
        assert not (one[name][420:] == other[name][420:]).any()
    assert not one[INPUTS][420:].equal(one[OUTPUTS][420:])
    mean = extend(llama, tmp_path / "mean", method="mean")
    for name, tensor in load_weights(llama).items():
        if name in (INPUTS, OUTPUTS):
            expected = tensor[:420].double().numpy().mean(axis=0)
            np.testing.assert_allclose(mean[name][420:], np.tile(expected, (28, 1)), atol=1e-7)


def test_sharded_half_precision(tmp_path):
    base = make_kind("qwen", tmp_path / "base", tied=False, surplus=3)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="15KB")
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) == 3
    old, new = load_weights(base), extend(base, tmp_path / "out", base_size=404)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    for name, tensor in old.items():
        assert new[name].dtype == torch.bfloat16
        kept = 404 if name in (INPUTS, OUTPUTS) else len(tensor)
        assert new[name][:kept].equal(tensor[:kept])
    index = read_json(tmp_path / "out/model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in new.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert loaded.keys() == new.keys() and all(loaded[name].equal(new[name]) for name in new)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_pytorch_files(kind, request, tmp_path):
    """Bases without safetensors files are loaded; the result is the same."""
    base = tmp_path / "base"
    shutil.copytree(request.getfixturevalue(kind), base)
    expected = extend(base, tmp_path / "expected")
    tensors = load_weights(base)
    if kind == "gemma":
        tensors[OUTPUTS] = tensors[INPUTS]  # such files hold both names
    torch.save(tensors, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    found = extend(base, tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)
    assert not list((tmp_path / "out").glob("*.bin"))


def test_tied_matrix_stored_twice(gemma, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(gemma, base)
    tensors = load_weights(base)
    tensors[OUTPUTS] = tensors[INPUTS].clone()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    new = extend(base, tmp_path / "out")
    assert new[INPUTS].equal(new[OUTPUTS])
    assert new[INPUTS].equal(extend(gemma, tmp_path / "once")[INPUTS])
    tensors[OUTPUTS][3, 3] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpireError, match="lm_head.* differs from model.embed.*tie_word_embeddings"):
        extend(base, tmp_path / "apart")


def test_tied_matrix_stored_as_output(gemma, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(gemma, base)
    tensors = load_weights(base)
    tensors[OUTPUTS] = tensors.pop(INPUTS)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    new = extend(base, tmp_path / "out")
    assert INPUTS not in new
    assert new[OUTPUTS].equal(extend(gemma, tmp_path / "usual")[INPUTS])


# Errors -------------------------------------------------------------------------------------


def test_bad_weights(llama, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    with pytest.raises(SpireError, match="embed_tokens.weight has 427 rows, .* tokenizer 428 tok"):
        extend(base, tmp_path / "1", base_size=428)
    tensors = load_weights(base)
    tensors[OUTPUTS][419, 0] = torch.nan
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpireError, match="lm_head.weight has values that are not finite"):
        extend(base, tmp_path / "2")
    del tensors[OUTPUTS]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpireError, match="have no tensor lm_head.weight"):
        extend(base, tmp_path / "3")
    out = tmp_path / "config"
    out.mkdir()
    write_config(llama, out, 420, 512)
    settings = {"base_size": 420, "rows": 448, "seed": 0, "method": "mean"}
    with pytest.raises(SpireError, match="does not take its matrices' size from vocab_size"):
        extend_matrices(llama, out, out / "aside", **settings)
    (base / "model.safetensors").unlink()
    with pytest.raises(SpireError, match=r"no file named .*model.safetensors"):
        extend(base, tmp_path / "4")


def test_bad_config(llama, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    config = read_json(base / "config.json")

    def refused(change, message):
        write_json(base / "config.json", {**config, **change})
        with pytest.raises(SpireError, match=message):
            write_config(base, tmp_path, 420, 448)

    refused({"quantization_config": {"bits": 4}}, "config.json: the model is quantised")
    refused({"text_config": {}}, "config.json: the model is multimodal")
    refused({"pad_token_id": 421}, "pad_token_id is 421, but the tokenizer has 420 tokens")
    refused({"eos_token_id": [2, 420]}, "eos_token_id is 420")
    write_json(base / "config.json", {**config, "model_type": "unheard-of"})
    with pytest.raises(SpireError, match="unheard-of"):
        find_matrices(base)
    write_json(base / "config.json", {**config, "model_type": "phi", "num_key_value_heads": 2})
    with pytest.raises(SpireError, match="output layers with a bias"):
        find_matrices(base)
    (base / "config.json").write_text(json.dumps({}))
    with pytest.raises(SpireError, match="config.json"):
        find_matrices(base)
