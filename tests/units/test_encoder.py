"""Our truncated, batched encoders against transformers' whole model, one utterance at a time."""

import json
import shutil

import numpy as np
import pytest
import torch

from espnet_spire.units.assign import Assigner
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.encoder import Pooling, describe_encoder, load_encoder
from espnet_spire.units.models import normalize_samples
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
    features = load_encoder(name, layer)([samples])[0]
    assert features.dtype == torch.float32
    assert tuple(features.shape) == (24, 32)
    torch.testing.assert_close(features, expected[layer], atol=1e-5, rtol=1e-5)
    # and the layers are far enough apart for this to mean something
    assert (features - expected[layer + 1]).abs().mean() > 0.05
    assert (features - expected[layer - 1]).abs().mean() > 0.05


def test_last_layer_has_no_final_norm(stable_hubert, post_norm_hubert):
    samples = noise(8000)
    _, final_norm, output = reference(stable_hubert, samples, True)
    features = load_encoder(stable_hubert, 3)([samples])[0]
    # a pre-norm model's output is normalised once more, block 3's is not
    with torch.no_grad():
        torch.testing.assert_close(final_norm(features), output, atol=1e-5, rtol=1e-5)
    assert (features - output).abs().mean() > 0.05
    _, _, output = reference(post_norm_hubert, samples, True)
    features = load_encoder(post_norm_hubert, 3)([samples])[0]
    torch.testing.assert_close(features, output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fixture", ["stable_hubert", "post_norm_hubert", "group_norm_hubert"])
def test_batch_is_one_at_a_time(request, fixture):
    encoder = load_encoder(request.getfixturevalue(fixture), 2)
    utterances = [noise(length) for length in EDGES]
    alone = [encoder([samples])[0] for samples in utterances]
    assert [len(features) for features in alone] == list(EDGES.values())
    frames = torch.cat(alone)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(frames), generator=generator)[:60]
    assign = Assigner(Codebook(frames[chosen].clone(), {}))
    order = np.random.default_rng(1).permutation(len(utterances))
    for group in (order, order[:3], order[::-1]):
        for index, features in zip(group, encoder([utterances[i] for i in group]), strict=True):
            assert features.shape == alone[index].shape
            assert (features - alone[index]).abs().max() < 1e-5
            assert assign(features).units.equal(assign(alone[index]).units)


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


KINDS = ["hubert", "mhubert", "wav2vec2", "wav2vec2-base", "wavlm", "wavlm-base", "w2v-bert"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Small random models of every kind, as their published versions are configured."""
    import transformers as hf

    root = tmp_path_factory.mktemp("kinds")
    common = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "initializer_range": 0.2,
        # SpecAugment is for training; with it, models keep a vector more
        "mask_time_prob": 0.05,
    }
    waves = {
        **common,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    base = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
    models = {
        "hubert": (hf.HubertModel, hf.HubertConfig(**waves, **large)),
        "mhubert": (hf.HubertModel, hf.HubertConfig(**waves, **base, feat_proj_layer_norm=False)),
        "wav2vec2": (hf.Wav2Vec2Model, hf.Wav2Vec2Config(**waves, **large)),
        "wav2vec2-base": (hf.Wav2Vec2Model, hf.Wav2Vec2Config(**waves, **base)),
        "wavlm": (hf.WavLMModel, hf.WavLMConfig(**waves, **large)),
        "wavlm-base": (hf.WavLMModel, hf.WavLMConfig(**waves, **base)),
        "w2v-bert": (hf.Wav2Vec2BertModel, hf.Wav2Vec2BertConfig(**common)),
    }
    names = {}
    for number, (kind, (model, config)) in enumerate(models.items()):
        torch.manual_seed(number)
        names[kind] = str(root / kind)
        model(config).save_pretrained(names[kind])
        extractor = hf.Wav2Vec2FeatureExtractor()
        if kind == "w2v-bert":
            extractor = hf.SeamlessM4TFeatureExtractor(padding_value=1)
        extractor.save_pretrained(names[kind])
    return names


def hidden_states(name, samples):
    """What transformers alone gives for one utterance, its own feature extractor included."""
    from transformers import AutoFeatureExtractor, AutoModel

    inputs = AutoFeatureExtractor.from_pretrained(name)(
        samples, sampling_rate=16000, return_tensors="pt"
    )
    model = AutoModel.from_pretrained(name).eval()
    if "attention_mask" in inputs and "input_values" in inputs:
        del inputs["attention_mask"]
    with torch.no_grad():
        return [state[0] for state in model(**inputs, output_hidden_states=True).hidden_states]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_transformers_hidden_state(encoders, kind):
    lengths = [8000, 720, 5441, 16239, 1039]
    encoder = load_encoder(encoders[kind], 2)
    utterances = [noise(length) for length in lengths]
    together = encoder(utterances)
    for samples, features in zip(utterances, together, strict=True):
        states = hidden_states(encoders[kind], samples)
        expected = states[2][: encoder.num_frames(len(samples))]
        # transformers pads w2v-BERT's filter bank by a half frame that is no frame of ours
        assert len(states[2]) - len(expected) in ((0, 1) if kind == "w2v-bert" else (0,))
        torch.testing.assert_close(encoder.alone(samples), expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(features, expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(features, encoder.alone(samples), atol=2e-5, rtol=1e-5)
        assert (features - states[3][: len(features)]).abs().mean() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_bfloat16(encoders, kind):
    encoder = load_encoder(encoders[kind], 3, dtype="bfloat16")
    utterances = [noise(length) for length in (8000, 720, 5441)]
    for samples, features in zip(utterances, encoder(utterances), strict=True):
        assert features.dtype == torch.float32
        similarity = torch.nn.functional.cosine_similarity(encoder.alone(samples), features)
        assert 0.99 < similarity.mean() < 1


@pytest.mark.parametrize("kind", ["hubert", "mhubert", "w2v-bert"])
def test_long_audio_in_windows(encoders, kind):
    """Windows of 7 frames: each is what the model gives for the samples that its frames see."""
    encoder = load_encoder(encoders[kind], 2, window_seconds=7 * 0.02)
    window, hop = encoder.model.framing
    samples = noise(16 * hop + window + 100)  # 17 frames, in windows of 7, 7 and 3
    (features,) = encoder([samples])
    assert len(features) == encoder.num_frames(len(samples)) == 17
    prepared = encoder.model.prepare(samples)
    model = encoder.model.model
    for first, last in ((0, 7), (7, 14), (14, 17)):
        if kind == "w2v-bert":
            piece = prepared[first:last]
        else:
            end = (last - 1) * hop + window if last < 17 else len(samples)
            piece = prepared[first * hop : end]
        with torch.no_grad():
            expected = model(torch.from_numpy(piece)[None]).last_hidden_state[0]
        torch.testing.assert_close(features[first:last], expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(features, encoder.alone(samples), atol=2e-5, rtol=1e-5)
    # several windows of several utterances at once, in groups of at most one window
    short = noise(3 * hop + window)
    torch.testing.assert_close(encoder([short, samples])[1], features, atol=2e-5, rtol=1e-5)
    # a window that holds all changes nothing
    whole = load_encoder(encoders[kind], 2, window_seconds=17 * 0.02)([samples])[0]
    unlimited = load_encoder(encoders[kind], 2)([samples])[0]
    torch.testing.assert_close(whole, unlimited)
    assert (whole - features).abs().max() > 1e-3


def test_a_tail_of_less_than_a_second_joins_the_window_before(stable_hubert):
    encoder = load_encoder(stable_hubert, 1, window_seconds=3.0)
    sizes = []
    encode = encoder.model.encode
    encoder.model.encode = lambda pieces, lengths: (sizes.extend(lengths), encode(pieces, lengths))[
        1
    ]
    for frames, expected in ((349, [150, 199]), (350, [150, 150, 50]), (199, [199]), (150, [150])):
        sizes.clear()
        (features,) = encoder([noise(320 * (frames - 1) + 400)])
        assert (len(features), sizes) == (frames, expected)


def test_weights_tell_models_of_one_shape_apart(stable_hubert, tmp_path):
    from transformers import HubertModel

    other = tmp_path / "other"
    shutil.copytree(stable_hubert, other)
    model = HubertModel.from_pretrained(stable_hubert)
    with torch.no_grad():
        model.encoder.layers[0].attention.q_proj.weight[0, 0] += 1e-3
    model.save_pretrained(other)
    known = load_encoder(stable_hubert, 2).description["weights"]
    assert load_encoder(str(other), 2).description["weights"] != known
    with torch.no_grad():
        model.encoder.layers[0].attention.q_proj.weight[0, 0] -= 1e-3
        model.encoder.layers[2].attention.q_proj.weight[0, 0] += 1e-3
    model.save_pretrained(other)
    shutil.copytree(stable_hubert, tmp_path / "moved")
    assert load_encoder(str(tmp_path / "moved"), 2).description["weights"] == known


def test_bfloat16_is_free_of_what_it_adds_to_all_frames(encoders):
    """Half of the error is one vector; it is learned from a sound that is no speech."""
    from espnet_spire.units.models import calibration_sound

    assert calibration_sound().dtype == np.float32
    np.testing.assert_array_equal(calibration_sound(), calibration_sound())
    encoder = load_encoder(encoders["hubert"], 3, dtype="bfloat16")
    samples = noise(48000)
    exact = encoder.alone(samples)
    corrected = encoder([samples])[0] - exact
    offset, encoder.model._offset = encoder.model._offset, None
    plain = encoder([samples])[0] - exact
    torch.testing.assert_close(corrected, plain - offset)
    assert corrected.mean(dim=0).norm() < 0.5 * plain.mean(dim=0).norm()


def test_pooling_by_hand(stable_hubert):
    features = torch.tensor([[1.0, 8.0], [3.0, 2.0], [4.0, 4.0], [0.0, 0.0], [7.0, 5.0]])
    assert Pooling("mean", 2)(features).tolist() == [[2, 5], [2, 2], [7, 5]]
    assert Pooling("max", 4)(features).tolist() == [[4, 8], [7, 5]]
    assert Pooling("max", 8)(features).tolist() == [[7, 8]]
    assert Pooling("max", 1)(features) is features
    # the encoder pools what it gave without
    samples = noise(5441)  # 16 frames
    plain, pooled = (
        load_encoder(stable_hubert, 2, pooling=Pooling("mean", frames)) for frames in (1, 3)
    )
    (frames,), (thirds,) = plain([samples]), pooled([samples])
    assert (len(frames), len(thirds)) == (16, 6) == (16, pooled.num_frames(5441))
    for group in range(6):
        torch.testing.assert_close(thirds[group], frames[3 * group : 3 * group + 3].mean(dim=0))
    torch.testing.assert_close(pooled.alone(samples), thirds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": Pooling("sum", 2)}, "--pooling sum: choose mean or max"),
        ({"pooling": Pooling("mean", 0)}, "--pool_frames 0: at least 1 frame"),
        ({"window_seconds": 0.0}, "--window_seconds 0.0: must be more than 0"),
        ({"normalization_eps": -1e-7}, "--normalization_eps -1e-07: must not be negative"),
    ],
)
def test_impossible_options(stable_hubert, options, message):
    with pytest.raises(SpireError, match=message):
        load_encoder(stable_hubert, 1, **options)


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
        encoder = load_encoder(stable_hubert, 1, normalization_eps=eps)
        assert encoder.description["normalization_eps"] == eps
        assert np.abs(encoder.model.prepare(quiet)).mean() == pytest.approx(level, abs=1e-4)


def test_description(stable_hubert, group_norm_hubert):
    description = load_encoder(stable_hubert, 2).description
    weights = description.pop("weights")
    assert description == describe_encoder(stable_hubert, 2)
    assert description == {
        "encoder": stable_hubert,
        "encoder_type": "hubert",
        "layer": 2,
        "normalization": "utterance",
        "normalization_eps": 1e-7,
        "pooling": "none",
        "pool_frames": 1,
        "frame_rate": 50.0,
        "dim": 32,
    }
    # the weights themselves, not where they are; those above the layer do not count
    assert load_encoder(stable_hubert, 2, dtype="bfloat16").description["weights"] == weights
    assert load_encoder(stable_hubert, 3).description["weights"] != weights
    assert load_encoder("mfcc", 0).description["weights"] is None
    plain = load_encoder(group_norm_hubert, 1).description
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
        load_encoder(stable_hubert, 1)([noise(800), noise(399)])


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
