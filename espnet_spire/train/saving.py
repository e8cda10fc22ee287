"""Write a checkpoint with all ranks, and take a run up from one, with any number of ranks."""

import contextlib
import logging
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import torch

from espnet_spire.train.checkpoints import (
    advance_pointer,
    bring_back,
    clean_up,
    forget_best,
    is_moving,
    newest_whole,
    read_manifest,
    read_pointer,
    set_aside,
    step_tag,
    write_manifest,
)
from espnet_spire.train.distributed import Ranks
from espnet_spire.utils.atomic import PathLike, disk_errors
from espnet_spire.utils.errors import SpireError, Stopped

# DeepSpeed's form of a checkpoint that any number of ranks can load.
UNIVERSAL = "universal"


class Start(NamedTuple):
    """Where a run starts.

    ``tag`` is ``None`` for the beginning; ``reshaped`` says that another number of ranks wrote
    the checkpoint, so that a universal copy of it is loaded; ``finished`` that nothing is left to
    do; ``best_loss`` is the lowest validation loss so far.
    """

    tag: Optional[str] = None
    step: int = 0
    reshaped: bool = False
    finished: bool = False
    best_loss: float = math.inf


def find_start(
    output_dir: PathLike,
    *,
    resume: bool,
    restart_if_changed: bool,
    settings: Dict[str, Any],
    stage: int,
    valid_examples: Optional[str],
    world_size: int,
) -> Start:
    """Choose the newest whole checkpoint and make it loadable; only the first rank calls this.

    Half-written checkpoints are named and removed. A checkpoint of another number of ranks is
    converted to DeepSpeed's universal form in a directory beside it.

    Args:
        resume: if not, what is there is moved into ``.stale/``.
        restart_if_changed: the same where it is the run of another course, instead of an error; a
            run of this course that was moved there is taken back.
        settings: what decides the course of the run; must be what the checkpoint was made with.
        stage: of ZeRO.
        valid_examples: tells the validation set from others; ``best`` is of one of them.

    Raises:
        SpireError: settings, or the ZeRO stage, are not those of the checkpoint.
    """
    output_dir = Path(output_dir)
    shutil.rmtree(output_dir / UNIVERSAL, ignore_errors=True)
    if is_moving(output_dir):
        set_aside(output_dir)
    tag, change = newest_whole(output_dir) if resume else None, None
    if tag is not None:
        change = _change(read_manifest(output_dir / tag), settings, stage)
        if change is not None and not restart_if_changed:
            raise SpireError(
                f"{output_dir} was started with {change}: use another --output_dir, or --resume"
                " false to set it aside and start anew"
            )
    if not resume or change is not None:
        aside = set_aside(output_dir)
        if aside is not None:
            why = f" (it had {change})" if change else ""
            logging.warning("%s: the run of before%s is in %s", output_dir, why, aside)
        tag = None
    if tag is None and resume and restart_if_changed and not any(output_dir.glob("step_*")):
        back = bring_back(output_dir, lambda made: _change(made, settings, stage) is None)
        if back is not None:
            logging.warning("%s: the run of this course was in %s; it is back", output_dir, back)
        tag = newest_whole(output_dir)
    clean_up(output_dir, tag)
    if tag is None:
        return Start()
    made = read_manifest(output_dir / tag)
    if made.get("valid_examples") != valid_examples:
        forget_best(output_dir)
    pointer = read_pointer(output_dir)
    best_loss = pointer.best.valid_loss if pointer.best else math.inf
    if pointer.finished:
        return Start(tag, made["step"], finished=True, best_loss=best_loss)
    reshaped = made["world_size"] != world_size and stage > 0
    if reshaped:
        logging.info(
            "%s was written by %d ranks, now there are %d: converting it",
            *(output_dir / tag, made["world_size"], world_size),
        )
        _convert(output_dir / tag, output_dir / UNIVERSAL)
    return Start(tag, made["step"], reshaped, best_loss=best_loss)


def _change(made: Dict[str, Any], settings: Dict[str, Any], stage: int) -> Optional[str]:
    """What is another than in the run that a manifest is of."""
    for name, value in settings.items():
        if made["settings"].get(name) != value:
            return f"{name} {made['settings'].get(name)}, now it is {value}"
    if made["zero_stage"] != stage:
        return f"ZeRO stage {made['zero_stage']}, --deepspeed_config now says {stage}"
    return None


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
    if done.returncode < 0:  # schedulers signal every process of a job
        raise Stopped(f"{checkpoint}: stopped by a signal; start the same command again to go on")
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
    ranks.on_first(lambda: _make(output_dir / tag))
    with _noted(engine) as written:
        # Its end is a barrier; `latest` would move before the other ranks have written.
        engine.save_checkpoint(
            str(output_dir), tag=tag, save_latest=False, exclude_frozen_parameters=only_trained
        )
    everywhere = ranks.gather(written)
    problems = _named([each.problem for each in everywhere])
    if problems:
        ranks.on_first(lambda: shutil.rmtree(output_dir / tag, ignore_errors=True))
        free = shutil.disk_usage(output_dir).free / 2**30
        raise SpireError(
            f"{output_dir / tag}: cannot be written ({problems[0]}; {free:.1f} GiB are free on the"
            " device); the checkpoint before it is intact: make room and start the same command"
            " again"
        )
    files = {name: size for each in everywhere for name, size in sorted(each.sizes.items())}

    def seal() -> None:
        facts_here = {"step": step, "world_size": ranks.world_size, **facts}
        write_manifest(output_dir / tag, facts_here, files)
        advance_pointer(output_dir, tag, keep=keep, valid_loss=valid_loss, finished=finished)
        # A universal copy has been loaded when the first checkpoint is written.
        shutil.rmtree(output_dir / UNIVERSAL, ignore_errors=True)

    ranks.on_first(seal)


@dataclass
class _Written:
    """What one rank wrote: bytes by file name, and the first problem that it had."""

    sizes: Dict[str, int] = field(default_factory=dict)
    problem: Optional[str] = None


@contextlib.contextmanager
def _noted(engine) -> Iterator[_Written]:
    """Let DeepSpeed's writer note what it wrote, and what it could not, instead of raising.

    A rank that raised would not come to the barrier at the end of ``save_checkpoint``, where the
    others wait for it.
    """
    written, write = _Written(), engine.checkpoint_engine.save

    def save(state_dict, path) -> None:
        try:
            write(state_dict, path)
            # On disk before older checkpoints are deleted.
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
            written.sizes[Path(path).name] = os.path.getsize(path)
        except (OSError, RuntimeError) as error:
            # torch writes from C++, whose errors do not say what the system said.
            said = (str(error).splitlines() or ["no message"])[0]
            problem = f"{type(error).__name__}: {said}"
            written.problem = written.problem or problem

    engine.checkpoint_engine.save = save
    # It would copy its scripts into the output directory, and raise on the first rank alone.
    engine._copy_recovery_script = lambda _path: None
    try:
        yield written
    finally:
        del engine.checkpoint_engine.save, engine._copy_recovery_script


def _make(directory: Path) -> None:
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)


def _named(problems: List[Optional[str]]) -> List[str]:
    return [f"rank {n}: {problem}" for n, problem in enumerate(problems) if problem]
