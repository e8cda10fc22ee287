"""The labels of HuBERT's first iteration: k-means over MFCC (Hsu et al. 2021, section IV-B)."""

from typing import List, Sequence

import numpy as np

from espnet_spire.utils.errors import SpireError


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
