"""The directory that k-means works in: what it was begun with, who may work in it, how it goes.

``settings.json`` holds the options, ``sample.jsonl`` the utterances that were drawn,
``encoder.json`` the encoder that was loaded. The first job to come writes each of them, and all
others, and later starts, insist that theirs are the same.
"""

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from espnet_spire.units.sampling import Sampled, read_sample, write_sample
from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.lock import lock

SETTINGS = "settings.json"
SAMPLE = "sample.jsonl"
ENCODER = "encoder.json"
_BEGIN_LOCK = "begin.lock"
_CLUSTER_LOCK = "cluster.lock"
# How often a job looks whether another has drawn the sample.
_POLL_SECONDS = 0.2


def work_directory(out: PathLike) -> Path:
    """Where the work towards the codebook ``out`` is kept."""
    out = Path(out)
    return out.with_name(out.name + ".work")


@contextlib.contextmanager
def one_at_a_time(work: PathLike) -> Iterator[None]:
    """Jobs that begin wait for each other here."""
    path = Path(work) / _BEGIN_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = False
    with open(path, "ab") as stream:
        while True:
            try:
                lock(stream, path)
                break
            except SpireError:
                if not waiting:
                    logging.info("k-means: another job draws the sample, waiting for it")
                waiting = True
                time.sleep(_POLL_SECONDS)
        yield


@contextlib.contextmanager
def only_one(work: PathLike) -> Iterator[None]:
    """A second process that would cluster is refused here."""
    path = Path(work) / _CLUSTER_LOCK
    try:
        stream = open(path, "ab")
    except FileNotFoundError:
        raise SpireError(f"{work}: another process has just finished it") from None
    with stream:
        lock(stream, path)
        yield


def begun_with(work: PathLike) -> Optional[Dict[str, Any]]:
    """The settings of a work directory; ``None`` where nothing was begun."""
    path = Path(work) / SETTINGS
    return read_json(path) if path.exists() else None


def claim(path: Path, facts: Dict[str, Any]) -> None:
    """Write down what a work directory is for, or insist that it is for the same.

    Raises:
        SpireError: it names the first fact that differs.
    """
    if not path.exists():
        write_json(path, facts)
        return
    before = read_json(path)
    for name in [*facts, *(name for name in before if name not in facts)]:
        if before.get(name) != facts.get(name):
            raise SpireError(
                f"{path.parent}: begun with {name} {before.get(name)}, now {facts.get(name)}: go on"
                " with what it was begun with; or remove the directory to begin anew"
            )


def claim_encoder(work: PathLike, description: Dict[str, Any]) -> None:
    """Insist that all jobs and starts load the same encoder, down to its weights."""
    with one_at_a_time(work):
        claim(Path(work) / ENCODER, description)


def encoder_of(work: PathLike) -> Dict[str, Any]:
    """The description of the encoder that jobs loaded."""
    return read_json(Path(work) / ENCODER)


def sample_of(work: PathLike, data_dirs: Sequence[PathLike]) -> Optional[List[Sampled]]:
    """The sample that was drawn, see :func:`read_sample`; ``None`` where none was."""
    path = Path(work) / SAMPLE
    return read_sample(path, data_dirs) if path.exists() else None


def keep_sample(work: PathLike, utterances: Sequence[Sampled]) -> None:
    """Write a sample down for other jobs and starts."""
    write_sample(Path(work) / SAMPLE, utterances)


def remove_work(work: PathLike) -> None:
    """Delete a work directory: all at once, then what it held."""
    work = Path(work)
    finish_removal(work)
    with contextlib.suppress(FileNotFoundError):
        os.replace(work, _removed(work))
    finish_removal(work)


def removal_begun(work: PathLike) -> bool:
    """Whether a kill came while :func:`remove_work` was at it, and nothing was begun since."""
    return _removed(Path(work)).exists() and not Path(work).exists()


def finish_removal(work: PathLike) -> None:
    """Delete what is left of a removed work directory."""
    # Another job may be at the same.
    shutil.rmtree(_removed(Path(work)), ignore_errors=True)


def _removed(work: Path) -> Path:
    return work.with_name(f".{work.name}.tmp.removed")
