"""k-means over frames in memory: seeding, passes, dead clusters, checkpoints; two back-ends.

``torch`` seeds in rounds of matrix products and then runs mini-batch passes: a centre is the
running mean of what was assigned to it, its frames of the pass before counting a tenth. Or, on
demand, full-batch (Lloyd's) passes. ``sklearn`` seeds by k-means++ and runs MiniBatchKMeans; its
passes begin without a memory of the pass before.
"""

import contextlib
import logging
import math
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from espnet_spire.units.checkpoint import Settings, State, read_checkpoint, write_checkpoint
from espnet_spire.units.nearest import (
    NearestCentre,
    row_chunks,
    square_distances,
    widened_dim,
)
from espnet_spire.units.seeding import draw, seed_centres
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.plots import unit_use
from espnet_spire.utils.progress import progress

BACKENDS = ("auto", "sklearn", "torch")
# With more clusters than this torch is faster (benchmarks/kmeans.md).
SKLEARN_CLUSTERS = 50
# Frames of fewer numbers take longer to make ready for bfloat16 than their products save.
_BFLOAT16_DIM = 256
# Seeding looks at this many frames for each cluster.
SEED_FRAMES_PER_CLUSTER = 50
# One mini-batch: frames a cluster, and at least so many.
_BATCH_FRAMES_PER_CLUSTER, _MIN_BATCH = 2, 1024
# scikit-learn's passes start from nothing: a first batch with too few frames a cluster hurts.
_SKLEARN_BATCH_FRAMES_PER_CLUSTER = 10
# What the frames of the pass before weigh in a running mean.
_MEMORY = 0.1
_MIB = 2**20


class Pass(NamedTuple):
    """``distances``: square distances of all frames to their centres during the pass, (n,)."""

    centres: Tensor
    counts: Tensor
    distances: Tensor


class Use(NamedTuple):
    """How frames fall to centres: counts (K,), int64, and mean square distance."""

    counts: np.ndarray
    inertia: float


def choose_backend(
    backend: str, num_clusters: int, *, full_batch: bool = False, dtype: str = "auto"
) -> str:
    """``sklearn`` or ``torch`` for ``auto``.

    Raises:
        SpireError: scikit-learn was asked for with what only torch does.
    """
    only_torch = []
    if full_batch:
        only_torch.append("--full_batch")
    if dtype == "bfloat16":
        only_torch.append("--kmeans_dtype bfloat16")
    if backend == "sklearn" and only_torch:
        raise SpireError(f"--backend sklearn: knows no {only_torch[0]}; leave one of them out")
    if backend == "auto":
        return "torch" if only_torch or num_clusters > SKLEARN_CLUSTERS else "sklearn"
    return backend


def choose_dtype(dtype: str, device: str, dim: int) -> torch.dtype:
    """bfloat16 for ``auto`` where frames are long and the hardware multiplies it, else float32."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if dim < _BFLOAT16_DIM:
        return torch.float32
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def frame_dtype(backend: str) -> np.dtype:
    """How a back-end holds frames."""
    return np.dtype(np.float32 if backend == "sklearn" else np.float16)


def frame_capacity(max_bytes: int, dim: int, num_clusters: int, backend: str) -> int:
    """How many frames can be clustered in ``max_bytes``, work space included.

    Raises:
        SpireError: not even two frames a cluster; it names the memory that would do.
    """
    seeds = SEED_FRAMES_PER_CLUSTER * num_clusters
    centres = num_clusters * dim * 4
    # A position and two numbers, while frames are shuffled or drawn.
    a_frame = dim * frame_dtype(backend).itemsize + 16
    if backend == "sklearn":
        batch = max(_MIN_BATCH, _SKLEARN_BATCH_FRAMES_PER_CLUSTER * num_clusters)
        trials = 2 + int(math.log(num_clusters))
        work = 8 * centres + 2 * batch * dim * 4 + 2 * seeds * trials * 8 + 8 * _MIB
    else:
        work = 8 * centres + seeds * (4 * widened_dim(dim) + 32) + 3 * 1024 * num_clusters * 4
        work += 8 * _MIB
    capacity = int((max_bytes - work) // a_frame)
    if capacity < max(2 * num_clusters, 2):
        needed = work + max(2 * num_clusters, 2) * a_frame
        raise SpireError(
            f"--max_gib: {num_clusters} clusters of {dim} numbers need at least"
            f" {needed / 2**30:.2f} GiB beside the program itself, more is better; raise it"
        )
    return capacity


def learn_centres(
    frames: np.ndarray,
    held_out: np.ndarray,
    settings: Settings,
    checkpoint: Optional[Path] = None,
) -> State:
    """Cluster frames.

    Args:
        frames: float16 or float32, (n, D), centred (mean about 0), in random order.
        held_out: the same, (m, D), to judge by; m may be 0, then all passes are made.
        settings: see :class:`Settings`; the same give the same centres.
        checkpoint: file that holds the state after seeding and after every pass; what is there
            already is not done again.

    Returns:
        the state after the last pass.
    """
    if len(frames) < settings.num_clusters:
        raise SpireError(
            f"{len(frames)} frames cannot make --num_clusters {settings.num_clusters}; give more"
            " audio"
        )
    training, judging = torch.from_numpy(frames), torch.from_numpy(held_out)
    state = read_checkpoint(checkpoint, settings)
    if state is None:
        state = _seed(training, judging, settings)
        write_checkpoint(checkpoint, state, settings)
    one_pass = _sklearn_pass if settings.backend == "sklearn" else _torch_pass
    while not state.finished:
        done = one_pass(training, state, settings)
        state = _after_pass(training, judging, done, state, settings)
        write_checkpoint(checkpoint, state, settings)
    return state


def measure_use(frames: np.ndarray, state: State, settings: Settings) -> Use:
    """Which centres all ``frames`` fall to, and how far from them they are."""
    counts = torch.zeros(settings.num_clusters, dtype=torch.int64)
    total = 0.0
    nearest = NearestCentre(state.centres.to(settings.device), settings.dtype)
    rows = torch.from_numpy(frames)
    for first in range(0, len(rows), 65536):
        part = rows[first : first + 65536]
        labels = nearest(part, state.square_radius).labels
        counts += labels.bincount(minlength=settings.num_clusters).cpu()
        distances = square_distances(part, nearest.centres, labels)
        total += float(distances.sum(dtype=torch.float64))
    return Use(counts.numpy(), total / len(rows))


def _seed(frames: Tensor, judging: Tensor, settings: Settings) -> State:
    size = settings.num_clusters
    first = frames[: SEED_FRAMES_PER_CLUSTER * size]
    if settings.backend == "sklearn":
        from sklearn.cluster import kmeans_plusplus

        centres, _ = kmeans_plusplus(first.numpy(), size, random_state=settings.seed)
        centres = torch.from_numpy(np.ascontiguousarray(centres, dtype=np.float32))
        labels, distances = NearestCentre(centres, torch.float32)(first, 0.0)
    else:
        seeds = seed_centres(
            first, size, dtype=settings.dtype, device=settings.device, seed=settings.seed
        )
        # The last labels make a first update without another look.
        centres, labels, distances = seeds
        sums = torch.zeros_like(centres)
        _add_rows(sums, labels, first)
        counts = labels.bincount(minlength=size)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    counts = labels.bincount(minlength=size).float().cpu()
    radius = float(distances.mean(dtype=torch.float64))
    centres = centres.cpu()
    entry = _entry(0, judging, centres, counts, 0, radius, settings)
    return State(centres, counts, radius, [entry], settings.passes == 0)


def _torch_pass(frames: Tensor, state: State, settings: Settings) -> Pass:
    centres = state.centres.to(settings.device, copy=True)
    size = settings.num_clusters
    counts = torch.zeros(size, device=settings.device)
    weights = state.counts.to(settings.device) * _MEMORY
    sums = torch.zeros_like(centres)
    distances = torch.empty(len(frames))
    nearest = NearestCentre(centres, settings.dtype)
    for part in _batches(len(frames), state.passes, settings):
        rows = frames[part]
        found = nearest(rows, state.square_radius)
        distances[part] = found.distances.cpu()
        fresh = found.labels.bincount(minlength=size).float()
        counts += fresh
        _add_rows(sums, found.labels, rows)
        if not settings.full_batch:
            weights += fresh
            # A centre moves towards the mean of its new frames by their share of all its frames.
            sums.addcmul_(centres, fresh[:, None], value=-1)
            centres.addcdiv_(sums, weights.clamp_min(1e-9)[:, None])
            sums.zero_()
            nearest = NearestCentre(centres, settings.dtype)
    if settings.full_batch:
        used = counts[:, None] > 0
        centres = torch.where(used, sums / counts.clamp_min(1)[:, None], centres)
    return Pass(centres.cpu(), counts.cpu(), distances)


def _batches(count: int, number: int, settings: Settings) -> Iterator[slice]:
    """Slices of all frames, which are shuffled, in an order of each pass's own."""
    size = max(_MIN_BATCH, _BATCH_FRAMES_PER_CLUSTER * settings.num_clusters)
    starts = np.arange(0, count, size)
    if not settings.full_batch:
        np.random.default_rng([settings.seed, number, 1]).shuffle(starts)
    name = f"k-means, pass {number + 1} of {settings.passes}"
    with progress(total=count, desc=name, unit="frame") as bar:
        for start in starts.tolist():
            part = slice(start, min(start + size, count))
            yield part
            bar.update(part.stop - part.start)


def _add_rows(sums: Tensor, labels: Tensor, rows: Tensor) -> None:
    """Add each row to the sum of its label, in an order that is always the same."""
    with _deterministic(sums.device):
        for part in row_chunks(len(rows), sums.device):
            sums.index_add_(0, labels[part], rows[part].to(sums.device, torch.float32))


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU additions come in any order unless torch is told otherwise."""
    before = torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.use_deterministic_algorithms(before)


def _sklearn_pass(frames: Tensor, state: State, settings: Settings) -> Pass:
    from sklearn.cluster import MiniBatchKMeans

    size = settings.num_clusters
    kmeans = MiniBatchKMeans(
        size,
        init=state.centres.numpy(),
        n_init=1,
        max_iter=1,
        batch_size=min(len(frames), max(_MIN_BATCH, _SKLEARN_BATCH_FRAMES_PER_CLUSTER * size)),
        init_size=size,
        random_state=settings.seed + state.passes,
        max_no_improvement=None,
        reassignment_ratio=0,
    ).fit(frames.numpy())
    labels = torch.from_numpy(kmeans.labels_).long()
    centres = torch.from_numpy(np.ascontiguousarray(kmeans.cluster_centers_, dtype=np.float32))
    counts = labels.bincount(minlength=size).float()
    return Pass(centres, counts, square_distances(frames, centres, labels))


def _after_pass(
    frames: Tensor, judging: Tensor, done: Pass, state: State, settings: Settings
) -> State:
    """Give dead clusters new centres, judge, and decide whether to go on."""
    number = len(state.history)
    centres = done.centres
    dead = (done.counts == 0).nonzero()[:, 0]
    if len(dead):
        generator = torch.Generator().manual_seed(settings.seed * 1000 + number)
        centres[dead] = frames[draw(done.distances, len(dead), generator)].float()
    radius = float(done.distances.mean(dtype=torch.float64))
    entry = _entry(number, judging, centres, done.counts, len(dead), radius, settings)
    before, now = state.history[-1]["held_out_inertia"], entry["held_out_inertia"]
    settled = now is not None and before - now < settings.tol * before
    finished = settled or number >= settings.passes
    if settled and number < settings.passes:
        logging.info("k-means: no better than --tol %g, done after pass %d", settings.tol, number)
    return State(centres, done.counts, radius, [*state.history, entry], finished)


def _entry(
    number: int,
    judging: Tensor,
    centres: Tensor,
    counts: Tensor,
    reseeded: int,
    radius: float,
    settings: Settings,
) -> Dict[str, Any]:
    """What is known after a pass; printed as well."""
    inertia = None
    if len(judging):
        inertia = held_out_inertia(judging, centres, settings, radius)
    use = unit_use(counts.numpy().astype(np.int64))
    entry = {
        "pass": number,
        "held_out_inertia": inertia,
        "dead_share": use.dead,
        "perplexity": use.perplexity,
        "reseeded": reseeded,
    }
    shown = "" if inertia is None else f"held-out inertia {inertia:.6g}, "
    logging.info(
        "k-means: pass %d of %d%s: %sdead %.2f%%, perplexity %.1f of %d",
        number,
        settings.passes,
        " (seeding)" if number == 0 else "",
        shown,
        100 * entry["dead_share"],
        entry["perplexity"],
        len(counts),
    )
    return entry


def held_out_inertia(
    frames: Tensor, centres: Tensor, settings: Settings, square_radius: float
) -> float:
    """Mean square distance to the nearest centre."""
    nearest = NearestCentre(centres.to(settings.device), settings.dtype)
    labels = nearest(frames, square_radius).labels
    distances = square_distances(frames, nearest.centres, labels)
    return float(distances.mean(dtype=torch.float64))
