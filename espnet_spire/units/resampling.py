"""Any sampling rate to 16 kHz, by torchaudio's resampler."""

import math
from functools import lru_cache

import numpy as np
import torch
import torchaudio

from espnet_spire.utils.errors import SpireError

SAMPLE_RATE = 16000
# Headers beyond these are broken, not rare.
LOWEST_RATE, HIGHEST_RATE = 4000, 384000

# Samples at a time through the resampler: memory stays small however long the audio is.
_CHUNK = 2**21
# The resampler's kernel has about this many weights at coprime rates: 64 MiB.
_LARGEST_KERNEL = 2**24


def resampled_length(num_samples: int, rate: int) -> int:
    """Samples at 16 kHz of ``num_samples`` at ``rate``: rounded up."""
    return -(-num_samples * SAMPLE_RATE // rate)


@lru_cache(maxsize=8)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """torchaudio's resampler, in chunks that join exactly.

    Args:
        samples: float32, shape (samples,), at ``rate`` Hz.

    Returns:
        float32, shape (:func:`resampled_length`,), at 16 kHz.
    """
    if rate == SAMPLE_RATE or len(samples) == 0:
        return samples
    common = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, rate // common
    transform = _resampler(rate)
    context = (-(-transform.width // down) + 1) * down
    chunk = max(1, _CHUNK // down) * down
    # torchaudio counts its output in float32, at times one too few: zeros behind the end, which
    # it would assume anyway, give enough, and the rest is cut.
    out = np.empty(resampled_length(len(samples), rate), dtype=np.float32)
    for start in range(0, len(samples), chunk):
        left = min(context, start)
        piece = samples[start - left : start + chunk + context]
        if start + chunk + context > len(samples):
            piece = np.concatenate([piece, np.zeros(down, dtype=np.float32)])
        first = start // down * up
        wanted = min(chunk // down * up, len(out) - first)
        skip = left // down * up
        out[first : first + wanted] = transform(torch.from_numpy(piece))[skip : skip + wanted]
    return out


def check_rate(name: str, rate: int) -> None:
    """Refuse a rate that cannot be, or that would need gigabytes to resample; ``name`` has it."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise SpireError(
            f"{name}: a sampling rate of {rate} Hz by its header, {LOWEST_RATE} to {HIGHEST_RATE}"
            " were expected; repair or remove it"
        )
    common = math.gcd(rate, SAMPLE_RATE)
    if rate // common * (SAMPLE_RATE // common) > _LARGEST_KERNEL:
        raise SpireError(
            f"{name}: a sampling rate of {rate} Hz by its header, which has hardly a factor in"
            f" common with {SAMPLE_RATE}; repair the header or convert it with sox"
        )
