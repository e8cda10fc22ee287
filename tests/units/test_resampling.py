import numpy as np
import pytest
import torch
import torchaudio

from espnet_spire.units import resampling
from espnet_spire.units.resampling import check_rate, resample, resampled_length
from espnet_spire.utils.errors import SpireError

RATE = 16000


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44056, 48000, 96000])
@pytest.mark.parametrize("count", [1, 399, 7001, 20000])
def test_resampling_in_chunks_is_resampling_as_a_whole(rate, count, monkeypatch):
    monkeypatch.setattr(resampling, "_CHUNK", 3000)
    samples = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    whole = torchaudio.transforms.Resample(rate, RATE)(torch.from_numpy(samples)).numpy()
    found = resample(samples, rate)
    exact = (count * RATE + rate - 1) // rate
    assert len(found) == resampled_length(count, rate) == exact
    assert 0 <= exact - len(whole) <= 1
    np.testing.assert_allclose(found[: len(whole)], whole, atol=2e-6)


def test_length_of_long_audio_is_exact():
    # torchaudio counts in float32, which has no odd numbers from 2**24 on
    samples = np.zeros(2 * (2**24 + 1) + 1, dtype=np.float32)
    assert len(resample(samples, 32000)) == 2**24 + 2


def test_16_khz_stays_as_it_is():
    samples = np.ones(7, dtype=np.float32)
    assert resample(samples, RATE) is samples
    assert len(resample(samples[:0], 8000)) == 0


def test_refused_rates():
    for rate in (4000, 8000, 11025, 44056, 44100, 384000):
        check_rate("a.wav", rate)
    for rate in (0, 3999, 384001, 44101, 15999):
        with pytest.raises(SpireError, match=f"a.wav: a sampling rate of {rate} Hz"):
            check_rate("a.wav", rate)
