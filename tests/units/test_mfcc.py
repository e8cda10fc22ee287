"""MFCCs against the textbook, written out in numpy."""

import numpy as np
import pytest
from scipy.fft import dct

from espnet_spire.units.encoder import load_encoder
from espnet_spire.units.mfcc import mfcc, num_frames


def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def textbook(samples):
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 400)[::320]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    bins = np.arange(201) * 40.0
    edges = 700 * (10 ** (np.linspace(mel(0), mel(8000), 42) / 2595) - 1)
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - low) / (mid - low)
    falling = (high - bins[:, None]) / (high - mid)
    bank = np.maximum(0, np.minimum(rising, falling))
    decibel = 10 * np.log10(np.maximum(power @ bank, 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    static = dct(decibel, type=2, norm="ortho")[:, :13]

    def differences(x):
        padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
        return (
            sum(
                n * (padded[2 + n : len(x) + 2 + n] - padded[2 - n : len(x) + 2 - n])
                for n in (1, 2)
            )
            / 10
        )

    features = np.hstack([static, differences(static), differences(differences(static))])
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
    assert num_frames(samples) == frames


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
