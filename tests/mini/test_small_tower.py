"""The stand-in for TowerBase: its texts, its tokenizer, its training."""

import pytest
import torch
from helpers_lm import GERMAN, SENTENCES

from espnet_spire.mini.small_tower import (
    SmallTowerConfig,
    train_small_tower,
    train_tokenizer,
    training_texts,
)
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def dirs(tmp_path):
    mono, parallel = tmp_path / "mono", tmp_path / "parallel"
    mono.mkdir(), parallel.mkdir()
    for lang, texts in (("en", SENTENCES), ("de", GERMAN)):
        table = "".join(f"s{i} {text}\n" for i, text in enumerate(texts))
        (mono / f"text.{lang}").write_text(table)
        (parallel / f"text.tc.{lang}").write_text(table)
    return mono, parallel


def test_texts(dirs):
    mono, parallel = dirs
    texts = list(training_texts(mono, parallel, ["en", "de"], 1))
    assert texts[:12] == SENTENCES + GERMAN
    # The directions in turn: en-de, de-en, en-de …
    assert texts[12] == f"English: {SENTENCES[0]}\nGerman: {GERMAN[0]}"
    assert texts[13] == f"German: {GERMAN[1]}\nEnglish: {SENTENCES[1]}"
    assert texts[14] == f"English: {SENTENCES[2]}\nGerman: {GERMAN[2]}"
    assert len(texts) == 18
    assert len(list(training_texts(mono, parallel, ["en", "de"], 2))) == 24


def test_a_tokenizer_in_llamas_layout(tmp_path):
    from transformers import AutoTokenizer

    train_tokenizer(SENTENCES + GERMAN, 330, tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert tokenizer.convert_ids_to_tokens(list(range(3, 259))) == [
        f"<0x{byte:02X}>" for byte in range(256)
    ]
    for text in ("the cook cuts bread", "two  spaces\n\nand lines", "厨师 1234 ñ"):
        ids = tokenizer(text).input_ids
        assert ids[0] == 1 and ids.count(1) == 1 and 0 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    # Unseen characters are bytes: 厨 is E5 8E A8 in UTF-8.
    assert tokenizer("厨", add_special_tokens=False).input_ids[-3:] == [
        *(3 + 0xE5, 3 + 0x8E, 3 + 0xA8)
    ]
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "t" / name).exists()


def small(**changes):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    batches = {"sequence_length": 100, "batch_sequences": 3, "micro_batch_tokens": 200}
    return SmallTowerConfig(**sizes, **batches, vocab_size=330, num_attention_heads=2, **changes)


def test_training_gives_a_hugging_face_directory_and_is_repeatable(dirs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    once = train_small_tower(*dirs, ["en", "de"], tmp_path / "a", small(passes=1.0))
    again = train_small_tower(*dirs, ["en", "de"], tmp_path / "b", small(passes=1.0))
    longer = train_small_tower(*dirs, ["en", "de"], tmp_path / "c", small(passes=30.0))
    assert once == again and longer < 0.6 * once
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "b").state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "a"))
    assert not model.config.tie_word_embeddings and model.config.eos_token_id == 2


def test_english_is_needed(dirs, tmp_path):
    with pytest.raises(SpireError, match="--langs must have en"):
        train_small_tower(*dirs, ["de"], tmp_path / "a", small())
    with pytest.raises(SpireError, match="text.fr: no such file"):
        train_small_tower(*dirs, ["en", "fr"], tmp_path / "a", small())
    assert not (tmp_path / "a").exists()
