"""One step of a recipe: refuse without its inputs, skip when up to date, restart when not.

A step is known by a name. Its record (``<expdir>/.steps/<name>.json``) holds a fingerprint of
command and inputs, and whether the step was finished with it:

* finished, same fingerprint, outputs there: nothing to do;
* not finished, same fingerprint: it was killed; the command goes on where it stopped;
* another fingerprint: outputs of the past are moved aside (into ``.stale/``), nothing is deleted,
  and the step starts anew.
"""

import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError

# Larger files are known by size and modification time.
_HASHED_BYTES = 64 * 2**20
# Options that change how fast a result comes and not what it is.
VOLATILE = ("--nj", "--num_shards", "--num_threads", "--device", "--log_level")


def _fingerprint_file(path: Path) -> str:
    stat = path.stat()
    if stat.st_size > _HASHED_BYTES:
        return f"{stat.st_size}:{stat.st_mtime_ns}"
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


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


def _set_aside(outputs: Sequence[PathLike]) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
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
            print(f"  {path} was made from other inputs; moved to {aside}", flush=True)


def record_seconds(expdir: PathLike, name: str, seconds: float) -> None:
    """Add to the time that a step has taken over all its starts."""
    path = Path(expdir) / ".timing.json"
    times: Dict[str, float] = read_json(path) if path.exists() else {}
    times[name] = round(seconds, 1)
    write_json(path, times)


def run_step(
    name: str,
    command: Sequence[str],
    *,
    expdir: PathLike,
    inputs: Sequence[PathLike],
    outputs: Sequence[PathLike],
    hint: str = "",
    in_place: bool = False,
) -> int:
    """Run ``command`` unless it is up to date; see the module's description.

    Args:
        name: of the step, unique in a recipe.
        command: what to run; it must write its outputs atomically or be able to go on.
        expdir: where records are kept.
        inputs: files and directories that it reads.
        outputs: files and directories that it leaves.
        hint: what to do when an input is missing.
        in_place: the command itself brings outputs of the past up to date; they stay in place.

    Returns:
        exit status of the command, 0 when there was nothing to do.
    """
    for path in inputs:
        if not Path(path).exists():
            advice = f"; {hint}" if hint else ""
            raise SpireError(f"step '{name}' needs {path}, which is not there{advice}")
    record_path = Path(expdir) / ".steps" / f"{name.replace(' ', '_').replace('/', '_')}.json"
    record = read_json(record_path) if record_path.exists() else {}
    current = fingerprint(command, inputs)
    same = record.get("fingerprint") == current
    there = all(Path(path).exists() for path in outputs)
    if same and record.get("finished") and there:
        print(f"  {name}: up to date", flush=True)
        return 0
    if not same and not in_place:
        _set_aside(outputs)
    spent = record.get("seconds", 0.0) if same and not record.get("finished") else 0.0
    write_json(record_path, {"fingerprint": current, "finished": False, "seconds": spent})
    print(f"  {name}{': going on' if spent else ''}", flush=True)
    started = time.monotonic()
    try:
        status = subprocess.run(list(command)).returncode
    except FileNotFoundError:
        raise SpireError(f"step '{name}': {command[0]} is not installed") from None
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
