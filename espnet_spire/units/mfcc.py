"""MFCCs at HuBERT's frame rate: labels of HuBERT's first iteration and a baseline encoder.

Frame *i* looks at samples [320 i, 320 i + 400) of 16 kHz audio, as HuBERT's does.
"""

from functools import lru_cache

import numpy as np
import torch
import torchaudio

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.framing import HUBERT_FRAMING

NUM_COEFFICIENTS = 13
MFCC_DIM = 3 * NUM_COEFFICIENTS
_WINDOW = HUBERT_FRAMING.window
_ANALYSIS_HOP = HUBERT_FRAMING.hop // 2
_FFT = 512
_DELTA_WINDOW = 9


@lru_cache(maxsize=1)
def _transform() -> torchaudio.transforms.MFCC:
    return torchaudio.transforms.MFCC(
        SAMPLE_RATE,
        n_mfcc=NUM_COEFFICIENTS,
        melkwargs={
            "n_fft": _FFT,
            "win_length": _WINDOW,
            "hop_length": _ANALYSIS_HOP,
            "n_mels": 40,
            "f_min": 20.0,
            # No padding at the edges: it would shift and multiply the frames.
            "center": False,
        },
    )


@torch.no_grad()
def mfcc(samples: np.ndarray, *, normalize: bool = True) -> torch.Tensor:
    """13 MFCCs with first and second differences.

    The differences are taken over 10 ms frames, every second of which is kept.

    Args:
        samples: float32 at 16 kHz, shape (samples,), at least 400.
        normalize: zero mean and unit variance over the utterance, which takes out much of voice
            and channel.

    Returns:
        float32, shape (``HUBERT_FRAMING.num_frames(samples)``, 39).
    """
    frames = HUBERT_FRAMING.num_frames(len(samples))
    if frames == 0:
        raise ValueError(f"{len(samples)} samples are shorter than one frame of {_WINDOW}")
    # torch.stft puts the window into the middle of its points: padding as much on either side
    # makes analysis frame i start at sample 160 i.
    margin = (_FFT - _WINDOW) // 2
    padded = torch.nn.functional.pad(torch.as_tensor(samples), (margin, margin))
    static = _transform()(padded)
    first = torchaudio.functional.compute_deltas(static, _DELTA_WINDOW)
    second = torchaudio.functional.compute_deltas(first, _DELTA_WINDOW)
    features = torch.cat([static, first, second])[:, ::2][:, :frames].T
    if normalize:
        features = features - features.mean(dim=0)
        features = features / features.std(dim=0, correction=0).clamp_min(1e-5)
    return features.contiguous()
