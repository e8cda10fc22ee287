"""Our truncated, batched encoders against transformers' whole model, one utterance at a time."""

import json
import shutil

import numpy as np
import pytest
import torch

from espnet_spire.units.codebook import Codebook
from espnet_spire.units.encoder import (
    TransformerEncoder,
    load_encoder,
    normalize_samples,
)
from espnet_spire.utils.errors import SpireError

# A frame is 400 samples, the next begins 320 later: frame edges are at 400, 720, 1040, …
EDGES = {400: 1, 719: 1, 720: 2, 721: 2, 1039: 2, 1040: 3, 1041: 3, 8000: 24, 16000: 49, 16239: 50}


def noise(length, seed=0):
    rng = np.random.default_rng(seed + length)
    return (0.1 * rng.standard_normal(length) + 0.02).astype(np.float32)


def reference(name, samples, normalize):
    """hidden_states of the whole model for one utterance, its final layer norm, its output."""
    from transformers import HubertModel

    model = HubertModel.from_pretrained(name).eval()
    if normalize:
        x = samples.astype(np.float64)
        samples = ((x - x.mean()) / np.sqrt(np.mean((x - x.mean()) ** 2) + 1e-7)).astype("float32")
    with torch.no_grad():
        out = model(torch.from_numpy(samples)[None], output_hidden_states=True)
    states = [layer[0] for layer in out.hidden_states]
    return states, model.encoder.layer_norm, out.last_hidden_state[0]


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize(
    ("fixture", "normalize"),
    [("stable_hubert", True), ("post_norm_hubert", True), ("group_norm_hubert", False)],
)
def test_layer_is_transformers_hidden_state(request, fixture, normalize, layer):
    name = request.getfixturevalue(fixture)
    samples = noise(8000)
    expected, _, _ = reference(name, samples, normalize)
    features = TransformerEncoder(name, layer)([samples])[0]
    assert features.dtype == torch.float32
    assert tuple(features.shape) == (24, 32)
    torch.testing.assert_close(features, expected[layer], atol=1e-5, rtol=1e-5)
    # and the layers are far enough apart for this to mean something
    assert (features - expected[layer + 1]).abs().mean() > 0.05
    assert (features - expected[layer - 1]).abs().mean() > 0.05


def test_last_layer_has_no_final_norm(stable_hubert, post_norm_hubert):
    samples = noise(8000)
    _, final_norm, output = reference(stable_hubert, samples, True)
    features = TransformerEncoder(stable_hubert, 3)([samples])[0]
    # a pre-norm model's output is normalised once more, block 3's is not
    with torch.no_grad():
        torch.testing.assert_close(final_norm(features), output, atol=1e-5, rtol=1e-5)
    assert (features - output).abs().mean() > 0.05
    _, _, output = reference(post_norm_hubert, samples, True)
    features = TransformerEncoder(post_norm_hubert, 3)([samples])[0]
    torch.testing.assert_close(features, output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fixture", ["stable_hubert", "post_norm_hubert", "group_norm_hubert"])
def test_batch_is_one_at_a_time(request, fixture):
    encoder = TransformerEncoder(request.getfixturevalue(fixture), 2)
    utterances = [noise(length) for length in EDGES]
    alone = [encoder([samples])[0] for samples in utterances]
    assert [len(features) for features in alone] == list(EDGES.values())
    frames = torch.cat(alone)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(frames), generator=generator)[:60]
    codebook = Codebook(frames[chosen].clone(), {})
    order = np.random.default_rng(1).permutation(len(utterances))
    for group in (order, order[:3], order[::-1]):
        for index, features in zip(group, encoder([utterances[i] for i in group]), strict=True):
            assert features.shape == alone[index].shape
            assert (features - alone[index]).abs().max() < 1e-5
            assert codebook.nearest(features).equal(codebook.nearest(alone[index]))


def test_padding_would_matter(stable_hubert):
    """Without masks and lengths the test above would fail: neighbours do change the output."""
    from transformers import HubertModel

    model = HubertModel.from_pretrained(stable_hubert).eval()
    samples = normalize_samples(noise(8000))
    padded = np.concatenate([samples, np.zeros(8000, dtype=np.float32)])
    with torch.no_grad():
        short = model(torch.from_numpy(samples)[None]).last_hidden_state[0]
        long = model(torch.from_numpy(padded)[None]).last_hidden_state[0]
    assert (short - long[: len(short)]).abs().max() > 1e-2


def test_group_norm_is_never_padded(group_norm_hubert, monkeypatch):
    encoder = TransformerEncoder(group_norm_hubert, 1)
    shapes = []
    forward = encoder.model.forward
    monkeypatch.setattr(
        encoder.model,
        "forward",
        lambda x, **kw: (shapes.append(tuple(x.shape)), forward(x, **kw))[1],
    )
    encoder([noise(800), noise(900)])
    encoder([noise(800, 1), noise(800, 2)])
    assert shapes == [(1, 800), (1, 900), (2, 800)]


def test_normalisation_by_hand():
    # mean 2, variance 2/3; with ε = 1/3 the divisor is exactly 1
    result = normalize_samples(np.array([1, 2, 3], dtype=np.float32), eps=1 / 3)
    assert result.tolist() == [-1, 0, 1]
    assert result.dtype == np.float32


def test_normalisation_is_that_of_transformers():
    from transformers import Wav2Vec2FeatureExtractor

    samples = noise(4000)
    expected = Wav2Vec2FeatureExtractor()(samples, sampling_rate=16000).input_values[0]
    np.testing.assert_allclose(normalize_samples(samples), expected, atol=1e-5)


def test_eps_matters_for_quiet_audio():
    quiet = np.array([1e-3, -1e-3] * 200, dtype=np.float32)  # variance 1e-6
    # 1e-3 / √(1e-6 + ε)
    assert normalize_samples(quiet, 1e-7)[0] == pytest.approx(0.95346, abs=1e-4)
    assert normalize_samples(quiet, 1e-5)[0] == pytest.approx(0.30151, abs=1e-4)


def test_eps_reaches_the_model_and_the_description(stable_hubert):
    # the layer norms behind the convolutions all but cancel the scale, so look at what enters
    quiet = np.array([1e-3, -1e-3] * 200, dtype=np.float32)
    for eps, level in ((1e-7, 0.95346), (1e-5, 0.30151)):
        encoder = TransformerEncoder(stable_hubert, 1, eps=eps)
        assert encoder.description["normalization_eps"] == eps
        seen = []
        encoder.model.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        encoder([quiet])
        assert seen[0].abs().mean().item() == pytest.approx(level, abs=1e-4)


def test_description(stable_hubert, group_norm_hubert):
    assert TransformerEncoder(stable_hubert, 2).description == {
        "encoder": stable_hubert,
        "encoder_type": "hubert",
        "layer": 2,
        "normalization": "utterance",
        "normalization_eps": 1e-7,
        "frame_rate": 50.0,
        "dim": 32,
    }
    plain = TransformerEncoder(group_norm_hubert, 1).description
    assert (plain["normalization"], plain["normalization_eps"]) == ("none", 0.0)


def test_bfloat16_gives_float32_close_by(stable_hubert):
    samples = noise(8000)
    exact = load_encoder(stable_hubert, 2)([samples])[0]
    rough = load_encoder(stable_hubert, 2, dtype="bfloat16")([samples])[0]
    assert rough.dtype == torch.float32
    similarity = torch.nn.functional.cosine_similarity(exact, rough)
    assert 0.99 < similarity.mean() < 1


def test_too_short_is_refused(stable_hubert):
    with pytest.raises(ValueError, match="399 samples"):
        TransformerEncoder(stable_hubert, 1)([noise(800), noise(399)])


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_layers_that_are_not_there(stable_hubert, layer):
    with pytest.raises(SpireError, match=f"--layer {layer}: .*layers 1 to 3"):
        load_encoder(stable_hubert, layer)


def test_encoders_that_are_none(tmp_path, base_model, stable_hubert):
    with pytest.raises(SpireError, match="--encoder .*empty"):
        (tmp_path / "empty").mkdir()
        load_encoder(str(tmp_path / "empty"), 1)
    with pytest.raises(SpireError, match="--encoder"):
        load_encoder(base_model, 1)
    other = tmp_path / "8k"
    shutil.copytree(stable_hubert, other)
    preprocessor = json.loads((other / "preprocessor_config.json").read_text())
    preprocessor["sampling_rate"] = 8000
    (other / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    with pytest.raises(SpireError, match="wants 8000 Hz"):
        load_encoder(str(other), 1)
