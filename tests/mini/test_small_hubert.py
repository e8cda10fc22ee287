"""The small HuBERT against transformers, scikit-learn-free arithmetic, and counting by hand."""

import json

import numpy as np
import pytest
import soundfile
import torch

from espnet_spire.bin import mini_hubert
from espnet_spire.mini.channels_last import front_end, strided_conv
from espnet_spire.mini.mfcc_labels import cluster
from espnet_spire.mini.small_hubert import (
    HISTORY,
    MaskedPrediction,
    SmallHubertConfig,
    Utterance,
    crop_batch,
    hubert_config,
    learning_rate_factor,
    plan_batches,
    plan_passes,
    span_mask,
    standardized,
)
from espnet_spire.units.framing import HUBERT_FRAMING
from espnet_spire.utils.config import read_config
from espnet_spire.utils.errors import SpireError

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [4, 4, 6, 6, 8, 8, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def tiny_hubert():
    from transformers import HubertModel

    torch.manual_seed(0)
    return HubertModel(hubert_config(TINY))


def test_cluster_finds_separate_clouds():
    rng = np.random.default_rng(0)
    truth = [rng.integers(3, size=size) for size in (50, 1, 70)]
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    features = [(centres[t] + rng.standard_normal((len(t), 2))).astype(np.float32) for t in truth]
    labels = cluster(features, num_clusters=3, max_frames=100, seed=1)
    assert [len(label) for label in labels] == [50, 1, 70]
    pairs = set(zip(np.concatenate(truth).tolist(), np.concatenate(labels).tolist(), strict=True))
    assert len(pairs) == 3
    again = cluster(features, num_clusters=3, max_frames=100, seed=1)
    assert all((a == b).all() for a, b in zip(labels, again, strict=True))
    with pytest.raises(SpireError, match="121 frames cannot make 122 clusters"):
        cluster(features, num_clusters=122, max_frames=1000, seed=0)


@pytest.mark.parametrize("kernel, stride", [(10, 5), (3, 2), (2, 2), (3, 3), (1, 1), (4, 3)])
@pytest.mark.parametrize("time", [10, 11, 37, 38, 39, 40])
def test_strided_conv_is_conv1d(kernel, stride, time):
    torch.manual_seed(0)
    hidden = torch.randn(2, time, 5, dtype=torch.float64, requires_grad=True)
    conv = torch.nn.Conv1d(5, 7, kernel, stride).double()
    expected = conv(hidden.transpose(1, 2)).transpose(1, 2)
    found = strided_conv(hidden, conv.weight, conv.bias, stride)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    inputs = (hidden, conv.weight, conv.bias)
    for a, b in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_strided_conv_refuses():
    weight, bias = torch.zeros(1, 1, 5), torch.zeros(1)
    with pytest.raises(ValueError, match="kernel 5"):
        strided_conv(torch.zeros(1, 9, 1), weight, bias, 2)
    with pytest.raises(ValueError, match="4 time steps"):
        strided_conv(torch.zeros(1, 4, 1), weight, bias, 3)


@pytest.mark.parametrize("samples", [400, 719, 720, 5000, 5001])
def test_front_end_is_transformers_own(samples):
    hubert = tiny_hubert()
    waveforms = torch.randn(3, samples)
    expected = hubert.feature_extractor(waveforms.clone()).transpose(1, 2)
    torch.testing.assert_close(
        front_end(hubert.feature_extractor, waveforms), expected, atol=1e-4, rtol=1e-4
    )


def test_masked_prediction_is_transformers_forward():
    """The losses from HubertModel's own forward pass with ``mask_time_indices``."""
    hubert = tiny_hubert().eval()
    model = MaskedPrediction(hubert, 5, 0.1)
    waveforms = torch.randn(2, 320 * 19 + 400)
    labels = torch.randint(5, (2, 20))
    mask = span_mask(2, 20, 0.5, 4, np.random.default_rng(0))
    masked, visible, accuracy = model(waveforms, labels, mask)
    hidden = hubert(waveforms, mask_time_indices=mask).last_hidden_state
    cosine = torch.nn.functional.cosine_similarity(
        model.projection(hidden)[:, :, None], model.codes[None, None], dim=-1
    )
    nats = -(cosine / 0.1).log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    torch.testing.assert_close(masked, nats[mask].mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(visible, nats[~mask].mean(), atol=1e-4, rtol=1e-4)
    hits = (cosine.argmax(-1) == labels)[mask].float().mean()
    assert accuracy == pytest.approx(hits.item())
    # Everything masked: there is no visible loss, and no nan.
    assert model(waveforms, labels, torch.ones_like(mask))[1] == 0


def test_span_mask():
    rng = np.random.default_rng(0)
    mask = span_mask(200, 120, 0.5, 8, rng)
    assert mask.shape == (200, 120) and mask.dtype == torch.bool
    assert mask.float().mean() == pytest.approx(0.5, abs=0.04)
    for row in mask.numpy():
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        assert (edges[1::2] - edges[::2]).min() >= 8
    assert span_mask(1, 3, 0.5, 8, rng).all()


def test_plan_batches():
    rng = np.random.default_rng(0)
    frames = rng.integers(20, 300, size=2001)
    batches = plan_batches(frames, 1000, 200, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(2001))
    lengths = np.minimum(frames, 200)
    for batch in batches:
        assert len(batch) * lengths[batch].min() <= 1000
    kept = sum(len(batch) * lengths[batch].min() for batch in batches)
    assert kept > 0.9 * lengths.sum()
    assert [len(batch) for batch in plan_batches([500, 600], 100, 1000, rng)] == [1, 1]
    assert len(plan_passes([10] * 10, 2.5, 0.4, 100, rng)) == 5 + 5 + 2
    assert plan_passes([10] * 10, 0, 0.4, 100, rng) == []


def test_crop_keeps_labels_on_their_samples():
    def utterance(frames, extra):
        samples = np.arange(320 * (frames - 1) + 400 + extra)
        # Sample 320 i is the label i; exact in float16 below 2048.
        return Utterance((samples // 320).astype(np.float16), np.arange(frames))

    rng = np.random.default_rng(0)
    items = [utterance(30, 0), utterance(50, 319), utterance(31, 7)]
    for _ in range(20):
        waveforms, labels = crop_batch(items, 40, rng)
        assert waveforms.shape == (3, 320 * 29 + 400) and labels.shape == (3, 30)
        assert (waveforms[:, : 320 * 30 : 320] == labels).all()
    assert crop_batch(items, 10, rng)[1].shape == (3, 10)


def test_learning_rate():
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(10)]
    np.testing.assert_allclose(factors[:3], [0.5, 1.0, 8 / 9])
    np.testing.assert_allclose(factors[-1], 1 / 9)
    assert learning_rate_factor(0, 1, 0.0) == 1.0


def test_standardized_is_the_feature_extractor():
    from transformers import Wav2Vec2FeatureExtractor

    samples = np.random.default_rng(0).uniform(-0.01, 0.02, 5000).astype(np.float32)
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16000)
    np.testing.assert_allclose(standardized(samples), expected.input_values[0], atol=1e-5)


@pytest.fixture
def data_dir(tmp_path):
    """Twelve utterances, each a sequence of five tones: predictable from their surroundings."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        tones = np.repeat(rng.choice([300, 700, 1500, 3000], size=5), 3200 + 16 * number)
        samples = 0.3 * np.sin(np.cumsum(2 * np.pi * tones / 16000))
        path = tmp_path / f"{number:02d}.wav"
        soundfile.write(path, samples + 0.01 * rng.standard_normal(len(samples)), 16000)
        lines.append(f"u{number:02d} {path}\n")
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "wav.scp").write_text("".join(lines))
    return directory


def write_config(tmp_path, **changes):
    import yaml

    values = dict(
        num_clusters=5,
        passes=6,
        front_end_passes=6,
        batch_seconds=3.0,
        front_end_batch_seconds=3.0,
        mask_span=4,
        held_out=2,
        model=TINY,
    )
    values.update(changes)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(data_dir, out, config, *more):
    base = ["--data_dir", data_dir, "--out", out, "--config", config, "--num_threads", 1, *more]
    return [str(word) for word in base]


def test_trains_and_loads(data_dir, tmp_path, capsys):
    from safetensors.torch import load_file
    from transformers import AutoFeatureExtractor, AutoModel, HubertModel

    config = write_config(tmp_path)
    out = tmp_path / "hubert"
    mini_hubert.main(command(data_dir, out, config))
    assert "accuracy" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", HISTORY}
    history = json.loads((out / HISTORY).read_text())
    assert history["utterances"] == 11 and history["held_out"]["utterances"] == 1
    assert np.mean(history["front_end_loss"][-5:]) < history["front_end_loss"][0]
    assert np.mean(history["loss"][-5:]) < np.mean(history["loss"][:2])
    assert 0 <= history["held_out"]["accuracy"] <= 1

    model, info = HubertModel.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert isinstance(AutoModel.from_pretrained(out), HubertModel)
    assert model.config.do_stable_layer_norm and model.config.feat_extract_norm == "layer"
    extractor = AutoFeatureExtractor.from_pretrained(out)
    assert extractor.do_normalize and extractor.return_attention_mask
    assert extractor.sampling_rate == 16000
    audio = [np.random.default_rng(0).standard_normal(size) for size in (4000, 6000)]
    batch = extractor(audio, sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model.eval()(**batch, output_hidden_states=True).hidden_states
    assert len(states) == 3 and states[2].shape == (2, HUBERT_FRAMING.num_frames(6000), 16)
    assert torch.isfinite(states[2]).all()

    # Same seed, same bytes; the caller's random state stays as it was; another seed differs.
    state = torch.get_rng_state()
    mini_hubert.main(command(data_dir, tmp_path / "again", config))
    assert torch.equal(torch.get_rng_state(), state)
    mini_hubert.main(command(data_dir, tmp_path / "other", config, "--seed", "1"))
    first, again, other = (
        load_file(tmp_path / name / "model.safetensors") for name in ("hubert", "again", "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pases": 3}, "unknown key 'pases'"),
        ({"passes": "many"}, "passes: 'many' is not a float"),
        ({"normalize_mfcc": 1}, "normalize_mfcc: 1 is not a bool"),
        ({"num_clusters": 2.5}, "num_clusters: 2.5 is not a int"),
        ({"passes": 0}, "passes: 0.0 must be above 0"),
        ({"mask_prob": 1.0}, "mask_prob"),
        ({"warmup": 1.5}, "warmup"),
        ({"front_end_passes": -1}, "front_end_passes"),
        ({"model": {"conv_stride": [5]}}, "model.conv_stride cannot be set"),
    ],
)
def test_config_errors(tmp_path, changes, message):
    with pytest.raises(SpireError, match=message) as caught:
        read_config(write_config(tmp_path, **changes), SmallHubertConfig)
    assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model, message",
    [
        ({"hidden_sise": 3}, "model.hidden_sise"),
        ({"conv_dim": [4, 4]}, "7 entries"),
        ({"hidden_size": 15}, "not a multiple of num_attention_heads"),
    ],
)
def test_model_errors(model, message):
    with pytest.raises(SpireError, match=message):
        hubert_config({**TINY, **model})


def test_shipped_config_holds_the_defaults():
    from pathlib import Path

    shipped = read_config(
        Path(__file__).parents[2] / "conf" / "mini_hubert.yaml", SmallHubertConfig
    )
    assert hubert_config(shipped.model).to_dict() == hubert_config({}).to_dict()
    shipped.model = {}
    assert shipped == SmallHubertConfig()


def test_bad_data_leaves_nothing(data_dir, tmp_path):
    out = tmp_path / "hubert"
    with pytest.raises(SpireError, match="cannot make 100000 clusters"):
        mini_hubert.main(command(data_dir, out, write_config(tmp_path, num_clusters=100000)))
    (tmp_path / "05.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(SpireError, match="05.wav"):
        mini_hubert.main(command(data_dir, out, write_config(tmp_path)))
    with pytest.raises(SpireError, match="none"):
        mini_hubert.main(command(tmp_path / "none", out, write_config(tmp_path)))
    for number in range(12):
        soundfile.write(tmp_path / f"{number:02d}.wav", np.zeros(1000), 16000)
    with pytest.raises(SpireError, match="fewer than two utterances"):
        mini_hubert.main(command(data_dir, out, write_config(tmp_path)))
    assert not list(tmp_path.glob("*hubert*"))


def test_several_data_directories(data_dir):
    from espnet_spire.mini.small_hubert import load_utterances

    config = SmallHubertConfig(num_clusters=5)
    assert len(load_utterances([data_dir], config, 0)) == 12
    both = load_utterances([data_dir, data_dir], config, 0)
    assert len(both) == 24
    assert (both[0].samples == both[12].samples).all()
    assert all((a.labels == b.labels).all() for a, b in zip(both[:12], both[12:], strict=True))


def test_a_diverging_loss_is_an_error(data_dir, tmp_path):
    config = write_config(
        tmp_path, learning_rate=1e30, front_end_learning_rate=1e30, grad_clip=1e30
    )
    with pytest.raises(SpireError, match="lower learning_rate"):
        mini_hubert.main(command(data_dir, tmp_path / "hubert", config))
    assert not (tmp_path / "hubert").exists()
