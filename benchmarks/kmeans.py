"""k-means of many clusters against scikit-learn's MiniBatchKMeans, to the same held-out inertia.

Frames are synthetic: a mixture of eight times as many Gaussians as clusters are asked for, their
weights falling like 1/(rank + 10)^0.9 (phones in context are as uneven), their means drawn under
a spectrum that decays like (dimension)^-0.5, noise around them under (dimension)^-0.35 and of a
size of each component's own (0.5 to 1.5), and a large mean that all frames share, as features of
speech encoders have. Within and between components there is about as much variance.

Both sides get the frames in memory as float32; what ours makes of them first (centred, float16)
counts as its time. Inertia is measured in float32 on frames that neither saw.
"""

import argparse
import resource
import statistics
import time
from typing import Callable, Dict, List, NamedTuple

import numpy as np
import torch


class Result(NamedTuple):
    seconds: float
    inertia: float


class Mixture:
    """Draws frames, (n, dim) float32, of one and the same mixture."""

    def __init__(self, components: int, dim: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rank = np.arange(1, dim + 1)

        def spectrum(power: float) -> np.ndarray:
            values = rank**power
            return (values / np.sqrt(np.mean(values**2))).astype(np.float32)

        self.means = rng.standard_normal((components, dim), dtype=np.float32) * spectrum(-0.5)
        self.means += 3 * rng.standard_normal(dim, dtype=np.float32)
        self.noise = spectrum(-0.35)
        self.size = rng.uniform(0.5, 1.5, (components, 1)).astype(np.float32)
        weights = 1 / (np.arange(components) + 10.0) ** 0.9
        self.weights = weights / weights.sum()

    def draw(self, count: int, seed: int, dtype=np.float32) -> np.ndarray:
        rng = np.random.default_rng([seed, 1])
        frames = np.empty((count, self.means.shape[1]), dtype)
        for first in range(0, count, 10000):
            rows = frames[first : first + 10000]
            which = rng.choice(len(self.means), len(rows), p=self.weights)
            noise = rng.standard_normal(rows.shape, dtype=np.float32) * self.noise
            rows[:] = self.means[which] + noise * self.size[which]
        return frames


def inertia(frames: np.ndarray, centres: np.ndarray) -> float:
    """Mean square distance to the nearest centre: float32 over centred vectors."""
    mean = torch.from_numpy(frames.mean(axis=0))
    points, books = torch.from_numpy(frames) - mean, torch.from_numpy(centres) - mean
    half = 0.5 * books.square().sum(dim=1)
    total = 0.0
    for rows in points.split(1000):
        nearest = books[(rows @ books.T - half).argmax(dim=1)]
        total += float((rows - nearest).square().sum(dtype=torch.float64))
    return total / len(frames)


def sklearn_once(frames: np.ndarray, num_clusters: int, seed: int, init: str) -> np.ndarray:
    """One pass of batches of 10,000, seeded from three batches: scikit-learn's defaults."""
    from sklearn.cluster import MiniBatchKMeans

    batch = min(10000, len(frames))
    kmeans = MiniBatchKMeans(
        num_clusters,
        init=init,
        n_init=1,
        max_iter=1,
        batch_size=batch,
        random_state=seed,
        compute_labels=False,
    )
    return kmeans.fit(frames).cluster_centers_.astype(np.float32)


def ours(frames: np.ndarray, num_clusters: int, seed: int, passes: int, dtype: str):
    """Seeding and so many passes of the torch back-end."""
    from espnet_spire.units.clustering import Settings, choose_dtype, learn_centres

    mean = frames.mean(axis=0)
    centred = np.empty(frames.shape, np.float16)
    for first in range(0, len(frames), 10000):
        centred[first : first + 10000] = frames[first : first + 10000] - mean
    held_out = min(len(centred) // 20, 100_000)
    settings = Settings(
        num_clusters,
        "torch",
        passes=passes,
        tol=0.0,
        dtype=choose_dtype(dtype, "cpu", frames.shape[1]),
        seed=seed,
    )
    state = learn_centres(centred[held_out:], centred[:held_out], settings)
    return state.centres.numpy() + mean


def timed(work: Callable[[], np.ndarray], judging: np.ndarray) -> Result:
    start = time.perf_counter()
    centres = work()
    seconds = time.perf_counter() - start
    return Result(seconds, inertia(judging, centres))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=250_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--num_clusters", type=int, default=5000)
    parser.add_argument("--passes", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=1, help="medians of so many rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", help="rows whose names contain one of these")
    parser.add_argument("--small", action="store_true", help="a quick look: 200 clusters")
    args = parser.parse_args()
    if args.small:
        args.frames, args.dim, args.num_clusters = 20_000, 256, 200
    torch.set_num_threads(args.threads)
    mixture = Mixture(8 * args.num_clusters, args.dim)
    frames, judging = mixture.draw(args.frames, 1), mixture.draw(10_000, 2)
    size = args.num_clusters
    runs: Dict[str, Callable[[int], np.ndarray]] = {
        "MiniBatchKMeans": lambda seed: sklearn_once(frames, size, seed, "k-means++"),
        "MiniBatchKMeans, random seeds": lambda seed: sklearn_once(frames, size, seed, "random"),
    }
    for dtype in args.dtype:
        for passes in args.passes:
            runs[f"ours {dtype}, {passes} passes"] = lambda seed, passes=passes, dtype=dtype: ours(
                frames, size, seed, passes, dtype
            )
    if args.only:
        runs = {name: runs[name] for name in runs if any(part in name for part in args.only)}
    results: Dict[str, List[Result]] = {name: [] for name in runs}
    for repeat in range(args.repeats):
        for name, work in runs.items():
            result = timed(lambda work=work, seed=repeat: work(seed), judging)
            results[name].append(result)
            print(f"# {name}: {result.seconds:.1f} s, {result.inertia:.2f}", flush=True)

    print(f"\n{args.frames:,} frames of {args.dim}, {size} clusters, {args.threads} threads")
    medians = {
        name: Result(*(statistics.median(values) for values in zip(*rows, strict=True)))
        for name, rows in results.items()
    }
    base_name = next(iter(medians))
    base = medians[base_name]
    print("| | seconds | held-out inertia | share of the time |\n|---|---|---|---|")
    for name, row in medians.items():
        share = row.seconds / base.seconds
        print(f"| {name} | {row.seconds:.1f} | {row.inertia:.1f} | {share:.3f} |")
    reached = [
        row.seconds / base.seconds
        for name, row in medians.items()
        if name.startswith("ours") and row.inertia <= base.inertia
    ]
    share = f"in {min(reached):.3f} of its time" if reached else "was not reached"
    print(f"\n{base_name}: its held-out inertia {share}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
