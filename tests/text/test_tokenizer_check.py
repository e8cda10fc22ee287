"""Tokenizers that must not come out of an extension are refused."""

import shutil

import pytest
from helpers_bases import added, llama_tokenizer, make_kind, read_json, write_json

from espnet_spire.text.tokenizer_check import (
    check_sentencepiece,
    check_template,
    check_tokenizer,
)
from espnet_spire.text.tokenizer_files import plan_layout, write_tokenizer_files
from espnet_spire.utils.errors import SpireError

K = 20


def tokenizer_of(directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture
def files(tmp_path):
    """Files of a base and of its extension; what they are to be."""
    base, out = tmp_path / "base", tmp_path / "out"
    llama_tokenizer(base, legacy=True)
    out.mkdir()
    for directory in (base, out):
        write_json(directory / "config.json", {"model_type": "llama"})
    vocab = tokenizer_of(base).get_vocab()
    layout = plan_layout(vocab, K)
    write_tokenizer_files(base, out, vocab, layout, has_bos=True)
    return base, out, layout


def change(directory, edit):
    """Edit ``tokenizer.json`` and load it."""
    tokenizer = read_json(directory / "tokenizer.json")
    edit(tokenizer)
    write_json(directory / "tokenizer.json", tokenizer)
    return tokenizer_of(directory)


def test_what_is_right(files):
    base, out, layout = files
    check_tokenizer(tokenizer_of(base), tokenizer_of(out), layout)
    check_template(tokenizer_of(out))
    check_sentencepiece(base, out, layout)


def test_wrong_ids(files):
    base, out, layout = files
    with pytest.raises(SpireError, match="the extended tokenizer has 420 tokens, not 447"):
        check_tokenizer(tokenizer_of(base), tokenizer_of(base), layout)

    def swap(tokenizer):
        vocab = tokenizer["model"]["vocab"]
        one, two = chr(0xF0000), chr(0xF0001)
        vocab[one], vocab[two] = vocab[two], vocab[one]

    with pytest.raises(SpireError, match=r"token '\\U000f0000' does not have id 425"):
        check_tokenizer(tokenizer_of(base), change(out, swap), layout)


def test_added_tokens_in_llamas_layout(files):
    """The plain way, ``add_tokens``: white space comes between units and text."""
    base, out, layout = files
    naive = tokenizer_of(base)
    naive.add_tokens(list(layout.new_tokens))
    assert len(naive) == layout.size
    with pytest.raises(SpireError, match="are not decoded to themselves"):
        check_tokenizer(tokenizer_of(base), naive, layout)


def test_units_that_merge(files):
    base, out, layout = files

    def merge(tokenizer):
        one, two = chr(0xF0000), chr(0xF0001)
        tokenizer["model"]["vocab"][one + two] = tokenizer["model"]["vocab"].pop("<0x03>")
        tokenizer["model"]["merges"].append([one, two])

    with pytest.raises(SpireError, match="units between '' and '' are not one id each"):
        check_tokenizer(tokenizer_of(base), change(out, merge), layout)


def test_unit_that_takes_white_space(files):
    base, out, layout = files

    def strip(tokenizer):
        entry = added(chr(0xF0000), layout.first_unit_id, special=False, lstrip=True)
        tokenizer["added_tokens"].append(entry)

    settings = read_json(out / "tokenizer_config.json")
    del settings["added_tokens_decoder"]  # tokenizer.json counts
    write_json(out / "tokenizer_config.json", settings)
    with pytest.raises(SpireError, match="units between '' and '' are not one id each"):
        check_tokenizer(tokenizer_of(base), change(out, strip), layout)


def test_text_that_changes(files):
    base, out, layout = files
    after = change(out, lambda tokenizer: tokenizer["model"]["merges"].pop(0))
    with pytest.raises(SpireError, match="is tokenised otherwise than before"):
        check_tokenizer(tokenizer_of(base), after, layout)


def test_special_token_that_falls_apart(files):
    base, out, layout = files
    settings = read_json(out / "tokenizer_config.json")
    del settings["added_tokens_decoder"]
    write_json(out / "tokenizer_config.json", settings)

    def drop(tokenizer):
        tokenizer["added_tokens"] = [
            entry for entry in tokenizer["added_tokens"] if entry["content"] != "<PAD>"
        ]

    with pytest.raises(SpireError, match="<PAD> between letters is not one id"):
        check_tokenizer(tokenizer_of(base), change(out, drop), layout)


def test_other_chat_template(files):
    tokenizer = tokenizer_of(files[1])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(SpireError, match="the chat template does not give the ids"):
        check_template(tokenizer)


def test_sentencepiece_out_of_step(files, tmp_path):
    base, out, layout = files
    with pytest.raises(SpireError, match="tokenizer.model has 420 pieces, not 447"):
        check_sentencepiece(base, base, layout)
    moved = layout._replace(new_tokens=layout.new_tokens[1:] + layout.new_tokens[:1])
    with pytest.raises(SpireError, match="tokenizer.model: '<EOD>' does not have id 420"):
        check_sentencepiece(base, out, moved)
    other = make_kind("gemma", tmp_path / "other")
    shutil.copy(other / "tokenizer.model", base / "tokenizer.model")
    with pytest.raises(SpireError, match="tokenizer.model: .* is tokenised otherwise"):
        check_sentencepiece(base, out, layout)
