"""The labels of HuBERT's first iteration: k-means over MFCC (Hsu et al. 2021, section IV-B).

One label for each frame of HuBERT: frame *i* looks at samples [320 i, 320 i + 400) of 16 kHz
audio, here as there.
"""

from functools import lru_cache
from typing import List, Sequence

import numpy as np
import torch
import torchaudio

from espnet_spire.utils.errors import SpireError

SAMPLE_RATE = 16000
WINDOW = 400
HOP = 320
_ANALYSIS_HOP = 160
_DELTA_WINDOW = 9


def num_frames(samples: int) -> int:
    """Frames of HuBERT (25 ms windows, 20 ms apart) in ``samples`` samples; 0 when too short."""
    return (samples - WINDOW) // HOP + 1 if samples >= WINDOW else 0


@lru_cache(maxsize=1)
def _transform() -> torchaudio.transforms.MFCC:
    return torchaudio.transforms.MFCC(
        sample_rate=SAMPLE_RATE,
        n_mfcc=13,
        melkwargs={
            "n_fft": 512,
            "win_length": WINDOW,
            "hop_length": _ANALYSIS_HOP,
            "n_mels": 40,
            "f_min": 20.0,
            # No padding at the edges: it would shift and multiply the frames.
            "center": False,
        },
    )


@torch.no_grad()
def mfcc(samples: np.ndarray, *, normalize: bool = True) -> np.ndarray:
    """13 MFCC with first and second differences, one row for each frame of HuBERT.

    The differences are taken over 10 ms frames, every second of which is kept.

    Args:
        samples: float32 at 16 kHz, shape (samples,), at least 400.
        normalize: subtract the utterance's mean and divide by its standard deviation, which
            takes out much of voice and channel.

    Returns:
        float32, shape (``num_frames(samples)``, 39).

    Raises:
        SpireError: fewer than 400 samples.
    """
    frames = num_frames(len(samples))
    if frames == 0:
        raise SpireError(f"{len(samples)} samples are shorter than one frame of {WINDOW}")
    # torch.stft puts a window of 400 into the middle of its 512 points: the pad of 56 on either
    # side makes frame i start at sample 160 i.
    margin = (512 - WINDOW) // 2
    padded = torch.nn.functional.pad(torch.as_tensor(samples), (margin, margin))
    static = _transform()(padded)
    first = torchaudio.functional.compute_deltas(static, _DELTA_WINDOW)
    second = torchaudio.functional.compute_deltas(first, _DELTA_WINDOW)
    features = torch.cat([static, first, second])[:, ::2][:, :frames].T
    if normalize:
        features = features - features.mean(dim=0)
        features = features / features.std(dim=0, correction=0).clamp_min(1e-5)
    return features.numpy()


def cluster(
    features: Sequence[np.ndarray], *, num_clusters: int, max_frames: int, seed: int
) -> List[np.ndarray]:
    """k-means labels of every frame.

    Args:
        features: one array (frames, dimensions) an utterance.
        num_clusters: K.
        max_frames: k-means learns from at most so many frames, drawn over all utterances.
        seed: of the draw and of k-means.

    Returns:
        int64 arrays of shape (frames,), in the order of ``features``, values 0…K-1.

    Raises:
        SpireError: fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    everything = np.concatenate(features)
    if len(everything) < num_clusters:
        raise SpireError(
            f"{len(everything)} frames cannot make {num_clusters} clusters: give more audio or"
            " lower num_clusters"
        )
    rng = np.random.default_rng(seed)
    sample = everything
    if len(everything) > max_frames:
        sample = everything[rng.choice(len(everything), max_frames, replace=False)]
    kmeans = MiniBatchKMeans(
        num_clusters, batch_size=8192, n_init=3, max_iter=20, random_state=seed
    ).fit(sample)
    labels = kmeans.predict(everything).astype(np.int64)
    return np.split(labels, np.cumsum([len(feature) for feature in features])[:-1])
