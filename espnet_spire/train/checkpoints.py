"""Which checkpoints of a run are whole: a pointer that moves only when all ranks have written.

DeepSpeed's own ``latest`` moves before the other ranks' shards are known to be on disk, so it is
not used (``save_latest=False``).
"""

import logging
import shutil
from pathlib import Path
from typing import List, NamedTuple, Optional

from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError

POINTER = "checkpoint.json"


class Pointer(NamedTuple):
    """The newest whole checkpoint, and all that are kept, oldest first."""

    tag: str
    kept: List[str]
    finished: bool


def read_pointer(output_dir: PathLike) -> Optional[Pointer]:
    """The pointer of a run, ``None`` before its first checkpoint."""
    path = Path(output_dir) / POINTER
    if not path.exists():
        return None
    value = read_json(path)
    pointer = Pointer(value["tag"], value["kept"], value["finished"])
    if not (Path(output_dir) / pointer.tag).is_dir():
        raise SpireError(
            f"{path} names {pointer.tag}, which is not there; remove {path} to restart"
        )
    return pointer


def advance_pointer(output_dir: PathLike, tag: str, *, keep: int, finished: bool) -> None:
    """Point to ``tag`` after it was written by all ranks; delete what is no longer kept."""
    output_dir = Path(output_dir)
    old = read_pointer(output_dir)
    kept = [t for t in (old.kept if old else []) if t != tag] + [tag]
    kept, dropped = kept[-keep:], kept[:-keep]
    write_json(output_dir / POINTER, {"tag": tag, "kept": kept, "finished": finished})
    for name in dropped:
        shutil.rmtree(output_dir / name, ignore_errors=True)


def remove_unfinished(output_dir: PathLike) -> None:
    """Delete checkpoints that no pointer knows: their writing was cut off."""
    output_dir = Path(output_dir)
    pointer = read_pointer(output_dir)
    for path in sorted(output_dir.glob("step_*")):
        if pointer is None or path.name not in pointer.kept:
            logging.warning("%s is half written (its job was killed); removing it", path)
            shutil.rmtree(path)


def forget_checkpoints(output_dir: PathLike) -> None:
    """Start a run anew: without the pointer no checkpoint counts (``--resume false``)."""
    (Path(output_dir) / POINTER).unlink(missing_ok=True)
