"""Bases of every kind, extended: ids, text, units between text, files, models, refusals."""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import sentencepiece
import torch
from helpers_bases import KINDS, make_kind, read_json, write_json
from safetensors.numpy import load_file

from espnet_spire.bin import extend_vocabulary as command
from espnet_spire.text.prompts import (
    Turn,
    asr_plain,
    chatml_pieces,
    chatml_prompt,
    multi_turn_st_conversation,
)
from espnet_spire.text.vocabulary import (
    describe_units,
    extend_vocabulary,
    find_base,
    read_spire_json,
)
from espnet_spire.units.codebook import Codebook, codebook_identity, save_codebook
from espnet_spire.units.subwords import learn_unit_bpe
from espnet_spire.utils.errors import SpireError

K = 20
MEGATRON = ["<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>"]
CHATML = ["<|im_end|>", "<|im_start|>"]
TEXTS = [
    "The cat sat on  the mat.\nGerman: die Katze, 今天 12 \t ü",
    *("", " ", "\n\n", "a  b   c", "Zwölf — «été» 한국어 🙂 e\u0301 ﬁ", "x\r\ny\r\n\r\n z"),
    *("<s>x</s> <|endoftext|>y<eos>\n<start_of_turn>", "we'll DON'T 12345 \u2028 \ufeff"),
]


def tokenizer_of(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def unit(number):
    return chr(0xF0000 + number)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


class Made(NamedTuple):
    """A base and what was made of it."""

    kind: str
    base: Path
    out: Path
    tokenizer: object
    size: int
    first: int


_MADE = {}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """Each kind of base with 20 units, seed 3; 7 rows of the base belong to no token."""
    if request.param not in _MADE:
        folder = tmp_path_factory.mktemp(request.param)
        base, out = make_kind(request.param, folder / "base", surplus=7), folder / "out"
        extend_vocabulary(base, K, out, seed=3)
        size = len(tokenizer_of(base))
        _MADE[request.param] = Made(request.param, base, out, tokenizer_of(out), size, size + 5)
    return _MADE[request.param]


@pytest.fixture(scope="module")
def base_size(base_model):
    return sentencepiece.SentencePieceProcessor(
        model_file=f"{base_model}/tokenizer.model"
    ).vocab_size()


# Ids ----------------------------------------------------------------------------------------


def test_ids_in_order(made):
    own = CHATML if made.kind in ("eurollm", "qwen") else []
    assert len(made.tokenizer) == made.size + 5 + K + 2 - len(own)
    ids = made.tokenizer.convert_tokens_to_ids
    assert ids(MEGATRON) == list(range(made.size, made.size + 5))
    assert ids([unit(number) for number in range(K)]) == list(range(made.first, made.first + K))
    if own:
        assert ids(CHATML) == tokenizer_of(made.base).convert_tokens_to_ids(CHATML)
        assert max(ids(CHATML)) < made.size
    else:
        assert ids(CHATML) == [made.first + K, made.first + K + 1]


def test_spire_json(made):
    own = made.kind in ("eurollm", "qwen")
    size = made.size + 5 + K + (0 if own else 2)
    assert read_spire_json(made.out) == {
        "base": str(made.base),
        "base_vocab_size": made.size,
        "first_unit_id": made.first,
        "num_units": K,
        "unit_tokens": "added" if made.kind in ("qwen", "llama-3") else "piece",
        "vocab_size": size,
        "padded_vocab_size": -(-size // 64) * 64,
        "reused_tokens": {
            "eurollm": {"<|im_end|>": 4, "<|im_start|>": 3},
            "qwen": {"<|im_end|>": 402, "<|im_start|>": 401},
        }.get(made.kind, {}),
        "init": "gaussian",
        "seed": 3,
        "codebook": None,
        "unit_bpe": None,
    }


def test_text_as_before(made):
    before = tokenizer_of(made.base)
    for text in TEXTS:
        assert before(text).input_ids == made.tokenizer(text).input_ids
        assert before.decode(ids_of(before, text)) == made.tokenizer.decode(
            ids_of(made.tokenizer, text)
        )


def test_each_unit_is_exactly_one_id(made):
    """Also at both ends, between text, and next to all kinds of white space."""
    order = np.random.default_rng(0).permutation(K).tolist() + [4, 4, 4]
    units = "".join(map(unit, order))
    for left in ("", "a", " ", "Speech: ", "\n", "\t", "x \n", "今", "e\u0301", "<|im_start|>"):
        for right in (
            "",
            "b",
            " ",
            " b",
            "\nEnglish: the",
            "\r\n\n",
            "  ",
            "어",
            "\u0301 x",
            "<|im_end|>\n",
        ):
            text = f"{left}{units}{right}"
            ids = ids_of(made.tokenizer, text)
            start = ids.index(made.first + order[0])
            middle = ids[start : start + len(order)]
            assert middle == [made.first + number for number in order]
            outside = ids[:start] + ids[start + len(order) :]
            assert not any(made.first <= index < made.first + K for index in outside)
            # decoded to the same text, where that holds of text (`legacy` adds white space)
            plain = f"{left}|{right}"
            if made.tokenizer.decode(ids_of(made.tokenizer, plain)) == plain:
                assert made.tokenizer.decode(ids) == text
                assert made.tokenizer.decode(ids, skip_special_tokens=True) == text.replace(
                    "<|im_start|>", ""
                ).replace("<|im_end|>", "")


def test_text_beside_units_has_the_ids_of_text(made):
    """Text before a unit is tokenised as if it ended there, text after it as if it began there.

    In Llama's layout without the prefix space that only the beginning of a text gets.
    """
    model = made.tokenizer.backend_tokenizer.model
    for left in ("the mat and", "The dog ", "", "12 今天"):
        for right in ("the red house", " is near", "", "привет 12"):
            if made.kind in ("qwen", "llama-3"):
                after = ids_of(made.tokenizer, right)
            else:
                after = [token.id for token in model.tokenize(right.replace(" ", "▁"))]
            before = ids_of(made.tokenizer, left)
            if made.kind in ("llama", "llama-legacy", "eurollm") and not left:
                before = [made.tokenizer.convert_tokens_to_ids("▁")]
            found = ids_of(made.tokenizer, f"{left}{unit(7)}{unit(3)}{right}")
            assert found == [*before, made.first + 7, made.first + 3, *after]


def test_one_unit_in_place_of_all(made):
    """Ids of a prompt = ids with one unit for them all, and the units' ids in its place.

    Examples are made so, for speed.
    """
    units = np.random.default_rng(1).integers(0, K, 50).tolist()
    for render in (
        lambda some: asr_plain(some, "the cat sat"),
        lambda some: asr_plain(some, ""),
        lambda some: "".join(
            piece.text
            for piece in chatml_pieces(multi_turn_st_conversation(some, "the", "de", "die Katze"))
        ),
        lambda some: chatml_prompt([Turn("user", "Speech: " + "".join(map(unit, some)) + "\n")]),
    ):
        for placeholder in (0, K - 1):
            ids = ids_of(made.tokenizer, render([placeholder]))
            place = ids.index(made.first + placeholder)
            assert ids.count(made.first + placeholder) == 1
            ids[place : place + 1] = [made.first + number for number in units]
            assert ids == ids_of(made.tokenizer, render(units))


def test_offsets(made):
    """Which characters a token came from: what carries loss is found by it."""
    text = f"Speech: {unit(3)}{unit(4)}\nEnglish: the é<|im_end|>\n"
    encoding = made.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = dict(zip(encoding.input_ids, encoding.offset_mapping, strict=True))
    assert spans[made.first + 3] == (8, 9) and spans[made.first + 4] == (9, 10)
    end = made.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert text[slice(*spans[end])] == "<|im_end|>"


def test_special_tokens_are_one_id_and_skipped(made):
    ids = ids_of(made.tokenizer, "<|im_start|>user\nHi<|im_end|>")
    assert [ids[0], ids[-1]] == made.tokenizer.convert_tokens_to_ids(CHATML)[::-1]
    assert made.tokenizer.decode(ids, skip_special_tokens=True).strip() == "user\nHi"


def test_chat_template_gives_the_ids_of_training(made):
    turns = multi_turn_st_conversation([3, 0, 19], "the cat sat", "de", "die Katze")
    bos = [] if made.kind == "qwen" else [made.tokenizer.bos_token_id]
    assert (made.tokenizer.bos_token_id is None) is (made.kind == "qwen")
    for conversation in (turns[:1], turns[:3], [Turn("system", "x"), *turns[:1]]):
        by_template = made.tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.content} for turn in conversation],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        assert list(by_template) == bos + ids_of(made.tokenizer, chatml_prompt(conversation))


# Files --------------------------------------------------------------------------------------


def test_every_reader_agrees(made):
    """The bare tokenizers library (other servers), and the slow side's files."""
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(made.out / "tokenizer.json"))
    assert bare.get_vocab() == made.tokenizer.get_vocab()
    units = "".join(map(unit, range(K)))
    for text in (units, f"a{units}\n", f" {units} b"):
        ids = bare.encode(text, add_special_tokens=False).ids
        place = ids.index(made.first)
        assert ids[place : place + K] == list(range(made.first, made.first + K))
    config = read_json(made.out / "tokenizer_config.json")
    template = (made.out / "chat_template.jinja").read_text()
    assert made.tokenizer.chat_template == template == config["chat_template"]
    for index, entry in config.get("added_tokens_decoder", {}).items():
        assert made.tokenizer.convert_tokens_to_ids(entry["content"]) == int(index)
    if made.kind == "qwen":
        ids = read_json(made.out / "added_tokens.json")
        assert {**ids, **read_json(made.out / "vocab.json")} == made.tokenizer.get_vocab()


def test_sentencepiece_file_in_step(made):
    if made.kind in ("qwen", "llama-3"):
        assert not (made.out / "tokenizer.model").exists()
        return
    new, old = (
        sentencepiece.SentencePieceProcessor(model_file=f"{path}/tokenizer.model")
        for path in (made.out, made.base)
    )
    pieces = [new.id_to_piece(index) for index in range(new.vocab_size())]
    assert pieces == made.tokenizer.convert_ids_to_tokens(list(range(len(made.tokenizer))))
    assert pieces[: made.size] == [old.id_to_piece(index) for index in range(made.size)]
    units = unit(3) + unit(0) + unit(19) + unit(19)
    prompts = [units, f"Speech:{units}\nEnglish: the cat", f"Speech: {units}\nGerman:"]
    for text in prompts:
        assert new.encode(text) == ids_of(made.tokenizer, text)
    before = tokenizer_of(made.base)
    for text in TEXTS:  # in step where the base's own are
        assert new.encode(text) == old.encode(text)
        same = old.encode(text) == ids_of(before, text)
        assert (new.encode(text) == ids_of(made.tokenizer, text)) is same
    assert old.encode(TEXTS[0]) == ids_of(before, TEXTS[0])


def test_weights(made):
    """Old rows bit for bit, also where the base has more rows than tokens."""
    old = load_file(made.base / "model.safetensors")
    new = load_file(made.out / "model.safetensors")
    rows = read_spire_json(made.out)["padded_vocab_size"]
    assert old.keys() == new.keys()
    assert ("lm_head.weight" in new) is (made.kind in ("llama", "llama-legacy", "eurollm"))
    for name, values in old.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert len(values) == made.size + 7 and new[name].shape == (rows, 16)
            assert new[name][: made.size].tobytes() == values[: made.size].tobytes()
            assert np.abs(new[name]).max() < 10
            assert len(np.unique(new[name], axis=0)) == rows
        else:
            assert new[name].tobytes() == values.tobytes()
    assert read_json(made.out / "config.json")["vocab_size"] == rows
    name = "generation_config.json"
    assert (made.out / name).read_bytes() == (made.base / name).read_bytes()


def test_loads_without_our_code(made):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made.out)
    batch = made.tokenizer(f"Speech:{unit(3)}\nEnglish:", return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    rows = model.get_input_embeddings().num_embeddings
    assert logits.shape[-1] == model.config.vocab_size == rows
    assert torch.isfinite(logits).all()


def test_saved_and_loaded_again(made, tmp_path):
    """transformers' own copy, as other trainers make."""
    made.tokenizer.save_pretrained(tmp_path)
    shutil.copy(made.out / "config.json", tmp_path)
    again = tokenizer_of(tmp_path)
    base = tokenizer_of(made.base)
    base.save_pretrained(tmp_path / "base")
    shutil.copy(made.base / "config.json", tmp_path / "base")
    base = tokenizer_of(tmp_path / "base")
    assert again.get_vocab() == made.tokenizer.get_vocab()
    for text in TEXTS:
        assert again(text).input_ids == base(text).input_ids
    text = f"Speech: {unit(3)}{unit(19)}\nEnglish: the"
    assert again(text).input_ids == made.tokenizer(text).input_ids
    assert again.chat_template == made.tokenizer.chat_template


# Sizes as published -------------------------------------------------------------------------


def test_llama_2_with_5000_units(tmp_path):
    """32000 + 5 + 5000 + 2 tokens in 37056 rows; the pieces are made up, the rest is real."""
    base = make_kind("llama", tmp_path / "base", surplus=32000 - 420)
    tokenizer = read_json(base / "tokenizer.json")
    for index in range(420, 32000):
        tokenizer["model"]["vocab"][f"piece{index}"] = index
    write_json(base / "tokenizer.json", tokenizer)
    (base / "tokenizer.model").unlink()
    extend_vocabulary(base, 5000, tmp_path / "out")
    ids = tokenizer_of(tmp_path / "out").convert_tokens_to_ids
    assert ids(MEGATRON) == [32000, 32001, 32002, 32003, 32004]
    assert ids([unit(number) for number in range(5000)]) == [32005 + i for i in range(5000)]
    assert ids(["<|im_end|>", "<|im_start|>"]) == [37005, 37006]
    for values in load_file(tmp_path / "out/model.safetensors").values():
        assert len(values) == 37056 or len(values) <= 32
    described = read_spire_json(tmp_path / "out")
    assert (described["vocab_size"], described["padded_vocab_size"]) == (37007, 37056)


# Bases of other shapes ----------------------------------------------------------------------


def test_instruction_tuned_base_has_the_tokens(tmp_path):
    """As TowerInstruct: the seven tokens behind the pieces, in another order, SentencePiece not."""
    base = tmp_path / "base"
    make_kind("llama", base, surplus=12)
    tokens = ["<CLS>", "<SEP>", "<EOD>", "<MASK>", "<PAD>", "<|im_start|>", "<|im_end|>"]
    tokenizer, config = (
        read_json(base / name) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    for index, token in enumerate(tokens, 420):
        tokenizer["added_tokens"].append({"id": index, "content": token, **flags})
        config["added_tokens_decoder"][str(index)] = {"content": token, **flags}
    write_json(base / "tokenizer.json", tokenizer)
    write_json(base / "tokenizer_config.json", config)
    extend_vocabulary(base, K, tmp_path / "out")
    described = read_spire_json(tmp_path / "out")
    assert described["base_vocab_size"] == described["first_unit_id"] == 427
    assert described["reused_tokens"] == {token: 420 + i for i, token in enumerate(tokens)}
    after = tokenizer_of(tmp_path / "out")
    assert after.convert_tokens_to_ids(tokens) == list(range(420, 427))
    assert len(after) == 427 + K == described["vocab_size"]
    text = f"<|im_start|>user\nSpeech: {unit(0)}{unit(19)}<|im_end|>\n"
    ids = ids_of(after, text)
    assert ids[0] == 425 and ids[-4:-1] == [427, 446, 426]
    assert "<|im" not in after.decode(ids, skip_special_tokens=True)
    sp = sentencepiece.SentencePieceProcessor(model_file=f"{tmp_path}/out/tokenizer.model")
    assert [sp.id_to_piece(index) for index in range(sp.vocab_size())] == (
        after.convert_ids_to_tokens(list(range(len(after))))
    )


def test_base_without_tokenizer_json(tmp_path):
    """Only SentencePiece's file, as the first Llama's: transformers converts it."""
    base = make_kind("llama", tmp_path / "base")
    extend_vocabulary(base, K, tmp_path / "usual")
    (base / "tokenizer.json").unlink()
    extend_vocabulary(base, K, tmp_path / "out")
    found, usual = tokenizer_of(tmp_path / "out"), tokenizer_of(tmp_path / "usual")
    assert found.get_vocab() == usual.get_vocab()
    for text in TEXTS:
        assert found(text).input_ids == usual(text).input_ids


def test_licence_is_passed_on(base_model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(base_model, base)
    (base / "LICENSE.txt").write_text("terms")
    (base / "README.md").write_text("about the base")
    extend_vocabulary(base, 2, tmp_path / "out")
    assert (tmp_path / "out/LICENSE.txt").read_text() == "terms"
    assert not (tmp_path / "out/README.md").exists()


def test_base_of_the_hub(base_model, monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def fetch(name, allow_patterns, ignore_patterns):
        assert "consolidated*" in ignore_patterns
        asked.append((name, allow_patterns[-1], "*.json" in allow_patterns))
        return base_model if name == "org/whole" else str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert find_base("org/whole") == Path(base_model)
    assert asked == [("org/whole", "*.safetensors", True)]
    find_base("org/old")
    assert asked[1:] == [("org/old", "*.safetensors", True), ("org/old", "*.bin", True)]

    def fail(name, **patterns):
        raise OSError("not in the cache\nand no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SpireError, match="--base org/x: no such directory, .*: not in the cache$"):
        find_base("org/x")


def test_seed(base_model, extended_model, tmp_path):
    extend_vocabulary(base_model, K, tmp_path / "same", seed=3)
    extend_vocabulary(base_model, K, tmp_path / "other", seed=4)
    files = [Path(d) / "model.safetensors" for d in (extended_model, tmp_path / "same")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != (tmp_path / "other/model.safetensors").read_bytes()


def test_what_is_logged(base_model, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    extend_vocabulary(base_model, K, tmp_path / "out")
    assert '"first_unit_id"' in caplog.text and '"codebook"' not in caplog.text


# Where units come from ----------------------------------------------------------------------


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


def test_extending_twice_is_refused(made, tmp_path):
    with pytest.raises(SpireError, match="extended already .*spire.json.*give the base model"):
        extend_vocabulary(made.out, K, tmp_path / "twice")
    copied = tmp_path / "renamed"
    shutil.copytree(made.out, copied)
    (copied / "spire.json").unlink()
    with pytest.raises(SpireError, match="--base .*renamed: .*extended already .*units"):
        extend_vocabulary(str(copied), 2 * K, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_bad_input(base_model, tmp_path):
    with pytest.raises(SpireError, match="--num_units 0"):
        extend_vocabulary(base_model, 0, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpireError, match="--base .*empty"):
        extend_vocabulary(str(tmp_path / "empty"), 5, tmp_path / "out")
    with pytest.raises(SpireError, match="--base /nowhere/at/all: no such directory"):
        extend_vocabulary("/nowhere/at/all", 5, tmp_path / "out")
    with pytest.raises(SpireError, match="--out .* and .*llama is read from there"):
        extend_vocabulary(base_model, 5, f"{base_model}/../{Path(base_model).name}")
    with pytest.raises(SpireError, match="make the model with extend_vocabulary first"):
        read_spire_json(base_model)


def test_only_an_extended_model_is_replaced(base_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "wav.scp").write_text("a a.wav\n")
    with pytest.raises(
        SpireError, match=r"out has files of something else in it \(no spire.json\)"
    ):
        extend_vocabulary(base_model, K, out)
    with pytest.raises(SpireError, match="--out .* is read from there"):
        extend_vocabulary(base_model, K, Path(base_model).parent)
    assert (out / "wav.scp").exists() and (Path(base_model) / "config.json").exists()
    (out / "wav.scp").unlink()
    extend_vocabulary(base_model, K, out)
    extend_vocabulary(base_model, K + 1, out)
    assert read_spire_json(out)["num_units"] == K + 1


def test_tokenizer_files_that_do_not_belong_together(base_model, extended_model, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(base_model, mixed)
    shutil.copy(f"{extended_model}/tokenizer.model", mixed / "tokenizer.model")
    with pytest.raises(SpireError, match="tokenizer.model: .* do not belong together"):
        extend_vocabulary(str(mixed), K, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]  # nothing half-written


def test_tokenizer_that_is_larger_than_the_model(tmp_path):
    base = make_kind("llama", tmp_path / "base")
    config = read_json(base / "tokenizer_config.json")
    write_json(base / "tokenizer_config.json", {**config, "pad_token": "[PAD]"})
    with pytest.raises(SpireError, match="tokenizer.json has 420 tokens, .* has 421 when"):
        extend_vocabulary(base, K, tmp_path / "out")
    write_json(base / "tokenizer_config.json", config)
    tokenizer = read_json(base / "tokenizer.json")
    tokenizer["model"]["vocab"]["another"] = 420
    write_json(base / "tokenizer.json", tokenizer)
    (base / "tokenizer.model").unlink()
    with pytest.raises(SpireError, match="has 420 rows, but the tokenizer 421 tokens"):
        extend_vocabulary(base, K, tmp_path / "out")
