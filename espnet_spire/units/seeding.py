"""Where k-means begins, and where clusters go that lost all their frames: D² sampling."""

from typing import NamedTuple

import torch
from torch import Tensor

from espnet_spire.units.nearest import NearestCentre, Rows, row_chunks, square_distances

# k-means++ draws one centre a round and looks at all frames after each; as good with many frames
# a cluster, and far faster, are rounds of many centres, each round one matrix product.
MIN_ROUNDS = 25
# Few centres can afford a round each, and then never share one with a near double.
_CENTRES_TIMES_ROUNDS = 20_000
# As in k-means++ with local trials, a centre is the best of several drawn: the one that brings the
# frames nearest. Plain D² sampling takes outliers and loses 3 % of inertia. One frame in eight is
# enough to choose by.
TRIALS = 8
_TRIAL_SHARE = 8


class Seeds(NamedTuple):
    """``centres``: float32, (K, D); ``labels``, ``distances``: of the frames seen."""

    centres: Tensor
    labels: Tensor
    distances: Tensor


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` different positions, each the more likely the larger its weight.

    The largest weight / Exp(1): as drawing one after the other without putting back, without
    torch.multinomial's limit of 2^24 weights.

    Args:
        weights: (n,), not negative; where fewer than ``count`` are positive, others fill up.
        generator: of the CPU.

    Returns:
        int64 on the CPU, (count,).
    """
    race = torch.empty(len(weights)).exponential_(generator=generator).clamp_min_(1e-30)
    return (weights.cpu().float() / race).topk(count).indices


def seed_centres(
    frames: Tensor, num_clusters: int, *, dtype: torch.dtype, device: str, seed: int
) -> Seeds:
    """Choose frames as centres, far ones rather than near ones.

    Args:
        frames: (n, D), centred; n at least ``num_clusters``.
        num_clusters: K.
        dtype, device: of the matrix products.
        seed: another gives other centres.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = Rows(frames.to(device), dtype)
    count, dim = frames.shape
    centres = torch.empty(num_clusters, dim, device=device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    # What two frames are apart on average: a radius for the first round.
    distances = torch.full((count,), 2 * float(rows.norms.mean()), device=device)
    weights = distances.cpu()
    judging = -(-count // _TRIAL_SHARE)
    done = 0
    rounds = min(num_clusters, max(MIN_ROUNDS, _CENTRES_TIMES_ROUNDS // num_clusters))
    for number in range(rounds, 0, -1):
        size = (num_clusters - done) // number
        first_round = done == 0
        trials = min(TRIALS, count // size)
        chosen = draw(weights, trials * size, generator)
        candidates = frames[chosen].to(device, torch.float32)
        gains = NearestCentre(candidates, dtype).gains(rows, distances[:judging])
        # A candidate among the frames to choose by speaks for itself, outliers loudest.
        gains -= torch.where(chosen < judging, weights[chosen], 0).to(device)
        best = gains.view(size, trials).argmax(dim=1)
        best += torch.arange(0, len(candidates), trials, device=device)
        centres[done : done + size] = candidates[best]
        nearest = NearestCentre(centres[done : done + size], dtype)
        for part in row_chunks(count, rows.norms.device):
            found = nearest.of(rows, part, distances[part])
            nearer = (found.distances < distances[part]) | first_round
            labels[part] = torch.where(nearer, found.labels + done, labels[part])
            distances[part] = torch.where(nearer, found.distances, distances[part])
        if first_round:
            distances = square_distances(frames, centres, labels)
        done += size
        weights = distances.cpu()
    # bfloat16 knows a distance to a share of what the last nearer centre brought.
    return Seeds(centres, labels, square_distances(frames, centres, labels))
