"""Write a checkpoint with all ranks, and take a run up from one, with any number of ranks."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import torch

from espnet_spire.train.checkpoints import (
    advance_pointer,
    clean_up,
    forget_checkpoints,
    newest_whole,
    read_manifest,
    step_tag,
    write_manifest,
)
from espnet_spire.train.distributed import Ranks
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

# DeepSpeed's form of a checkpoint that any number of ranks can load.
UNIVERSAL = "universal"


class Start(NamedTuple):
    """Where a run starts: ``tag`` is ``None`` for the beginning; ``reshaped`` says that another
    number of ranks wrote the checkpoint, so that a universal copy of it is loaded."""

    tag: Optional[str]
    step: int
    reshaped: bool


BEGINNING = Start(None, 0, False)


def find_start(
    output_dir: PathLike, *, resume: bool, settings: Dict[str, Any], stage: int, world_size: int
) -> Start:
    """Choose the newest whole checkpoint and make it loadable; only the first rank calls this.

    Half-written checkpoints are named and removed. A checkpoint of another number of ranks is
    converted to DeepSpeed's universal form in a directory beside it.

    Args:
        settings: what decides the course of the run; must be what the checkpoint was made with.
        stage: of ZeRO.

    Raises:
        SpireError: settings, or the ZeRO stage, are not those of the checkpoint.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output_dir / UNIVERSAL, ignore_errors=True)
    if not resume:
        forget_checkpoints(output_dir)
    tag = newest_whole(output_dir)
    clean_up(output_dir, tag)
    if tag is None:
        return BEGINNING
    made = read_manifest(output_dir / tag)
    for name, value in settings.items():
        if made["settings"].get(name) != value:
            raise SpireError(
                f"{output_dir} was started with {name} {made['settings'].get(name)}, now it is"
                f" {value}: use another --output_dir, or --resume false to start anew"
            )
    if made["zero_stage"] != stage:
        raise SpireError(
            f"{output_dir / tag} is of ZeRO stage {made['zero_stage']}, --deepspeed_config says"
            f" {stage}: go on with the stage that it was started with"
        )
    reshaped = made["world_size"] != world_size and stage > 0
    if reshaped:
        logging.info(
            "%s was written by %d ranks, now there are %d: converting it",
            *(output_dir / tag, made["world_size"], world_size),
        )
        _convert(output_dir / tag, output_dir / UNIVERSAL)
    return Start(tag, made["step"], reshaped)


def _convert(checkpoint: Path, out: Path) -> None:
    """DeepSpeed's own converter, in a process of its own: it parses ``sys.argv`` and forks."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"),
            *("--input_folder", str(checkpoint), "--output_folder", str(out)),
            "--inject_missing_state",
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise SpireError(f"{checkpoint}: cannot be converted for other ranks: {lines[-1]}")


def load(engine, output_dir: PathLike, start: Start, *, strict: bool) -> None:
    """Restore weights, optimizer and DeepSpeed's own state on all ranks.

    Args:
        strict: whether all weights must be there; not if the checkpoint has the trained ones only.
    """
    if start.tag is None:
        return
    tag = UNIVERSAL if start.reshaped else start.tag
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    path, _ = engine.load_checkpoint(str(output_dir), tag=tag, load_module_strict=strict)
    if path is None:
        raise SpireError(f"{Path(output_dir) / tag}: DeepSpeed cannot load it")
    if start.reshaped:
        _mend(engine.optimizer, decays)


def _mend(optimizer, decays: List[float]) -> None:
    """Undo what DeepSpeed 0.19 does when it loads a universal checkpoint under ZeRO 3.

    All groups get the weight decay of the first, and all parameters one and the same counter of
    steps, which each of them then advances.
    """
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def save(
    engine,
    ranks: Ranks,
    output_dir: PathLike,
    *,
    step: int,
    facts: Dict[str, Any],
    only_trained: bool,
    keep: int,
    valid_loss: Optional[float],
    finished: bool,
) -> None:
    """Write a checkpoint on all ranks, then move the pointer on the first.

    What cannot be written (a full disk) leaves the pointer and the last checkpoint as they were.

    Args:
        facts: kept in the manifest: ``settings``, ``zero_stage``, ``start_model``.
        only_trained: leave frozen weights out (adapters on a large model).

    Raises:
        SpireError: on every rank, naming those that could not write and why.
    """
    output_dir, tag = Path(output_dir), step_tag(step)
    problem = None
    try:
        # Its end is a barrier; `latest` would move before the other ranks have written.
        engine.save_checkpoint(
            str(output_dir), tag=tag, save_latest=False, exclude_frozen_parameters=only_trained
        )
    except (OSError, RuntimeError) as error:
        # torch writes from C++, whose errors do not say what the system said.
        problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    problems = _named(ranks.gather(problem))
    if problems:
        ranks.on_first(lambda: shutil.rmtree(output_dir / tag, ignore_errors=True))
        free = shutil.disk_usage(output_dir).free / 2**30
        raise SpireError(
            f"{output_dir / tag}: cannot be written ({problems[0]}; {free:.1f} GiB are free on the"
            " device); the checkpoint before it is intact: make room and start the same command"
            " again"
        )

    def seal() -> None:
        write_manifest(output_dir / tag, {"step": step, "world_size": ranks.world_size, **facts})
        advance_pointer(output_dir, tag, keep=keep, valid_loss=valid_loss, finished=finished)
        # A universal copy has been loaded when the first checkpoint is written.
        shutil.rmtree(output_dir / UNIVERSAL, ignore_errors=True)

    ranks.on_first(seal)


def _named(problems: List[Optional[str]]) -> List[str]:
    return [f"rank {n}: {problem}" for n, problem in enumerate(problems) if problem]
