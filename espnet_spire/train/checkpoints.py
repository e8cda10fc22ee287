"""Which checkpoints of a run are whole: a pointer that moves only when all ranks have written.

DeepSpeed's own ``latest`` moves before the other ranks' shards are known to be on disk, so it is
not used (``save_latest=False``). A checkpoint counts when ``checkpoint.json`` names it and its
manifest, which lists every file with its size, agrees with what is there.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError

POINTER = "checkpoint.json"
MANIFEST = "manifest.json"
STALE = ".stale"
MOVING = ".moving"
# What is of the directory, or of the run that is about to start.
STAY = (STALE, ".lock", "config.yaml", "train_plan.json", "valid_plan.json")


class Best(NamedTuple):
    """The checkpoint with the lowest validation loss so far."""

    tag: str
    valid_loss: float


class Pointer(NamedTuple):
    """The newest whole checkpoint, all that are kept (oldest first), and the best of them."""

    tag: str
    kept: List[str]
    best: Optional[Best]
    finished: bool


def step_tag(step: int) -> str:
    """Name of the checkpoint after ``step`` steps."""
    return f"step_{step}"


def read_pointer(output_dir: PathLike) -> Optional[Pointer]:
    """The pointer of a run, ``None`` before its first checkpoint."""
    path = Path(output_dir) / POINTER
    if not path.exists():
        return None
    value = read_json(path)
    try:
        best = Best(**value["best"]) if value["best"] else None
        return Pointer(value["tag"], value["kept"], best, value["finished"])
    except (KeyError, TypeError):
        raise SpireError(f"{path}: not a pointer to checkpoints; remove it to start anew") from None


def _write_pointer(output_dir: PathLike, pointer: Pointer) -> None:
    best = pointer.best._asdict() if pointer.best else None
    write_json(Path(output_dir) / POINTER, {**pointer._asdict(), "best": best})


def write_manifest(
    checkpoint: PathLike, facts: Dict[str, Any], files: Optional[Dict[str, int]] = None
) -> None:
    """Seal a checkpoint that all ranks have written: ``facts`` and the size of every file.

    Args:
        files: bytes by name, as their writers know them; by default those that are seen here.
    """
    checkpoint = Path(checkpoint)
    if files is None:
        files = {
            str(path.relative_to(checkpoint)): path.stat().st_size
            for path in sorted(checkpoint.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
    write_json(checkpoint / MANIFEST, {**facts, "files": files})


def read_manifest(checkpoint: PathLike) -> Dict[str, Any]:
    """The facts that :func:`write_manifest` was given."""
    return read_json(Path(checkpoint) / MANIFEST)


def damage(checkpoint: PathLike) -> Optional[str]:
    """What is wrong with a checkpoint's files, ``None`` if they are whole."""
    checkpoint = Path(checkpoint)
    if not (checkpoint / MANIFEST).exists():
        return "its writing was cut off"
    try:
        files = read_manifest(checkpoint)["files"].items()
    except (SpireError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    for name, size in files:
        path = checkpoint / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
    return None


def advance_pointer(
    output_dir: PathLike,
    tag: str,
    *,
    keep: int,
    valid_loss: Optional[float] = None,
    finished: bool = False,
) -> None:
    """Point to ``tag`` after it was written by all ranks; delete what is no longer kept.

    Args:
        keep: how many of the last checkpoints stay; the best one stays besides.
        valid_loss: of this checkpoint, if it was validated.
    """
    output_dir = Path(output_dir)
    old = read_pointer(output_dir)
    kept = [t for t in (old.kept if old else []) if t != tag] + [tag]
    best = old.best if old else None
    if valid_loss is not None and (best is None or valid_loss < best.valid_loss):
        best = Best(tag, valid_loss)
    stay = {*kept[-keep:], *([best.tag] if best else [])}
    dropped = [name for name in kept if name not in stay]
    kept = [name for name in kept if name in stay]
    _write_pointer(output_dir, Pointer(tag, kept, best, finished))
    for name in dropped:
        shutil.rmtree(output_dir / name, ignore_errors=True)


def newest_whole(output_dir: PathLike) -> Optional[str]:
    """Tag of the newest checkpoint that is whole, ``None`` if there is none.

    Raises:
        SpireError: there were checkpoints and none is whole.
    """
    output_dir = Path(output_dir)
    pointer = read_pointer(output_dir)
    if pointer is None:
        return None
    broken = {}
    for tag in reversed(pointer.kept):
        reason = damage(output_dir / tag)
        if reason is None:
            return tag
        broken[tag] = reason
        logging.warning("%s is not whole (%s); skipping it", output_dir / tag, reason)
    first, reason = next(iter(broken.items()))
    raise SpireError(
        f"{output_dir / first}: {reason}, and no other checkpoint is whole; remove"
        f" {output_dir / POINTER} to start anew"
    )


def clean_up(output_dir: PathLike, tag: Optional[str]) -> None:
    """Make ``tag`` the newest checkpoint: delete half-written and damaged ones, and name them."""
    output_dir = Path(output_dir)
    pointer = read_pointer(output_dir)
    known = pointer.kept if pointer else []
    kept = known[: known.index(tag) + 1] if tag in known else []
    kept = [name for name in kept if damage(output_dir / name) is None]
    for path in sorted(output_dir.glob("step_*")):
        if path.name not in kept:
            logging.warning("%s is half written (its job was killed); removing it", path)
            shutil.rmtree(path)
    if pointer is not None and tag is not None and kept != known:
        best = pointer.best if pointer.best and pointer.best.tag in kept else None
        _write_pointer(output_dir, Pointer(tag, kept, best, False))


def set_aside(output_dir: PathLike) -> Optional[Path]:
    """Move a run out of the way, into ``.stale/``, so that another can start; where it is then.

    What was made from it (exports, decodings) goes along. Killed in between, the next call goes
    on with it.
    """
    output_dir = Path(output_dir)
    stale = output_dir / STALE
    unfinished = sorted(stale.glob(f"*/{MOVING}"))
    if unfinished:
        aside = unfinished[0].parent
    elif not any(output_dir.glob("step_*")) and read_pointer(output_dir) is None:
        return None
    else:
        number = 1
        while (aside := stale / str(number)).exists():
            number += 1
        aside.mkdir(parents=True)
        (aside / MOVING).touch()
    for path in sorted(output_dir.iterdir()):
        if path.name not in STAY:
            path.rename(aside / path.name)
    (aside / MOVING).unlink()
    return aside


def is_moving(output_dir: PathLike) -> bool:
    """Whether :func:`set_aside` was cut off."""
    return any((Path(output_dir) / STALE).glob(f"*/{MOVING}"))


def bring_back(output_dir: PathLike, fits: Callable[[Dict[str, Any]], bool]) -> Optional[Path]:
    """Take back the newest run that was set aside and whose newest checkpoint ``fits``.

    The directory must have no run. ``fits`` is asked with the manifest. Returns where it was.
    """
    output_dir = Path(output_dir)
    numbered = [path for path in (output_dir / STALE).glob("*") if path.name.isdigit()]
    for aside in sorted(numbered, key=lambda path: -int(path.name)):
        pointer = read_pointer(aside)
        whole = pointer is not None and damage(aside / pointer.tag) is None
        if not whole or not fits(read_manifest(aside / pointer.tag)):
            continue
        # The pointer last: before it nothing counts.
        for path in sorted(aside.iterdir(), key=lambda path: path.name == POINTER):
            path.rename(output_dir / path.name)
        aside.rmdir()
        return aside
    return None


def forget_best(output_dir: PathLike) -> None:
    """No checkpoint is the best any more: validation is of another data set."""
    pointer = read_pointer(output_dir)
    if pointer is not None:
        _write_pointer(output_dir, pointer._replace(best=None))


def checkpoint_tag(output_dir: PathLike, which: str) -> str:
    """Name of a whole checkpoint: ``last``, ``best`` or ``step_N``.

    Raises:
        SpireError: there is no such checkpoint, or it is not whole.
    """
    output_dir = Path(output_dir)
    pointer = read_pointer(output_dir)
    if pointer is None:
        raise SpireError(f"{output_dir}: no checkpoint; run spire_train first")
    best = pointer.best.tag if pointer.best else None
    tag = {"last": pointer.tag, "best": best}.get(which, which)
    if tag is None:
        raise SpireError(f"{output_dir}: no checkpoint was validated, so none is the best")
    if tag not in pointer.kept:
        raise SpireError(f"{output_dir}: no checkpoint {which!r}, there are {pointer.kept}")
    reason = damage(output_dir / tag)
    if reason is not None:
        raise SpireError(f"{output_dir / tag} is not whole: {reason}")
    return tag
