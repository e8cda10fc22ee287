"""One step of a recipe: refuse without its inputs, skip when up to date, restart when not.

The record of a step (``.steps/<output>.json``) holds a fingerprint of command and inputs, and
whether the step was finished with it:

* finished, same fingerprint, outputs there: nothing to do;
* not finished, same fingerprint: it was killed; the command goes on where it stopped;
* another fingerprint: outputs of the past are moved aside (into ``.stale/``), nothing is deleted,
  and the step starts anew; unless what was set aside earlier was made with this very fingerprint:
  then it is moved back, so that a mistyped option costs nothing.

A command that is run *in place* sees to its outputs of the past itself: it is started again, and
nothing is moved.

The record lies beside the first output, so runs with other names or directories have their own.
"""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.datadir import WAV_SCP
from espnet_spire.utils.digest import stat_stamp
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.stopping import ANNOUNCED

# Larger files are known by size and modification time.
_HASHED_BYTES = 64 * 2**20
# Options that change how fast a result comes and not what it is.
VOLATILE = ("--nj", "--num_shards", "--num_threads", "--device", "--ngpu", "--log_level", "--cmd")


def _fingerprint_file(path: Path) -> str:
    stat = path.stat()
    if stat.st_size > _HASHED_BYTES:
        known = stat_stamp(stat)
    else:
        known = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return known + _fingerprint_audio(path) if path.name == WAV_SCP else known


def _fingerprint_audio(wav_scp: Path) -> str:
    """Sizes and times of the files that a table names: they can change while it does not."""
    digest = hashlib.blake2b(digest_size=16)
    with open(wav_scp, "rb") as stream:
        for line in stream:
            try:
                stat = os.stat(line.split(None, 1)[1].rstrip(b"\r\n "))
            except (OSError, IndexError, ValueError):  # a pipe, or for the reader to complain of
                continue
            digest.update(f"{stat_stamp(stat)}\n".encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    found = []
    for root, folders, names in os.walk(path):
        # hidden folders too: what was set aside is no input any more
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root) / name for name in names if not name.startswith(".")]
    return sorted(found)


def without_volatile(command: Sequence[str]) -> List[str]:
    """The command without options that cannot change its result."""
    kept, skip = [], False
    for word in command:
        if skip:
            skip = False
        elif word in VOLATILE:
            skip = True
        elif not word.startswith(tuple(f"{name}=" for name in VOLATILE)):
            kept.append(word)
    return kept


def fingerprint(command: Sequence[str], inputs: Sequence[PathLike]) -> str:
    """A hash of the command and of the content of its inputs (files, directories)."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\0".join(without_volatile(command)).encode())
    for name in inputs:
        path = Path(name)
        for file in _files(path):
            digest.update(f"\0{name}\0{file.relative_to(path)}\0".encode())
            digest.update(_fingerprint_file(file).encode())
    return digest.hexdigest()


def _record_path(name: str, outputs: Sequence[PathLike], expdir: PathLike) -> Path:
    if not outputs:
        return Path(expdir) / ".steps" / f"{name.replace(' ', '_').replace('/', '_')}.json"
    first = Path(outputs[0])
    return first.parent / ".steps" / f"{first.name}.json"


def _set_aside(outputs: Sequence[PathLike], record_path: Path) -> None:
    """Move outputs of the past into ``.stale/`` and note what they were made from."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved: Dict[str, str] = {}
    for name in outputs:
        path = Path(name)
        if path.exists():
            aside = path.parent / ".stale" / f"{path.name}-{stamp}"
            aside.parent.mkdir(exist_ok=True)
            number = 1
            while aside.exists():  # twice within a second
                number += 1
                aside = aside.with_name(f"{path.name}-{stamp}-{number}")
            path.rename(aside)
            moved[str(name)] = str(aside)
            print(f"  {path} was made from other inputs; moved to {aside}", flush=True)
    if moved and record_path.exists():
        note = {**read_json(record_path), "moved": moved}
        write_json(record_path.with_name(f"{record_path.stem}@{Path(aside).name}.json"), note)


def _bring_back(current: str, outputs: Sequence[PathLike], record_path: Path) -> Dict[str, Any]:
    """Move back what was set aside and made with this fingerprint; its record, or nothing."""
    for path in sorted(record_path.parent.glob(f"{record_path.stem}@*.json")):
        note = read_json(path)
        moved = note.pop("moved")
        whole = moved.keys() == {str(name) for name in outputs}
        if note["fingerprint"] != current or not whole:
            continue
        if not all(Path(aside).exists() for aside in moved.values()):
            continue
        for name, aside in moved.items():
            Path(aside).rename(name)
            print(f"  {name} was made from these inputs before; moved back", flush=True)
        write_json(record_path, note)
        path.unlink()
        return note
    return {}


def record_seconds(expdir: PathLike, name: str, seconds: float) -> None:
    """Add to the time that a step has taken over all its starts."""
    path = Path(expdir) / ".timing.json"
    times: Dict[str, float] = read_json(path) if path.exists() else {}
    times[name] = round(seconds, 1)
    write_json(path, times)


def _run(command: Sequence[str]) -> int:
    """Run a command to its end and return its exit status.

    SIGTERM and SIGUSR1, with which schedulers announce the end, are passed on: the command saves
    what it has, and the step ends when it has.
    """
    process = subprocess.Popen(command)
    before = {number: signal.getsignal(number) for number in ANNOUNCED}
    try:
        for number in ANNOUNCED:
            signal.signal(number, lambda number, _frame: process.send_signal(number))
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_step(
    name: str,
    command: Sequence[str],
    *,
    expdir: PathLike,
    inputs: Sequence[PathLike],
    outputs: Sequence[PathLike],
    hint: str = "",
    in_place: bool = False,
    launcher: Sequence[str] = (),
) -> int:
    """Run ``command`` unless it is up to date; see the module's description.

    Args:
        name: of the step, unique in a recipe.
        command: what to run; it must write its outputs atomically or be able to go on.
        expdir: where the time that steps took is kept.
        inputs: files and directories that it reads.
        outputs: files and directories that it leaves.
        hint: what to do when an input is missing.
        in_place: the command itself brings outputs of the past up to date; they stay in place.
        launcher: words before the command that say where it runs (``torchrun …``) and not what it
            does: with others the step goes on.

    Returns:
        exit status of the command, 0 when there was nothing to do.
    """
    for path in inputs:
        if not Path(path).exists():
            advice = f"; {hint}" if hint else ""
            raise SpireError(f"step '{name}' needs {path}, which is not there{advice}")
    record_path = _record_path(name, outputs, expdir)
    record = read_json(record_path) if record_path.exists() else {}
    current = fingerprint(command, inputs)
    same = record.get("fingerprint") == current
    if not same and not in_place:
        _set_aside(outputs, record_path)
        record = _bring_back(current, outputs, record_path)
        same = bool(record)
    there = all(Path(path).exists() for path in outputs)
    if same and record.get("finished") and there:
        print(f"  {name}: up to date", flush=True)
        return 0
    spent = record.get("seconds", 0.0) if same and not record.get("finished") else 0.0
    write_json(record_path, {"fingerprint": current, "finished": False, "seconds": spent})
    print(f"  {name}{': going on' if spent else ''}", flush=True)
    started = time.monotonic()
    try:
        status = _run([*launcher, *command])
    except FileNotFoundError as error:
        raise SpireError(f"step '{name}': {error.filename} is not installed") from None
    finally:
        spent += time.monotonic() - started
        write_json(record_path, {"fingerprint": current, "finished": False, "seconds": spent})
    if status != 0:
        return status
    missing = [str(path) for path in outputs if not Path(path).exists()]
    if missing:
        raise SpireError(f"step '{name}' ended well but left no {missing[0]}; this is a bug")
    write_json(record_path, {"fingerprint": current, "finished": True, "seconds": spent})
    record_seconds(expdir, name, spent)
    return 0
