"""Tiny random models of the baselines' classes, with real tokenizers made here."""

import json

import pytest

TEXTS = ["the cat sat on the mat", "der Hund sieht das Haus", "le chat est là", "今天天气很好"] * 20
WHISPER_LANGUAGES = ("en", "zh", "de", "fr")
SEAMLESS_LANGUAGES = ("eng", "deu", "fra", "cmn")


def byte_level_vocabulary():
    """Characters that stand for bytes, as in GPT-2's and Whisper's tokenizers, and merges."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, min_frequency=2)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@pytest.fixture(scope="session")
def whisper_dir(tmp_path_factory):
    """A multilingual Whisper of width 16 that hears at most 1 s at a time (others hear 30 s)."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    out = tmp_path_factory.mktemp("baselines") / "whisper"
    vocabulary, merges = byte_level_vocabulary()
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=merges)
    languages = [f"<|{code}|>" for code in WHISPER_LANGUAGES]
    names = ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>"]
    names += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    names += ["<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names[1:]})
    tokenizer.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(51)])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    torch.manual_seed(5)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=50,
        max_target_positions=40,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        init_std=0.6,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        is_multilingual=True,
        lang_to_id={name: ids[name] for name in languages},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_initial_timestamp_index=50,
        return_timestamps=False,
        prev_sot_token_id=ids["<|startofprev|>"],
        # As in published models: no symbols, neither a blank nor the end as the first token, and
        # what older versions of transformers started with.
        suppress_tokens=[5, 77, ids["<|startoftranscript|>"], ids["<|nospeech|>"]],
        begin_suppress_tokens=[vocabulary["Ġ"], ids["<|endoftext|>"]],
        forced_decoder_ids=[[1, None], [2, ids["<|transcribe|>"]]],
        max_length=40,
    )
    model.save_pretrained(out)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    WhisperProcessor(extractor, tokenizer).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="session")
def seamless_dir(tmp_path_factory):
    """A SeamlessM4T v2 of width 16 with all of its parts, and a SentencePiece BPE tokenizer."""
    import sentencepiece
    import torch
    from transformers import (
        GenerationConfig,
        SeamlessM4TFeatureExtractor,
        SeamlessM4TProcessor,
        SeamlessM4TTokenizer,
        SeamlessM4Tv2Config,
        SeamlessM4Tv2Model,
    )

    out = tmp_path_factory.mktemp("baselines") / "seamless"
    out.mkdir()
    codes = [f"__{code}__" for code in SEAMLESS_LANGUAGES]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(out / "sentencepiece.bpe"),
        model_type="bpe",
        vocab_size=90,
        bos_id=1,
        eos_id=2,
        unk_id=0,
        minloglevel=2,
    )
    (out / "sentencepiece.bpe.vocab").unlink()
    tokenizer = SeamlessM4TTokenizer.from_pretrained(
        str(out), extra_special_tokens=codes, src_lang="eng", tgt_lang="fra"
    )
    extractor = SeamlessM4TFeatureExtractor(feature_size=8, num_mel_bins=8)
    SeamlessM4TProcessor(extractor, tokenizer).save_pretrained(out)
    torch.manual_seed(6)
    small = {
        "hidden_size": 16,
        "speech_encoder_layers": 2,
        "speech_encoder_attention_heads": 2,
        "speech_encoder_intermediate_size": 32,
        "num_adapter_layers": 1,
        "encoder_layers": 2,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_layers": 2,
        "decoder_ffn_dim": 32,
        "decoder_attention_heads": 2,
        "t2u_vocab_size": 20,
        "t2u_encoder_layers": 1,
        "t2u_encoder_ffn_dim": 16,
        "t2u_encoder_attention_heads": 2,
        "t2u_decoder_layers": 1,
        "t2u_decoder_ffn_dim": 16,
        "t2u_decoder_attention_heads": 2,
        "unit_embed_dim": 8,
        "lang_embed_dim": 8,
        "spkr_embed_dim": 8,
        "unit_hifi_gan_vocab_size": 20,
        "upsample_initial_channel": 64,
        "char_vocab_size": 20,
    }
    config = SeamlessM4Tv2Config(
        vocab_size=len(tokenizer),
        feature_projection_input_dim=16,
        max_position_embeddings=128,
        initializer_range=0.5,
        **small,
    )
    model = SeamlessM4Tv2Model(config)
    ids = {code: tokenizer.convert_tokens_to_ids(f"__{code}__") for code in SEAMLESS_LANGUAGES}
    model.generation_config = GenerationConfig(
        **{"bos_token_id": 2, "decoder_start_token_id": 3, "eos_token_id": 3, "pad_token_id": 0},
        text_decoder_lang_to_code_id=ids,
    )
    model.save_pretrained(out)
    return str(out)
