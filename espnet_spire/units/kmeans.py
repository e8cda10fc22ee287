"""Learn a codebook: sample utterances, collect their frames, cluster them (paper, section 3.1).

Each of the three parts is a module of its own (:mod:`sampling`, :mod:`frames`,
:mod:`clustering`); here they are put together over a work directory, which is what a killed job
goes on from and what the jobs of a sharded one meet in.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.clustering import (
    BACKENDS,
    Settings,
    choose_backend,
    choose_dtype,
    frame_capacity,
    frame_dtype,
    learn_centres,
    measure_use,
    perplexity,
)
from espnet_spire.units.codebook import Codebook, save_codebook
from espnet_spire.units.frames import (
    Collection,
    collect_frames,
    load_frames,
    read_collection,
    sample_batches,
)
from espnet_spire.units.sampling import Sampled, digest, sample_utterances
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.datadir import write_rejected
from espnet_spire.utils.errors import SpireError

PLOT = "kmeans.png"
SETTINGS = "settings.json"
CHECKPOINT = "checkpoint.safetensors"
# One frame in twenty is held out, and at most so many: enough to tell passes apart.
_HELD_OUT_SHARE, _MOST_HELD_OUT = 20, 100_000
# Durations and the draw of frames vary: a little less than what there is room for is drawn.
_MARGIN = 0.99
# scikit-learn takes 32 bits, and passes count on from the seed.
_MOST_SEED = 2**31 - 1


class Options(NamedTuple):
    """What decides the result, besides data and encoder.

    ``hours`` of audio at most; ``max_per_speaker``: utterances, one number for all data
    directories or one for each, 0 for no limit; ``max_bytes``: memory for frames and work space;
    ``batch_seconds``: padded audio an encoder batch.
    """

    num_clusters: int
    hours: float = 720.0
    max_per_speaker: Tuple[int, ...] = ()
    seed: int = 0
    passes: int = 10
    tol: float = 1e-4
    full_batch: bool = False
    backend: str = "auto"
    max_bytes: int = 4 * 2**30
    batch_seconds: float = 40.0


class Plan(NamedTuple):
    """What follows from options and data before anything is encoded."""

    options: Options
    description: Dict[str, Any]
    utterances: List[Sampled]
    collection: Collection
    backend: str
    capacity: int


class Learned(NamedTuple):
    """``use``: how many training frames fall to each cluster, int64, (K,)."""

    codebook: Codebook
    use: np.ndarray


def work_directory(out: PathLike) -> Path:
    """Where the work towards the codebook ``out`` is kept."""
    out = Path(out)
    return out.with_name(out.name + ".work")


def plan_learning(
    description: Dict[str, Any],
    data_dirs: Sequence[PathLike],
    options: Options,
    work: PathLike,
    about_encoder: Optional[Dict[str, Any]] = None,
) -> Plan:
    """Choose utterances and the share of their frames that there is room for.

    Args:
        description: of the encoder (``describe_encoder``).
        data_dirs: Kaldi data directories.
        work: work directory; made, or compared with what it was begun with.
        about_encoder: settings of the encoder that change its features' last bits (``dtype``, …).

    Raises:
        SpireError: an option out of its range; a work directory begun with others.
    """
    _check(options)
    backend = choose_backend(options.backend, options.num_clusters)
    capacity = frame_capacity(options.max_bytes, description["dim"], options.num_clusters, backend)
    utterances = sample_utterances(
        data_dirs,
        hours=options.hours,
        max_per_speaker=options.max_per_speaker,
        seed=options.seed,
    )
    settings = {
        "data_dir": [str(data_dir) for data_dir in data_dirs],
        **description,
        **(about_encoder or {}),
        **{name: value for name, value in options._asdict().items() if name != "max_bytes"},
        "backend": backend,
        "max_gib": round(options.max_bytes / 2**30, 6),
        "max_per_speaker": list(options.max_per_speaker),
        "utterances": digest(utterances),
    }
    _claim(Path(work), settings)
    seconds = sum(utterance.num_samples for utterance in utterances) / SAMPLE_RATE
    expected = max(1.0, seconds * description["frame_rate"])
    usable = [utterance for utterance in utterances if utterance.reason is None]
    collection = Collection(
        sample_batches(usable, options.batch_seconds),
        min(1.0, _MARGIN * capacity / expected),
        frame_dtype(backend),
        description["dim"],
        options.seed,
    )
    logging.info(
        "k-means: %d utterances, %.2f hours, %.3g of their frames",
        len(usable),
        seconds / 3600,
        collection.keep,
    )
    return Plan(options, description, utterances, collection, backend, capacity)


def cluster(
    plan: Plan,
    work: PathLike,
    *,
    num_shards: int = 1,
    device: str = "cpu",
    dtype: str = "auto",
    rejected_file: Optional[PathLike] = None,
    max_rejected: float = 0.001,
) -> Learned:
    """Cluster what the jobs collected.

    Args:
        device, dtype: of the matrix products of the torch back-end.
        rejected_file: where unusable utterances are listed.
        max_rejected: share of the utterances that may be unusable.

    Raises:
        SpireError: a job has not finished, too many utterances are unusable, too few frames.
    """
    options = plan.options
    collected = read_collection(work, plan.collection, num_shards)
    rejected = {item.key: item.reason for item in plan.utterances if item.reason is not None}
    rejected.update(collected.rejected)
    if rejected_file is not None:
        write_rejected(rejected_file, rejected)
    _check_rejected(rejected, len(plan.utterances), max_rejected, rejected_file)
    if not collected.num_frames:
        raise SpireError("no frames to learn from: no utterance is usable")
    frames, mean = load_frames(collected, plan.collection, capacity=plan.capacity)
    held_out = min(len(frames) // _HELD_OUT_SHARE, _MOST_HELD_OUT)
    training = frames[held_out:]
    on_torch = plan.backend == "torch"
    settings = Settings(
        options.num_clusters,
        plan.backend,
        passes=options.passes,
        tol=options.tol,
        full_batch=options.full_batch and on_torch,
        dtype=choose_dtype(dtype, device, len(mean)) if on_torch else torch.float32,
        device=device if on_torch else "cpu",
        seed=options.seed,
    )
    logging.info(
        "k-means: %d frames, %d held out, %d clusters, %s",
        len(training),
        held_out,
        options.num_clusters,
        plan.backend,
    )
    state = learn_centres(training, frames[:held_out], settings, Path(work) / CHECKPOINT)
    use = measure_use(training, state, settings)
    description = {
        **plan.description,
        "num_clusters": options.num_clusters,
        "seed": options.seed,
        "hours": round(collected.num_samples / SAMPLE_RATE / 3600, 4),
        "frames": len(frames),
        "backend": plan.backend,
        "inertia": use.inertia,
        "held_out_inertia": state.history[-1]["held_out_inertia"],
        "dead_share": use.dead_share,
        "perplexity": perplexity(use.counts),
        "history": state.history,
    }
    return Learned(Codebook(state.centres + torch.from_numpy(mean), description), use.counts)


def publish(learned: Learned, out: PathLike) -> None:
    """Write the codebook directory with its picture, all at once."""
    from espnet_spire.utils.plots import plot_kmeans

    with atomic_dir(out) as aside:
        save_codebook(learned.codebook, aside / "codebook")
        for path in (aside / "codebook").iterdir():
            os.replace(path, aside / path.name)
        (aside / "codebook").rmdir()
        description = learned.codebook.description
        plot_kmeans(description["history"], learned.use, aside / PLOT, _title(description))


def learn_codebook(
    encoder,
    data_dirs: Sequence[PathLike],
    options: Options,
    *,
    work: Optional[PathLike] = None,
    device: str = "cpu",
    dtype: str = "auto",
    rejected_file: Optional[PathLike] = None,
    max_rejected: float = 0.001,
) -> Learned:
    """Centroids of an encoder's features, in one process; see :func:`cluster` for the arguments.

    Args:
        work: where to keep what a killed call goes on from; nowhere by default.
    """
    if work is None:
        with tempfile.TemporaryDirectory(prefix="kmeans.") as temporary:
            return learn_codebook(
                encoder,
                data_dirs,
                options,
                work=temporary,
                device=device,
                dtype=dtype,
                rejected_file=rejected_file,
                max_rejected=max_rejected,
            )
    plan = plan_learning(encoder.description, data_dirs, options, work)
    collect_frames(encoder, plan.collection, work)
    return cluster(
        plan,
        work,
        device=device,
        dtype=dtype,
        rejected_file=rejected_file,
        max_rejected=max_rejected,
    )


def remove_work(work: PathLike) -> None:
    """Delete a work directory."""
    shutil.rmtree(work)


def _title(description: Dict[str, Any]) -> str:
    name = Path(description["encoder"]).name
    return f"{description['num_clusters']} clusters of {name}, layer {description['layer']}"


def _check(options: Options) -> None:
    wrong = {
        "num_clusters": options.num_clusters < 1,
        "passes": options.passes < 1,
        "seed": options.seed < 0,
        "tol": not options.tol >= 0,
        "batch_seconds": not options.batch_seconds > 0,
        "hours": not options.hours > 0,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            least = "0 or more" if name in ("seed", "tol") else "more than 0"
            raise SpireError(f"--{name} {getattr(options, name)}: must be {least}")
    if options.seed > _MOST_SEED:
        raise SpireError(f"--seed {options.seed}: must be {_MOST_SEED} or less")
    if options.backend not in BACKENDS:
        raise SpireError(f"--backend {options.backend}: choose {', '.join(BACKENDS)}")


def _claim(work: Path, settings: Dict[str, Any]) -> None:
    """Write down what a work directory is for, or insist that it is for the same."""
    path = work / SETTINGS
    if not path.exists():
        write_json(path, settings)
        return
    before = read_json(path)
    for name, value in settings.items():
        if before.get(name) == value:
            continue
        if name == "utterances":
            what = "the data directories have changed since it was begun"
        else:
            what = f"begun with {name} {before.get(name)}, now {value}: go on with what it was"
            what += " begun with"
        raise SpireError(f"{work}: {what}; or remove the directory to begin anew")


def _check_rejected(
    rejected: Dict[str, str], total: int, max_rejected: float, rejected_file: Optional[PathLike]
) -> None:
    for key, reason in rejected.items():
        logging.warning("rejected %s: %s", key, reason)
    if len(rejected) > max_rejected * total:
        key, reason = next(iter(rejected.items()))
        listed = f"all in {rejected_file}; " if rejected_file is not None else ""
        raise SpireError(
            f"{len(rejected)} of {total} utterances are unusable, first {key}: {reason}"
            f" ({listed}--max_rejected allows a share)"
        )
