"""MFCCs at HuBERT's frame rate: labels of HuBERT's first iteration and a baseline encoder."""

import numpy as np
import torch
import torchaudio

from espnet_spire.units.audio import SAMPLE_RATE

WINDOW = 400  # samples that one HuBERT frame sees: 25 ms
HOP = 320  # samples between two HuBERT frames: 20 ms
NUM_COEFFICIENTS = 13
MFCC_DIM = 3 * NUM_COEFFICIENTS

_transform = None


def num_frames(num_samples: int) -> int:
    """Frames of 25 ms every 20 ms that lie wholly inside; HuBERT's convolutions give as many."""
    return max(0, (num_samples - WINDOW) // HOP + 1)


def mfcc(samples: np.ndarray) -> torch.Tensor:
    """13 MFCCs with first and second differences, mean and variance normalised.

    Args:
        samples: float32 at 16 kHz, shape (samples,).

    Returns:
        float32, shape (frames, 39), one row for each HuBERT frame.
    """
    global _transform
    if _transform is None:
        _transform = torchaudio.transforms.MFCC(
            SAMPLE_RATE,
            n_mfcc=NUM_COEFFICIENTS,
            melkwargs={
                "n_fft": WINDOW,
                "win_length": WINDOW,
                "hop_length": HOP,
                "n_mels": 40,
                "center": False,
            },
        )
    static = _transform(torch.from_numpy(samples)[None])
    first = torchaudio.functional.compute_deltas(static)
    second = torchaudio.functional.compute_deltas(first)
    features = torch.cat([static, first, second], dim=1)[0].T
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    return ((features - mean) / (std + 1e-5)).contiguous()
