"""Learn a codebook: sample utterances, encode them, cluster their frames."""

import logging
import random
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from espnet_spire.units.audio import SAMPLE_RATE, load_audio, utterance_sources
from espnet_spire.units.batching import batches
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.mfcc import HOP, num_frames
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import UTT2SPK, read_table
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

# k-means++ sees at least this many frames for each cluster.
SEED_FRAMES_PER_CLUSTER = 50


class Sampled(NamedTuple):
    """An utterance that takes part in learning: its key and where its samples are."""

    key: str
    source: object


def sample_utterances(
    data_dirs: Sequence[PathLike], *, max_per_speaker: Optional[int], seed: int
) -> List[Sampled]:
    """All utterances of all directories in one random order, at most n of a speaker."""
    chosen: List[Sampled] = []
    taken: Dict[str, int] = {}
    rng = random.Random(seed)
    for data_dir in data_dirs:
        sources = utterance_sources(data_dir)
        speakers = read_table(f"{data_dir}/{UTT2SPK}") if max_per_speaker else {}
        keys = list(sources)
        rng.shuffle(keys)
        for key in keys:
            if max_per_speaker:
                if key not in speakers:
                    raise SpireError(f"{data_dir}/{UTT2SPK}: utterance {key} is missing")
                speaker = f"{data_dir}\t{speakers[key]}"
                if taken.get(speaker, 0) == max_per_speaker:
                    continue
                taken[speaker] = taken.get(speaker, 0) + 1
            chosen.append(Sampled(key, sources[key]))
    rng.shuffle(chosen)
    return chosen


def collect_frames(
    encoder, utterances: Sequence[Sampled], *, hours: float, max_bytes: int, batch_seconds: float
) -> np.ndarray:
    """Encode utterances until ``hours`` of audio are read.

    When their frames would need more than ``max_bytes``, a random subset of each utterance's
    frames is kept, so that all utterances still take part.

    Returns:
        float32, shape (frames, D), in no particular order.
    """
    budget = hours * 3600 * SAMPLE_RATE
    most = min(budget, 1e18)
    frames_wanted = max(1, max_bytes // (4 * encoder.dim))
    generator = torch.Generator().manual_seed(0)

    def read():
        used = 0
        for utterance in utterances:
            if used >= most:
                return
            samples = load_audio(utterance.source)
            if num_frames(len(samples)) < 1:
                continue
            used += len(samples)
            bar.update(min(len(samples) // SAMPLE_RATE, bar.total - bar.n))
            yield utterance.key, samples

    chunks, count = [], 0
    keep = 1.0
    with progress(total=int(hours * 3600), desc="frames for k-means", unit="s") as bar:
        for batch in batches(read(), max_samples=int(batch_seconds * SAMPLE_RATE)):
            for features in encoder([samples for _, samples in batch]):
                if keep < 1.0:
                    features = features[torch.rand(len(features), generator=generator) < keep]
                chunks.append(features.numpy())
                count += len(features)
            if count > frames_wanted:  # thin out what is there, and what comes, by half
                everything = np.concatenate(chunks)
                half = torch.randperm(len(everything), generator=generator)[: count // 2]
                chunks, count, keep = [everything[half.numpy()]], count // 2, keep / 2
    if not count:
        raise SpireError("no frames to learn from: every utterance is shorter than one frame")
    return np.concatenate(chunks)


def learn_codebook(
    encoder,
    data_dirs: Sequence[PathLike],
    *,
    num_clusters: int,
    hours: float,
    max_per_speaker: Optional[int],
    seed: int,
    max_bytes: int,
    batch_seconds: float = 40.0,
    passes: int = 10,
) -> Codebook:
    """Learn K centroids of an encoder's features (paper, section 3.1).

    Frames of all corpora are shuffled together before anything is seeded from them.
    """
    utterances = sample_utterances(data_dirs, max_per_speaker=max_per_speaker, seed=seed)
    frames = collect_frames(
        encoder, utterances, hours=hours, max_bytes=max_bytes, batch_seconds=batch_seconds
    )
    np.random.default_rng(seed).shuffle(frames)
    held_out = frames[: len(frames) // 20]
    training = frames[len(frames) // 20 :]
    if len(training) < num_clusters:
        raise SpireError(
            f"{len(training)} frames cannot make --num_clusters {num_clusters}; give more audio"
        )
    logging.info("k-means: %d frames, %d clusters", len(training), num_clusters)
    kmeans = MiniBatchKMeans(
        num_clusters,
        init="k-means++",
        init_size=min(len(training), max(3, SEED_FRAMES_PER_CLUSTER) * num_clusters),
        batch_size=max(1024, 2 * num_clusters),
        max_iter=passes,
        n_init=1,
        reassignment_ratio=0.01,
        random_state=seed,
    ).fit(training)
    centroids = torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))
    codebook = Codebook(centroids, {})
    use = np.bincount(codebook.nearest(torch.from_numpy(training)).numpy(), minlength=num_clusters)
    description = {
        **encoder.description,
        "num_clusters": num_clusters,
        "seed": seed,
        "hours": round(len(frames) * HOP / SAMPLE_RATE / 3600, 4),
        "frames": int(len(frames)),
        "inertia": _inertia(codebook, training),
        "held_out_inertia": _inertia(codebook, held_out) if len(held_out) else None,
        "dead_share": float((use == 0).mean()),
        "perplexity": perplexity(use),
    }
    return Codebook(centroids, description)


def _inertia(codebook: Codebook, frames: np.ndarray) -> float:
    """Mean squared distance to the nearest centroid."""
    features = torch.from_numpy(frames)
    distance = features - codebook.centroids[codebook.nearest(features)]
    return float((distance * distance).sum(dim=1).mean())


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of a histogram: how many clusters are in even use."""
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
