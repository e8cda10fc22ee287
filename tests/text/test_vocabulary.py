"""The extended vocabulary: ids, tokenizers in step, and how the new rows were drawn."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.numpy import load_file

from espnet_spire.bin import extend_vocabulary as command
from espnet_spire.text.prompts import Turn, multi_turn_st_conversation
from espnet_spire.text.vocabulary import (
    describe_units,
    draw_rows,
    extend_model,
    extend_tokenizer_json,
    extend_vocabulary,
    new_tokens,
    padded_rows,
    read_spire_json,
)
from espnet_spire.train.examples import encode_chatml_prompt
from espnet_spire.units.codebook import Codebook, codebook_identity, save_codebook
from espnet_spire.units.subwords import learn_unit_bpe
from espnet_spire.utils.errors import SpireError

K = 20
TEXT = "The cat sat on  the mat.\nGerman: die Katze, 今天 12 \t ü"


def tokenizer_of(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def unit(number):
    return chr(0xF0000 + number)


@pytest.fixture(scope="module")
def base_size(base_model):
    return sentencepiece.SentencePieceProcessor(
        model_file=f"{base_model}/tokenizer.model"
    ).vocab_size()


# The arithmetic of the released models ------------------------------------------------------


def test_layout_of_llama_2_with_5000_units():
    tokens = new_tokens(5000)
    assert tokens[:5] == ["<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>"]
    assert tokens[5] == "\U000f0000" and tokens[5004] == "\U000f1387"
    assert tokens[5005:] == ["<|im_end|>", "<|im_start|>"]
    assert 32000 + len(tokens) == 37007
    assert padded_rows(37007) == 37056 == 579 * 64
    assert [padded_rows(n) for n in (1, 64, 65)] == [64, 64, 128]


# Files --------------------------------------------------------------------------------------


def test_ids_in_order(extended_model, base_size):
    tokenizer = tokenizer_of(extended_model)
    assert len(tokenizer) == base_size + 5 + K + 2
    ids = tokenizer.convert_tokens_to_ids
    assert [ids(unit(number)) for number in range(K)] == list(
        range(base_size + 5, base_size + 5 + K)
    )
    specials = ["<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>"]
    assert [ids(token) for token in specials] == list(range(base_size, base_size + 5))
    assert ids("<|im_end|>") == base_size + 5 + K
    assert ids("<|im_start|>") == base_size + 5 + K + 1


def test_each_unit_is_exactly_one_id(extended_model, base_size):
    tokenizer = tokenizer_of(extended_model)
    first = base_size + 5
    order = np.random.default_rng(0).permutation(K).tolist() + [4, 4, 4]
    units = "".join(map(unit, order))
    for text in (units, f"a{units}b", f" {units} ", f"Speech: {units}\nEnglish:"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert [i - first for i in ids if first <= i < first + K] == order
        alone = tokenizer(text.replace(units, ""), add_special_tokens=False).input_ids
        assert len(ids) <= len(alone) + len(order) + 1  # at most one piece of text split in two
        assert tokenizer.decode(ids).strip() == text.strip()


def test_text_as_before(extended_model, base_model):
    before, after = tokenizer_of(base_model), tokenizer_of(extended_model)
    for text in (TEXT, "", " ", "\n\n", "<s>x</s>", "a  b   c", "Zwölf — «été» 한국어 🙂"):
        assert before(text).input_ids == after(text).input_ids


def test_sentencepiece_file_in_step(extended_model, base_model, base_size):
    sp = sentencepiece.SentencePieceProcessor(model_file=f"{extended_model}/tokenizer.model")
    old = sentencepiece.SentencePieceProcessor(model_file=f"{base_model}/tokenizer.model")
    tokenizer = tokenizer_of(extended_model)
    assert sp.vocab_size() == len(tokenizer)
    assert [sp.id_to_piece(i) for i in range(base_size)] == [
        old.id_to_piece(i) for i in range(base_size)
    ]
    for index in range(sp.vocab_size()):
        assert sp.id_to_piece(index) == tokenizer.convert_ids_to_tokens(index)
    units = unit(3) + unit(0) + unit(19) + unit(19)
    for text in (TEXT, units, f"Speech:{units}\nEnglish: the cat", f"Speech: {units}\nGerman:"):
        assert sp.encode(text) == tokenizer(text, add_special_tokens=False).input_ids


def test_chat_template_gives_the_ids_of_training(extended_model):
    tokenizer = tokenizer_of(extended_model)
    turns = multi_turn_st_conversation([3, 0, 19], "the cat sat", "de", "die Katze")
    for conversation in (turns[:1], turns[:3], [Turn("system", "x"), *turns[:1]]):
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
        by_template = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert list(by_template) == encode_chatml_prompt(tokenizer, conversation)
        assert by_template.count(tokenizer.bos_token_id) == 1


def test_special_tokens_are_one_id_and_skipped(extended_model, base_size):
    tokenizer = tokenizer_of(extended_model)
    ids = tokenizer("<|im_start|>user\nHi<|im_end|>", add_special_tokens=False).input_ids
    assert ids[0] == base_size + 5 + K + 1
    assert ids[-1] == base_size + 5 + K
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "user\nHi"


def test_spire_json(extended_model, base_model, base_size):
    description = json.loads((Path(extended_model) / "spire.json").read_text())
    size = base_size + 5 + K + 2
    assert description == {
        "base": base_model,
        "base_vocab_size": base_size,
        "first_unit_id": base_size + 5,
        "num_units": K,
        "vocab_size": size,
        "padded_vocab_size": -(-size // 64) * 64,
        "init": "gaussian",
        "seed": 3,
        "codebook": None,
        "unit_bpe": None,
    }
    assert read_spire_json(extended_model) == description


def test_matrices_on_disk(extended_model, base_model, base_size):
    old = load_file(f"{base_model}/model.safetensors")
    new = load_file(f"{extended_model}/model.safetensors")
    assert old.keys() == new.keys()
    for name, values in old.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert new[name].shape == (-(-(base_size + 27) // 64) * 64, 16)
            assert new[name].dtype == values.dtype
            assert new[name][:base_size].tobytes() == values[:base_size].tobytes()
            assert np.isfinite(new[name]).all()
            assert len(np.unique(new[name], axis=0)) == len(new[name])
        else:
            assert new[name].tobytes() == values.tobytes()
    config = json.loads((Path(extended_model) / "config.json").read_text())
    assert config["vocab_size"] == len(new["lm_head.weight"])


def test_loads_without_our_code(extended_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(extended_model)
    tokenizer = tokenizer_of(extended_model)
    batch = tokenizer(f"Speech:{unit(3)}\nEnglish:", return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    assert (
        logits.shape[-1] == model.config.vocab_size == model.get_input_embeddings().num_embeddings
    )
    assert torch.isfinite(logits).all()


def test_tied_matrices_stay_one(tied_base_model, tmp_path):
    from transformers import AutoModelForCausalLM

    extend_vocabulary(tied_base_model, K, tmp_path / "tied")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tied")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    assert inputs.weight.data_ptr() == outputs.weight.data_ptr()
    assert len(inputs.weight) % 64 == 0
    assert "lm_head.weight" not in load_file(tmp_path / "tied/model.safetensors")


def test_seed(base_model, extended_model, tmp_path):
    extend_vocabulary(base_model, K, tmp_path / "same", seed=3)
    extend_vocabulary(base_model, K, tmp_path / "other", seed=4)
    files = [Path(d) / "model.safetensors" for d in (extended_model, tmp_path / "same")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != (tmp_path / "other/model.safetensors").read_bytes()


def make_codebook(path, num_clusters, value=0.0):
    description = {"num_clusters": num_clusters, "dim": 2, "layer": 22}
    save_codebook(Codebook(torch.full((num_clusters, 2), value), description), path)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def unit_bpe(tmp_path):
    """A codebook of 4 units, and 5 subwords of them."""
    book = make_codebook(tmp_path / "book", 4)
    (tmp_path / "units").write_text("a 1 2 3 1 2\nb 1 2\n")
    learn_unit_bpe(
        *([tmp_path / "units"], 4, 5, tmp_path / "bpe"),
        max_utterances=10,
        codebook=codebook_identity(book),
    )
    return book, tmp_path / "bpe"


def test_command_with_unit_bpe(base_model, base_size, unit_bpe, tmp_path):
    book, bpe = unit_bpe
    out = str(tmp_path / "out")
    options = ["--base", base_model, "--out", out, "--num_units", "5", "--unit-bpe", str(bpe)]
    command.main([*options, "--codebook", str(book)])
    described = read_spire_json(out)
    assert described["num_units"] == 5 and described["vocab_size"] == base_size + 5 + 5 + 2
    assert described["codebook"] == {
        **{"num_clusters": 4, "dim": 2, "layer": 22},
        "sha256": sha256(book / "codebook.safetensors"),
    }
    assert described["unit_bpe"] == {
        **{"num_units": 4, "vocab_size": 5, "max_piece_units": 16, "seed": 0},
        **{"utterances": 2, "of_utterances": 2, "units": 7, "numbers": 4},
        "sha256": sha256(bpe / "unit_bpe.model"),
    }


def test_units_of_a_unit_bpe_must_fit(base_model, unit_bpe, tmp_path):
    book, bpe = unit_bpe
    # Without --codebook: the one that the unit BPE was learned with.
    assert describe_units(5, None, bpe) == describe_units(5, book, bpe)
    # An imported one, of which nothing but K is known.
    stored = json.loads((bpe / "unit_bpe.json").read_text())
    (bpe / "unit_bpe.json").write_text(json.dumps({**stored, "codebook": None}))
    assert describe_units(5, book, bpe)["codebook"] == codebook_identity(book)
    assert describe_units(5, None, bpe)["codebook"] is None
    (bpe / "unit_bpe.json").write_text(json.dumps(stored))

    with pytest.raises(SpireError, match="bpe has a vocabulary of 5, --num_units is 4"):
        extend_vocabulary(base_model, 4, tmp_path / "out", codebook=book, unit_bpe=bpe)
    larger = make_codebook(tmp_path / "larger", 5)
    with pytest.raises(SpireError, match="larger has 5 clusters, .*bpe was learned on 4 units"):
        describe_units(5, larger, bpe)
    other = make_codebook(tmp_path / "other", 4, 1.0)
    with pytest.raises(SpireError, match="bpe was learned on units of another codebook than .*oth"):
        describe_units(5, other, bpe)
    with pytest.raises(SpireError, match="learn_unit_bpe makes it"):
        describe_units(5, book, tmp_path)
    with pytest.raises(SpireError, match="learn_kmeans makes a codebook"):
        describe_units(5, tmp_path, None)


def test_command_with_codebook_and_mean(base_model, base_size, tmp_path):
    book = make_codebook(tmp_path / "book", 20)
    out = str(tmp_path / "out")
    options = ["--base", base_model, "--out", out, "--codebook", str(book), "--init", "mean"]
    command.main([*options, "--num-units=20"])
    assert read_spire_json(out)["codebook"] == {
        **{"num_clusters": 20, "dim": 2, "layer": 22},
        "sha256": sha256(book / "codebook.safetensors"),
    }
    assert read_spire_json(out)["unit_bpe"] is None
    for values in load_file(f"{out}/model.safetensors").values():
        if len(values) % 64 == 0 and len(values) > base_size:
            expected = np.broadcast_to(values[:base_size].mean(axis=0), values[base_size:].shape)
            np.testing.assert_allclose(values[base_size:], expected, atol=1e-7)
    with pytest.raises(SpireError, match="20 clusters, --num_units is 21"):
        command.main([*options, "--num-units=21"])


# Errors -------------------------------------------------------------------------------------


def test_extending_twice_is_refused(extended_model, tmp_path):
    with pytest.raises(SpireError, match="extended already .*spire.json.*give the base model"):
        extend_vocabulary(extended_model, K, tmp_path / "twice")
    copied = tmp_path / "renamed"
    shutil.copytree(extended_model, copied)
    (copied / "spire.json").unlink()
    with pytest.raises(SpireError, match="extended already .*units"):
        extend_vocabulary(str(copied), K, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_bad_input(base_model, tmp_path):
    with pytest.raises(SpireError, match="--num_units 0"):
        extend_vocabulary(base_model, 0, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpireError, match="--base .*empty"):
        extend_vocabulary(str(tmp_path / "empty"), 5, tmp_path / "out")
    with pytest.raises(SpireError, match="make the model with extend_vocabulary first"):
        read_spire_json(base_model)
    with pytest.raises(SpireError, match="WordPiece without byte fallback"):
        extend_tokenizer_json({"model": {"type": "WordPiece", "vocab": {}}}, 0, 1)


def test_tokenizer_files_that_do_not_belong_together(base_model, extended_model, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(base_model, mixed)
    shutil.copy(f"{extended_model}/tokenizer.model", mixed / "tokenizer.model")
    with pytest.raises(SpireError, match="tokenizer.model: .* do not belong together"):
        extend_vocabulary(str(mixed), K, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]  # nothing half-written


# Statistics of the new rows -------------------------------------------------------------------

KNOWN = np.array(
    [[1, 0, 2], [2, 1, 0], [0, 3, 1], [4, -1, 5], [-3, 2, 2], [1, 1, -4]], dtype=np.float64
)


def check_statistics(rows, existing, tolerance):
    """Rows from N(mean, 1e-5 · covariance): numpy's own mean and covariance of ``existing``."""
    mean, covariance = existing.mean(axis=0), np.cov(existing.T)
    deviation = np.sqrt(1e-5 * np.diag(covariance))
    error = np.abs(rows.mean(axis=0) - mean) / (deviation / np.sqrt(len(rows)))
    assert error.max() < 5  # standard errors
    found = np.cov(rows.T) / 1e-5
    assert np.linalg.norm(found - covariance) < tolerance * np.linalg.norm(covariance)


def test_drawn_rows_have_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    rows = draw_rows(torch.from_numpy(KNOWN), 100_000, generator)
    assert rows.dtype == torch.float32
    assert tuple(rows.shape) == (100_000, 3)
    rows = rows.numpy().astype(np.float64)
    check_statistics(rows, KNOWN, 0.02)
    # Gaussian: 68.27 % within a standard deviation, the fourth moment 3
    standard = (rows - KNOWN.mean(axis=0)) / np.sqrt(1e-5 * np.var(KNOWN, axis=0, ddof=1))
    assert np.mean(np.abs(standard) < 1) == pytest.approx(0.6827, abs=0.01)
    assert np.mean(standard**4) == pytest.approx(3, abs=0.1)


def test_rows_differ_and_follow_the_generator():
    weight = torch.from_numpy(KNOWN).float()

    def draw(seed, count=700):
        return draw_rows(weight, count, torch.Generator().manual_seed(seed))

    assert draw(1).equal(draw(1))
    assert not draw(1).equal(draw(2))
    assert len(torch.unique(draw(1), dim=0)) == 700
    assert tuple(draw(1, 0).shape) == (0, 3)


def test_mean_and_unknown_initialisation():
    weight = torch.from_numpy(KNOWN).float()
    rows = draw_rows(weight, 2, torch.Generator(), method="mean")
    np.testing.assert_allclose(rows, [KNOWN.mean(axis=0)] * 2, rtol=1e-6)
    with pytest.raises(SpireError, match="--init zero: choose gaussian or mean"):
        draw_rows(weight, 2, torch.Generator(), method="zero")


@pytest.mark.parametrize("tied", [False, True])
def test_each_matrix_has_its_own_statistics(tied):
    """Row counts beyond the tokenizer (padding, here huge) take no part."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=4, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    matrices = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for shift, weight in enumerate(matrices[: 1 if tied else 2]):
        values = rng.standard_normal((100, 4)) @ rng.standard_normal((4, 4)) + 10 * (shift + 1)
        values[90:] = 1e6
        weight.data.copy_(torch.from_numpy(values))
    before = [weight.detach().numpy().copy() for weight in matrices]
    extend_model(model, 90, 8256, seed=0, method="gaussian")
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert (after[0] is after[1]) is tied
    for old, new in zip(before, after, strict=True):
        new = new.detach().numpy()
        assert new.shape == (8256, 4)
        assert new[:90].tobytes() == old[:90].tobytes()
        # float32 steps around 20 are 2e-6, the deviations about 6e-3
        check_statistics(new[90:].astype(np.float64), old[:90].astype(np.float64), 0.1)
    assert model.config.vocab_size == 8256
    logits = model(torch.tensor([[8255]])).logits
    assert logits.shape == (1, 1, 8256)
