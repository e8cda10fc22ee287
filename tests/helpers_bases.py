"""Small bases of every kind that ``extend_vocabulary`` takes, in their publishers' layouts.

The tokenizers are trained on a few sentences; the models are random and two blocks deep.
"""

import io
import json
from pathlib import Path

import numpy as np

TEXTS = [
    "The cat sat on the mat and the dog sat on the log. It's we'll they don't",
    "English: the red house is near the old river\nGerman: das rote Haus ist am alten Fluss",
    "Speech: Translate the following text from English to German.\n\n\tuser assistant system",
    "Le chat est sur la table. Der Hund schläft. 今天天气很好。 1234567890 привет мир 안녕하세요",
] * 5

LLAMA_3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_REGEX = LLAMA_3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


# SentencePiece ------------------------------------------------------------------------------


def train_sentencepiece(out: Path, **settings) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in TEXTS for line in text.split("\n")),
        model_writer=model,
        **{
            **{"model_type": "bpe", "vocab_size": 420, "hard_vocab_limit": False},
            **{"byte_fallback": True, "character_coverage": 1.0, "split_digits": True},
            **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            **{"allow_whitespace_only_pieces": True, "unk_id": 0, "bos_id": 1, "eos_id": 2},
            **{"pad_id": -1, "num_threads": 1, "minloglevel": 2},
            **settings,
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(model.getvalue())


def added(token: str, index: int, **flags):
    """An added token as ``tokenizer.json`` has it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": token, **plain, "special": True, **flags}


def llama_tokenizer(out: Path, *, legacy: bool = False, chatml: bool = False) -> None:
    """Llama-2's files: prefix space, BOS; ``chatml`` as in EuroLLM, pieces 3 and 4."""
    from transformers import LlamaTokenizer

    symbols = ["<|im_start|>", "<|im_end|>"] if chatml else []
    train_sentencepiece(out, user_defined_symbols=symbols)
    settings = {
        **{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"},
        **{"unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False},
        **{"legacy": legacy, "clean_up_tokenization_spaces": False},
    }
    write_json(out / "tokenizer_config.json", settings)
    LlamaTokenizer.from_pretrained(out).save_pretrained(out)
    tokenizer = read_json(out / "tokenizer.json")
    # As converted by the library of those days.
    tokenizer["pre_tokenizer"] = None
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    tokenizer["added_tokens"] = [
        added(token, index) for index, token in enumerate(["<unk>", "<s>", "</s>", *symbols])
    ]
    write_json(out / "tokenizer.json", tokenizer)
    entries = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in tokenizer["added_tokens"]
    }
    write_json(out / "tokenizer_config.json", {**settings, "added_tokens_decoder": entries})
    write_json(out / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>"})


def gemma_tokenizer(out: Path) -> None:
    """Gemma 2's files: no prefix space, runs of newlines and turn marks as added tokens."""
    from transformers import LlamaTokenizer

    symbols = ["<mask>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "<h1>"]
    train_sentencepiece(
        out,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False},
        **{"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"},
        user_defined_symbols=symbols,
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    LlamaTokenizer.from_pretrained(out, **names).save_pretrained(out)
    tokenizer = read_json(out / "tokenizer.json")
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    tokenizer["pre_tokenizer"] = None
    tokenizer["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            *({"type": "ByteFallback"}, {"type": "Fuse"}),
        ],
    }
    tokenizer["added_tokens"] = [
        added(token, tokenizer["model"]["vocab"][token], special=not plain)
        for token in ["<pad>", "<eos>", "<bos>", "<unk>", *symbols]
        for plain in [token in ("\n", "\n\n", "▁▁", "<h1>")]
    ]
    write_json(out / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "add_bos_token": True}
    entries = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in tokenizer["added_tokens"]
    }
    write_json(
        out / "tokenizer_config.json", {**settings, **names, "added_tokens_decoder": entries}
    )


# Byte-level BPE -----------------------------------------------------------------------------


def _train_byte_level(regex: str, ignore_merges: bool):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def qwen_tokenizer(out: Path) -> None:
    """Qwen 2.5's files: NFC, no BOS, ChatML's tokens, its own chat template as a file."""
    from tokenizers import normalizers, processors

    tokenizer = _train_byte_level(QWEN_REGEX, False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<tool_call>"])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))  # vocab.json, merges.txt
    parsed = read_json(out / "tokenizer.json")
    entries = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in parsed["added_tokens"]
    }
    settings = {
        **{"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "add_bos_token": False},
        **{"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None},
        **{"add_prefix_space": False, "errors": "replace", "split_special_tokens": False},
        **{"clean_up_tokenization_spaces": False, "chat_template": "{{ 'theirs' }}"},
    }
    write_json(out / "tokenizer_config.json", {**settings, "added_tokens_decoder": entries})
    write_json(out / "added_tokens.json", {e["content"]: int(i) for i, e in entries.items()})
    (out / "chat_template.jinja").write_text("{{ 'theirs' }}")


def llama_3_tokenizer(out: Path) -> None:
    """Llama 3's files: whole words looked up before merging, BOS by a template, reserved tokens."""
    from tokenizers import processors

    tokenizer = _train_byte_level(LLAMA_3_REGEX, True)
    begin = "<|begin_of_text|>"
    tokenizer.add_special_tokens([begin, "<|end_of_text|>", "<|reserved_special_token_0|>"])
    bos = tokenizer.token_to_id(begin)
    template = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, bos)]
    )
    byte_level = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = processors.Sequence([byte_level, template])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin},
        **{"eos_token": "<|end_of_text|>", "clean_up_tokenization_spaces": True},
    }
    write_json(out / "tokenizer_config.json", settings)


# Models -------------------------------------------------------------------------------------

_TOKENIZERS = {
    "llama": llama_tokenizer,
    "llama-legacy": lambda out: llama_tokenizer(out, legacy=True),
    "eurollm": lambda out: llama_tokenizer(out, chatml=True),
    "gemma": gemma_tokenizer,
    "qwen": qwen_tokenizer,
    "llama-3": llama_3_tokenizer,
}
KINDS = tuple(_TOKENIZERS)


def make_kind(kind: str, out: Path, *, tied=None, surplus: int = 0, **saving) -> Path:
    """A base directory.

    Args:
        kind: one of ``KINDS``.
        out: directory to write.
        tied: one matrix for both; by default as the small models of the family have it.
        surplus: rows of the matrices beyond the tokenizer; set to 1000 to be seen.
        saving: options of ``save_pretrained``.
    """
    import torch
    from transformers import AutoModelForCausalLM as Model
    from transformers import AutoTokenizer, Gemma2Config, LlamaConfig, Qwen2Config

    _TOKENIZERS[kind](out)
    config_class = {"gemma": Gemma2Config, "qwen": Qwen2Config}.get(kind, LlamaConfig)
    tied = kind in ("gemma", "qwen", "llama-3") if tied is None else tied
    write_json(out / "config.json", {"model_type": config_class.model_type})
    tokenizer = AutoTokenizer.from_pretrained(out)
    torch.manual_seed(2)
    config = config_class(
        vocab_size=len(tokenizer) + surplus,
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": tied},
        **{"initializer_range": 0.1, "eos_token_id": tokenizer.eos_token_id},
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=None,
    )
    model = Model.from_config(config)
    for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        weight.data[len(tokenizer) :] = 1000
    model.save_pretrained(out, **saving)
    return out


# Rows ---------------------------------------------------------------------------------------


def check_statistics(rows, existing, tolerance):
    """Rows from N(mean, 1e-5 · covariance): numpy's own mean and covariance of ``existing``."""
    mean, covariance = existing.mean(axis=0), np.cov(existing.T)
    deviation = np.sqrt(1e-5 * np.diag(covariance))
    error = np.abs(rows.mean(axis=0) - mean) / (deviation / np.sqrt(len(rows)))
    assert error.max() < 5  # standard errors
    found = np.cov(rows.T) / 1e-5
    assert np.linalg.norm(found - covariance) < tolerance * np.linalg.norm(covariance)
