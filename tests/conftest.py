"""Small models and data directories that many tests share, made once a session."""

import json

import numpy as np
import pytest
import soundfile

pytest_plugins = ("helpers_lm", "helpers_baselines")

RATE = 16000
# What facebook/hubert-large-ll60k ships as preprocessor_config.json.
PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": True,
    "sampling_rate": RATE,
}
TEXTS = [
    "The cat sat on the mat and the dog sat on the log.",
    "English: the red house is near the old river\nGerman: das rote Haus ist am alten Fluss",
    "Speech: Translate the following text from English to German.",
    "Le chat est sur la table. Der Hund schläft. 今天天气很好。 1234567890",
] * 5


def write_hubert(out, *, stable: bool, norm: str, do_normalize: bool):
    """A random HuBERT, 3 blocks of 32, with weights wide enough that each block matters."""
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(1)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        conv_bias=True,
        feat_extract_norm=norm,
        do_stable_layer_norm=stable,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        initializer_range=0.2,
    )
    HubertModel(config).save_pretrained(out)
    preprocessor = {**PREPROCESSOR, "do_normalize": do_normalize}
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(out)


@pytest.fixture(scope="session")
def stable_hubert(tmp_path_factory):
    """As hubert-large: layer norm in the convolutions, norms before each block."""
    out = tmp_path_factory.mktemp("encoders") / "hubert-stable"
    return write_hubert(out, stable=True, norm="layer", do_normalize=True)


@pytest.fixture(scope="session")
def post_norm_hubert(tmp_path_factory):
    """Layer norm in the convolutions, norms after each block."""
    out = tmp_path_factory.mktemp("encoders") / "hubert-post"
    return write_hubert(out, stable=False, norm="layer", do_normalize=True)


@pytest.fixture(scope="session")
def group_norm_hubert(tmp_path_factory):
    """As hubert-base: group norm over time, so padding is forbidden; no normalisation here."""
    out = tmp_path_factory.mktemp("encoders") / "hubert-group"
    return write_hubert(out, stable=False, norm="group", do_normalize=False)


def write_base(out, *, tied: bool):
    """A random Llama of width 16 with a SentencePiece tokenizer in Llama's layout."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from espnet_spire.mini.small_tower import train_tokenizer

    train_tokenizer(TEXTS, 400, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    """Directory of a text-only causal LM, input and output matrices apart (as Llama-2)."""
    return write_base(tmp_path_factory.mktemp("base") / "llama", tied=False)


@pytest.fixture(scope="session")
def tied_base_model(tmp_path_factory):
    """The same with one matrix for both."""
    return write_base(tmp_path_factory.mktemp("base") / "llama-tied", tied=True)


@pytest.fixture(scope="session")
def extended_model(base_model, tmp_path_factory):
    """``base_model`` with 20 units, seed 3."""
    from espnet_spire.text.vocabulary import extend_vocabulary

    out = tmp_path_factory.mktemp("extended") / "llama-km20"
    extend_vocabulary(base_model, 20, out, seed=3)
    return str(out)


def speechlike(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """A gliding tone in noise with a changing level: frames differ, nothing is silent."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 400 * rng.random() + 800 * np.sin(2 * np.pi * (1 + 2 * rng.random()) * time) ** 2
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    level = 0.3 + 0.2 * np.sin(2 * np.pi * 3 * time + rng.random())
    return (level * tone + 0.05 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def make_audio():
    """:func:`speechlike`, for tests that need samples."""
    return speechlike


def write_data_dir(directory, utterances, *, rate=RATE, speakers=None, texts=None, name="wav"):
    """A Kaldi data directory from ``{utterance: samples}``, written with plain Python."""
    audio = directory / "audio"
    audio.mkdir(parents=True)
    keys = sorted(utterances)
    for key in keys:
        soundfile.write(audio / f"{key}.{name}", utterances[key], rate, subtype="PCM_16")
    tables = {
        "wav.scp": {key: f"{audio}/{key}.{name}" for key in keys},
        "text": {key: (texts or {}).get(key, f"words of {key}") for key in keys},
        "utt2spk": {key: (speakers or {}).get(key, "spk1") for key in keys},
    }
    for file, table in tables.items():
        lines = [f"{key} {value}".rstrip(" ") + "\n" for key, value in table.items()]
        (directory / file).write_text("".join(lines), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def make_data_dir():
    """:func:`write_data_dir`, for tests that need a data directory."""
    return write_data_dir
