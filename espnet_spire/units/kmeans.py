"""Learn a codebook: sample utterances, collect their frames, cluster them (paper, section 3.1).

Each of the three parts is a module of its own (:mod:`sampling`, :mod:`collecting`,
:mod:`clustering`); here they are put together over a work directory (:mod:`workdir`), which is
what a killed job goes on from and what the jobs of a sharded one meet in.
"""

import logging
import math
import os
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
)
from espnet_spire.units.codebook import DESCRIPTION, WEIGHTS, Codebook, save_codebook
from espnet_spire.units.collecting import collect_frames
from espnet_spire.units.frames import (
    Collection,
    Name,
    load_frames,
    make_collection,
    read_collection,
)
from espnet_spire.units.sampling import Sampled, sample_utterances, speaker_limits
from espnet_spire.units.workdir import (
    SAMPLE,
    SETTINGS,
    begun_with,
    claim,
    claim_encoder,
    encoder_of,
    keep_sample,
    one_at_a_time,
    sample_of,
)
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json
from espnet_spire.utils.datadir import write_rejected
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.plots import unit_use
from espnet_spire.utils.rejected import check_rejected

PLOT = "kmeans.png"
CHECKPOINT = "checkpoint.safetensors"
# What Python, torch and the libraries take of --max_gib, after an encoder was there and left.
PROCESS_GIB = 1
# One frame in twenty is held out, and at most so many: enough to tell passes apart.
_HELD_OUT_SHARE, _MOST_HELD_OUT = 20, 100_000
# Durations and the draw of frames vary: a little less than what there is room for is drawn.
_MARGIN = 0.99
# scikit-learn takes 32 bits, and passes count on from the seed.
_MOST_SEED = 2**31 - 1


class Options(NamedTuple):
    """What decides the result, besides data and encoder.

    ``hours`` of audio at most; ``max_per_speaker``: utterances, one number for all data
    directories or one for each, 0 for no limit; ``max_gib``: memory of the process that clusters;
    ``batch_seconds``: padded audio an encoder batch, ``None``: what the work was begun with;
    ``kmeans_dtype``: of the torch back-end's products.
    """

    num_clusters: int
    hours: float = 720.0
    max_per_speaker: Tuple[int, ...] = ()
    seed: int = 0
    passes: int = 10
    tol: float = 1e-4
    full_batch: bool = False
    backend: str = "auto"
    kmeans_dtype: str = "auto"
    max_gib: float = 4.0
    batch_seconds: Optional[float] = None


class Plan(NamedTuple):
    """What follows from options and data before anything is encoded.

    ``settings``: what settings.json says. ``options`` have no ``auto`` and ``None`` any more.
    """

    options: Options
    settings: Dict[str, Any]
    utterances: List[Sampled]
    collection: Collection
    capacity: int


class Learned(NamedTuple):
    """``use``: how many training frames fall to each cluster, int64, (K,)."""

    codebook: Codebook
    use: np.ndarray


def plan_learning(
    description: Dict[str, Any],
    data_dirs: Sequence[PathLike],
    options: Options,
    work: PathLike,
    about_encoder: Optional[Dict[str, Any]] = None,
    *,
    usual_batch_seconds: Optional[float] = 40.0,
) -> Plan:
    """Choose utterances and the share of their frames that there is room for.

    The first job to come draws the sample and writes it down; all others read it.

    Args:
        description: of the encoder (``describe_encoder``).
        data_dirs: Kaldi data directories.
        work: work directory; made, or compared with what it was begun with.
        about_encoder: settings of the encoder that change its features' last bits (``dtype``, …).
        usual_batch_seconds: for work that begins without ``options.batch_seconds``; ``None``
            where nothing may begin: it is an error unless the sample was drawn.

    Raises:
        SpireError: an option out of its range; a work directory begun with others; an utterance
            of the sample that is gone or has other audio by its data directory.
    """
    work = Path(work)
    options = _checked(options, len(data_dirs))
    backend = options.backend
    capacity = frame_capacity(
        int((options.max_gib - PROCESS_GIB) * 2**30),
        description["dim"],
        options.num_clusters,
        backend,
    )
    if usual_batch_seconds is None and begun_with(work) is None:
        raise SpireError(f"{work}: no job has begun yet; run them before --merge")
    with one_at_a_time(work):
        options = _with_batch_seconds(options, begun_with(work), usual_batch_seconds)
        settings = _settings(description, data_dirs, options, about_encoder)
        if begun_with(work) is not None:
            claim(work / SETTINGS, settings)
        utterances = sample_of(work, data_dirs)
        if utterances is None:
            utterances = sample_utterances(
                data_dirs,
                hours=options.hours,
                max_per_speaker=options.max_per_speaker,
                seed=options.seed,
            )
            claim(work / SETTINGS, settings)
            keep_sample(work, utterances)
        sample = file_sha256(work / SAMPLE)
    seconds = sum(utterance.num_samples for utterance in utterances) / SAMPLE_RATE
    expected = max(1.0, seconds * description["frame_rate"])
    collection = make_collection(
        utterances,
        batch_seconds=options.batch_seconds,
        keep=min(1.0, _MARGIN * capacity / expected),
        dtype=frame_dtype(backend),
        dim=description["dim"],
        seed=options.seed,
        sample=sample,
    )
    logging.info(
        "k-means: %d utterances, %.2f hours, %.3g of their frames",
        len(utterances) - len(collection.unknown),
        seconds / 3600,
        collection.keep,
    )
    return Plan(options, settings, utterances, collection, capacity)


def collect(
    encoder,
    plan: Plan,
    work: PathLike,
    *,
    num_shards: int = 1,
    shard: int = 1,
    num_workers: int = 2,
) -> None:
    """Do one job's part, see :func:`collect_frames`; the encoder must be that of all jobs."""
    claim_encoder(work, encoder.description)
    collect_frames(
        encoder,
        plan.collection,
        work,
        num_shards=num_shards,
        shard=shard,
        num_workers=num_workers,
    )


def cluster(
    plan: Plan,
    work: PathLike,
    *,
    num_shards: int = 1,
    device: str = "cpu",
    rejected_file: Optional[PathLike] = None,
    max_rejected: float = 0.001,
) -> Learned:
    """Cluster what the jobs collected.

    Args:
        device: of the matrix products of the torch back-end.
        rejected_file: where unusable utterances are listed.
        max_rejected: share of the utterances that may be unusable.

    Raises:
        SpireError: a job has not finished, too many utterances are unusable, too few frames.
    """
    options = plan.options
    collected = read_collection(work, plan.collection, num_shards)
    encoder = encoder_of(work)
    if rejected_file is not None:
        write_rejected(rejected_file, _by_key(collected.rejected))
    unusable = [(key, reason) for (_, key), reason in collected.rejected.items()]
    for key, reason in unusable:
        logging.warning("rejected %s: %s", key, reason)
    check_rejected(
        len(unusable),
        len(plan.utterances),
        max_rejected,
        first=next(iter(unusable), None),
        listed=rejected_file,
    )
    if not collected.num_frames:
        raise SpireError("no frames to learn from: no utterance is usable")
    frames, mean = load_frames(collected, plan.collection, capacity=plan.capacity)
    held_out = min(len(frames) // _HELD_OUT_SHARE, _MOST_HELD_OUT)
    training = frames[held_out:]
    on_torch = options.backend == "torch"
    settings = Settings(
        options.num_clusters,
        options.backend,
        passes=options.passes,
        tol=options.tol,
        full_batch=options.full_batch,
        dtype=choose_dtype(options.kmeans_dtype, device, len(mean)) if on_torch else torch.float32,
        device=device if on_torch else "cpu",
        seed=options.seed,
        frames=collected.digest,
    )
    logging.info(
        "k-means: %d frames, %d held out, %d clusters, %s",
        len(training),
        held_out,
        options.num_clusters,
        options.backend,
    )
    state = learn_centres(training, frames[:held_out], settings, Path(work) / CHECKPOINT)
    use = measure_use(training, state, settings)
    evenness = unit_use(use.counts)
    description = {
        **encoder,
        "num_clusters": options.num_clusters,
        "seed": options.seed,
        "hours": round(collected.num_samples / SAMPLE_RATE / 3600, 4),
        "frames": len(frames),
        "backend": options.backend,
        "inertia": use.inertia,
        "held_out_inertia": state.history[-1]["held_out_inertia"],
        "dead_share": evenness.dead,
        "perplexity": evenness.perplexity,
        "history": state.history,
        "settings": plan.settings,
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


def is_published(
    out: PathLike,
    description: Dict[str, Any],
    data_dirs: Sequence[PathLike],
    options: Options,
    about_encoder: Optional[Dict[str, Any]] = None,
) -> bool:
    """Whether ``out`` is a codebook that was learned with these settings; see plan_learning."""
    path = Path(out) / DESCRIPTION
    before = read_json(path).get("settings") if path.exists() else None
    if before is None:
        return False
    options = _with_batch_seconds(_checked(options, len(data_dirs)), before, None)
    return before == _settings(description, data_dirs, options, about_encoder)


def _title(description: Dict[str, Any]) -> str:
    name = Path(description["encoder"]).name
    return f"{description['num_clusters']} clusters of {name}, layer {description['layer']}"


def _checked(options: Options, num_data_dirs: int) -> Options:
    """Options with the back-end that ``auto`` stands for."""
    wrong = {
        "num_clusters": options.num_clusters < 1,
        "passes": options.passes < 1,
        "seed": options.seed < 0,
        "tol": not options.tol >= 0,
        "batch_seconds": options.batch_seconds is not None and not options.batch_seconds > 0,
        "hours": not options.hours > 0,
        "max_gib": not 0 < options.max_gib < math.inf,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            least = "0 or more" if name in ("seed", "tol") else "more than 0"
            raise SpireError(f"--{name} {getattr(options, name)}: must be {least}")
    if options.seed > _MOST_SEED:
        raise SpireError(f"--seed {options.seed}: must be {_MOST_SEED} or less")
    if options.backend not in BACKENDS:
        raise SpireError(f"--backend {options.backend}: choose {', '.join(BACKENDS)}")
    speaker_limits(range(num_data_dirs), options.max_per_speaker)
    backend = choose_backend(
        options.backend,
        options.num_clusters,
        full_batch=options.full_batch,
        dtype=options.kmeans_dtype,
    )
    return options._replace(backend=backend)


def _with_batch_seconds(
    options: Options, begun: Optional[Dict[str, Any]], usual: Optional[float]
) -> Options:
    """Without a wish, batches are as they were when the work was begun, on whatever device."""
    if options.batch_seconds is not None:
        return options
    return options._replace(batch_seconds=usual if begun is None else begun["batch_seconds"])


def _settings(
    description: Dict[str, Any],
    data_dirs: Sequence[PathLike],
    options: Options,
    about_encoder: Optional[Dict[str, Any]],
) -> Dict[str, Any]:
    """What settings.json says; as it is when it has been read again."""
    # Only who loads an encoder knows its weights.
    encoder = {name: value for name, value in description.items() if name != WEIGHTS}
    return {
        "data_dir": [str(data_dir) for data_dir in data_dirs],
        **encoder,
        **(about_encoder or {}),
        **options._asdict(),
        "max_per_speaker": list(options.max_per_speaker),
    }


def _by_key(rejected: Dict[Name, str]) -> Dict[str, str]:
    """Reasons by key alone; two data directories may have the same."""
    reasons: Dict[str, str] = {}
    for (_, key), reason in rejected.items():
        reasons[key] = f"{reasons[key]}; {reason}" if key in reasons else reason
    return reasons
