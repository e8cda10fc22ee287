"""Which token gets which id, and the files that say so."""

import pytest
import sentencepiece
from helpers_bases import added, llama_tokenizer, qwen_tokenizer, read_json, write_json

from espnet_spire.text.prompts import CHAT_TEMPLATE
from espnet_spire.text.tokenizer_files import (
    chat_template,
    extend_sentencepiece,
    extend_tokenizer_json,
    plan_layout,
    tokenizer_kind,
    write_tokenizer_files,
)
from espnet_spire.utils.errors import SpireError

MEGATRON = ("<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>")


def unit(number):
    return chr(0xF0000 + number)


def plain_vocab(size, *tokens):
    return {
        **{f"piece{i}": i for i in range(size)},
        **{token: size + i for i, token in enumerate(tokens)},
    }


# Ids ----------------------------------------------------------------------------------------


def test_layout_of_the_released_models():
    """Llama-2 with 5000 units, by hand."""
    layout = plan_layout(plain_vocab(32000), 5000)
    ids = layout.new_ids()
    assert [ids[token] for token in MEGATRON] == [32000, 32001, 32002, 32003, 32004]
    assert layout.first_unit_id == ids["\U000f0000"] == 32005
    assert ids["\U000f1387"] == 32005 + 4999 == 37004
    assert (ids["<|im_end|>"], ids["<|im_start|>"]) == (37005, 37006)
    assert layout.size == 37007 and len(ids) == 5007
    assert layout.reused == {}


def test_tokens_of_the_base_are_reused():
    layout = plan_layout(plain_vocab(100, "<|im_start|>", "<|im_end|>"), 3)
    assert layout.reused == {"<|im_end|>": 101, "<|im_start|>": 100}
    assert layout.new_tokens == (*MEGATRON, *map(unit, range(3)))
    assert (layout.base_size, layout.first_unit_id, layout.size) == (102, 107, 110)
    everything = plan_layout(plain_vocab(9, *MEGATRON, "<|im_start|>", "<|im_end|>"), 3)
    assert everything.new_tokens == tuple(map(unit, range(3)))
    assert (everything.first_unit_id, everything.size) == (16, 19)
    some = plan_layout(plain_vocab(9, "<PAD>", "<|im_end|>"), 1)
    assert some.new_tokens == ("<CLS>", "<EOD>", "<MASK>", "<SEP>", unit(0), "<|im_start|>")
    assert some.first_unit_id == 15


def test_bases_that_cannot_be_extended():
    with pytest.raises(SpireError, match="extended already .it has units.; give the base"):
        plan_layout(plain_vocab(9, unit(0)), 5)
    with pytest.raises(SpireError, match=r"has the character U\+F0003 as a token, .* unit 3"):
        plan_layout(plain_vocab(9, unit(3)), 5)
    assert plan_layout(plain_vocab(9, unit(3)), 3).first_unit_id == 15
    with pytest.raises(SpireError, match="the tokenizer's 3 ids are not 0 to 2; fill the gaps"):
        plan_layout({"a": 0, "b": 1, "c": 3}, 5)


# tokenizer.json -----------------------------------------------------------------------------


def parsed(vocab, tokens=(), **parts):
    model = {"type": "BPE", "byte_fallback": True, "vocab": dict(vocab), "merges": []}
    return {"model": model, "added_tokens": list(tokens), **parts}


def test_kinds():
    assert tokenizer_kind(parsed({})) == "piece"
    byte_level = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}
    for parts in ({"pre_tokenizer": byte_level}, {"decoder": {"type": "ByteLevel"}}):
        tokenizer = parsed({}, **parts)
        tokenizer["model"]["byte_fallback"] = False
        assert tokenizer_kind(tokenizer) == "added"
    for model in ({"type": "BPE"}, {"type": "Unigram", "byte_fallback": True}):
        with pytest.raises(SpireError, match=f"{model['type']} without byte fallback, nor byte-l"):
            tokenizer_kind({"model": model, "pre_tokenizer": {"type": "Whitespace"}})
    with pytest.raises(SpireError, match="WordPiece"):
        tokenizer_kind({"model": {"type": "WordPiece"}, "decoder": {"type": "ByteLevel"}})


def test_pieces():
    vocab = {"<s>": 0, "a": 1}
    tokenizer = parsed(vocab, [added("<s>", 0)])
    new = extend_tokenizer_json(tokenizer, plan_layout(vocab, 2))
    tokens = ["<s>", "a", *MEGATRON, unit(0), unit(1), "<|im_end|>", "<|im_start|>"]
    assert tokenizer["model"]["vocab"] == {token: i for i, token in enumerate(tokens)}
    assert [(e["id"], e["content"]) for e in tokenizer["added_tokens"]] == [
        (0, "<s>"),
        *((i, tokens[i]) for i in (2, 3, 4, 5, 6, 9, 10)),
    ]
    assert set(new) == {2, 3, 4, 5, 6, 9, 10}
    assert tokenizer["added_tokens"][1] == added("<CLS>", 2)
    assert "id" not in new[2] and new[2]["special"]


def test_added_tokens_behind_the_pieces_become_pieces():
    """As in TowerInstruct: else the library counts their ids from the number of pieces."""
    vocab = {"a": 0, "<|im_end|>": 1, "<PAD>": 2}
    tokenizer = parsed({"a": 0}, [added("<|im_end|>", 1, special=False), added("<PAD>", 2)])
    new = extend_tokenizer_json(tokenizer, plan_layout(vocab, 1))
    tokens = ["a", "<|im_end|>", "<PAD>", "<CLS>", "<EOD>", "<MASK>", "<SEP>", unit(0)]
    tokens.append("<|im_start|>")
    assert tokenizer["model"]["vocab"] == {token: i for i, token in enumerate(tokens)}
    listed = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    assert len(listed) == len(tokenizer["added_tokens"]) == 7
    assert listed["<|im_end|>"] == added("<|im_end|>", 1)  # special from now on
    assert new[1]["special"]


def test_reused_piece_becomes_an_added_token():
    vocab = {"a": 0, "<|im_end|>": 1, "<|im_start|>": 2}
    tokenizer = parsed(vocab)
    extend_tokenizer_json(tokenizer, plan_layout(vocab, 1))
    assert added("<|im_end|>", 1) in tokenizer["added_tokens"]
    assert added("<|im_start|>", 2) in tokenizer["added_tokens"]
    assert len(tokenizer["added_tokens"]) == 7


def test_byte_level():
    vocab = {"a": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    tokenizer = parsed({"a": 0}, [added("<|im_start|>", 1), added("<|im_end|>", 2)])
    tokenizer["model"]["byte_fallback"] = False
    tokenizer["decoder"] = {"type": "ByteLevel"}
    new = extend_tokenizer_json(tokenizer, plan_layout(vocab, 2))
    assert tokenizer["model"]["vocab"] == {"a": 0}
    assert tokenizer["added_tokens"][2:] == [
        *(added(token, 3 + i) for i, token in enumerate(MEGATRON)),
        *(added(unit(i), 8 + i, special=False) for i in range(2)),
    ]
    assert set(new) == {1, 2, 3, 4, 5, 6, 7, 8, 9}


def test_files_of_different_sizes():
    layout = plan_layout(plain_vocab(4), 1)
    with pytest.raises(SpireError, match="tokenizer.json has 3 tokens, but the tokenizer has 4 wh"):
        extend_tokenizer_json(parsed(plain_vocab(3)), layout)


# SentencePiece ------------------------------------------------------------------------------


@pytest.fixture
def llama(tmp_path):
    llama_tokenizer(tmp_path / "llama")
    return tmp_path / "llama"


def sentencepiece_of(directory):
    return sentencepiece.SentencePieceProcessor(model_file=f"{directory}/tokenizer.model")


def test_sentencepiece(llama):
    before = sentencepiece_of(llama)
    size = before.vocab_size()
    pieces = [before.id_to_piece(i) for i in range(size)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    # Two tokens that the base has added to its SentencePiece model's.
    vocab.update({"<extra>": size, "<PAD>": size + 1})
    layout = plan_layout(vocab, 2)
    extend_sentencepiece(llama / "tokenizer.model", vocab, layout)
    after = sentencepiece_of(llama)
    assert [after.id_to_piece(i) for i in range(after.vocab_size())] == [
        *(*pieces, "<extra>", "<PAD>", "<CLS>", "<EOD>", "<MASK>", "<SEP>"),
        *(unit(0), unit(1), "<|im_end|>", "<|im_start|>"),
    ]
    ids = after.encode(f"a<PAD>{unit(1)}{unit(0)}<extra>")
    assert ids == [*before.encode("a"), size + 1, size + 7, size + 6, size]


def test_sentencepiece_of_another_base(llama):
    vocab = {"<extra>": 0}
    layout = plan_layout(vocab, 2)
    with pytest.raises(SpireError, match="tokenizer.model: .* has 1; .* do not belong together"):
        extend_sentencepiece(llama / "tokenizer.model", vocab, layout)
    sp = sentencepiece_of(llama)
    vocab = {f"piece{i}": i for i in range(sp.vocab_size())}
    vocab["a"] = len(vocab)
    assert sp.piece_to_id("a") != sp.unk_id()
    with pytest.raises(SpireError, match="tokenizer.model: 'a' has another id"):
        extend_sentencepiece(llama / "tokenizer.model", vocab, plan_layout(vocab, 2))


# The rest -----------------------------------------------------------------------------------


def test_templates():
    assert chat_template(True) == CHAT_TEMPLATE
    assert "{{ bos_token }}" + chat_template(False) == CHAT_TEMPLATE
    assert "bos" not in chat_template(False)


def test_settings_of_the_base_survive(tmp_path):
    files, out = tmp_path / "files", tmp_path / "out"
    out.mkdir()
    qwen_tokenizer(files)
    write_json(files / "special_tokens_map.json", {"eos_token": "<|endoftext|>"})
    before = read_json(files / "tokenizer.json")
    vocab = {**before["model"]["vocab"], **{e["content"]: e["id"] for e in before["added_tokens"]}}
    layout = plan_layout(vocab, 3)
    assert write_tokenizer_files(files, out, vocab, layout, has_bos=False) == "added"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            *("added_tokens.json", "chat_template.jinja", "merges.txt", "vocab.json"),
            *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
        ]
    )
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        assert (out / name).read_bytes() == (files / name).read_bytes()
    old, new = (read_json(path / "tokenizer_config.json") for path in (files, out))
    assert (out / "chat_template.jinja").read_text() == new["chat_template"] == chat_template(False)
    decoder = new.pop("added_tokens_decoder")
    assert {**old, "chat_template": new["chat_template"]} == {
        **new,
        "added_tokens_decoder": old["added_tokens_decoder"],
    }
    assert {name: decoder[name] for name in old["added_tokens_decoder"]} == old[
        "added_tokens_decoder"
    ]
    assert decoder[str(layout.first_unit_id + 2)] == {
        key: value for key, value in added(unit(2), 0, special=False).items() if key != "id"
    }
    listed = read_json(out / "added_tokens.json")
    assert listed == {**read_json(files / "added_tokens.json"), **layout.new_ids()}
    assert len(decoder) == len(listed)
    after = read_json(out / "tokenizer.json")
    for part in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        assert after[part] == before[part]
