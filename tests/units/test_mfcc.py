"""MFCCs against the textbook, written out in numpy."""

import numpy as np
import pytest
import torch
from scipy.fft import dct
from transformers import HubertModel

from espnet_spire.units.encoder import load_encoder
from espnet_spire.units.framing import HUBERT_FRAMING
from espnet_spire.units.mfcc import mfcc


def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def textbook(samples):
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 400)[::160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    bins = np.arange(257) * 31.25
    edges = 700 * (10 ** (np.linspace(mel(20), mel(8000), 42) / 2595) - 1)
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - low) / (mid - low)
    falling = (high - bins[:, None]) / (high - mid)
    bank = np.maximum(0, np.minimum(rising, falling))
    decibel = 10 * np.log10(np.maximum(power @ bank, 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    static = dct(decibel, type=2, norm="ortho")[:, :13]

    def differences(x):
        padded = np.pad(x, ((4, 4), (0, 0)), mode="edge")
        return (
            sum(
                n * (padded[4 + n : len(x) + 4 + n] - padded[4 - n : len(x) + 4 - n])
                for n in (1, 2, 3, 4)
            )
            / 60
        )

    features = np.hstack([static, differences(static), differences(differences(static))])
    features = features[::2][: (len(samples) - 400) // 320 + 1]
    return (features - features.mean(axis=0)) / features.std(axis=0)


def test_textbook(make_audio):
    samples = make_audio(1.0, 0)
    expected = textbook(samples)
    result = mfcc(samples)
    assert tuple(result.shape) == expected.shape == (49, 39)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (1039, 2), (1040, 3), (16000, 49)],
)
def test_frames(samples, frames):
    assert HUBERT_FRAMING.num_frames(samples) == frames


def test_silence_and_one_frame_are_finite():
    for samples in (np.zeros(4000, dtype=np.float32), np.ones(400, dtype=np.float32)):
        assert np.isfinite(mfcc(samples).numpy()).all()


def test_as_an_encoder(make_audio):
    encoder = load_encoder("mfcc", 0)
    batch = [make_audio(0.5, 1), make_audio(0.3, 2)]
    for samples, features in zip(batch, encoder(batch), strict=True):
        assert features.equal(mfcc(samples))
    assert encoder.dim == encoder.description["dim"] == 39
    assert encoder.description["frame_rate"] == 50


def mfcc_array(samples, **options):
    return mfcc(samples, **options).numpy()


@pytest.mark.parametrize("samples", [400, 401, 719, 720, 721, 1039, 1040, 16000, 16001, 23456])
def test_frames_of_mfcc_equal_frames_of_hubert(samples, stable_hubert):
    hubert = HubertModel.from_pretrained(stable_hubert)
    expected = hubert._get_feat_extract_output_lengths(samples)
    assert HUBERT_FRAMING.num_frames(samples) == expected
    noise = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    features = mfcc_array(noise)
    assert features.shape == (expected, 39)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert hubert.feature_extractor(torch.from_numpy(noise)[None]).shape[2] == expected


def test_too_short_for_a_frame():
    assert HUBERT_FRAMING.num_frames(399) == 0
    with pytest.raises(ValueError, match="399 samples"):
        mfcc_array(np.zeros(399, np.float32))


def test_frame_looks_at_hubert_window():
    """A change outside samples [320 i, 320 i + 400) leaves the static part of frame i alone."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(8000).astype(np.float32)
    before = mfcc_array(samples, normalize=False)[:, :13]
    frame = 10
    changed = samples.copy()
    changed[: 320 * frame] = rng.standard_normal(320 * frame)
    changed[320 * frame + 400 :] = rng.standard_normal(8000 - 320 * frame - 400)
    after = mfcc_array(changed, normalize=False)[:, :13]
    # The decibel floor is relative to the loudest point of the utterance: equal here.
    np.testing.assert_allclose(after[frame], before[frame], atol=1e-3)
    assert np.abs(after[frame - 2] - before[frame - 2]).max() > 1


def test_differences_and_normalisation():
    # A sound that does not change in time has no differences.
    time = np.arange(16000) / 16000
    features = mfcc_array(np.sin(2 * np.pi * 500 * time).astype(np.float32), normalize=False)
    assert np.abs(features[:, 13:]).max() < 1e-2 * np.abs(features[:, :13]).max()
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    normal = mfcc_array(noise)
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=1e-3)
    assert np.isfinite(mfcc_array(np.zeros(4000, np.float32))).all()
