"""Write aside and rename, so that a killed job never leaves half a file."""

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import IO, Any, Iterator, Set, Union

from espnet_spire.utils.errors import SpireError

PathLike = Union[str, Path]

# What is written aside is named for host and process, so that leftovers of dead ones are known.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32] or "host"
_ASIDE = re.compile(
    r"(?P<name>\.(?P<of>.+)\.tmp\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d{1,9})\.[0-9a-f]{8})"
    r"(?P<old>\.old)?"
)
# Whether a process of another host lives cannot be known here; one that has written nothing for
# a day does not.
_ELSEWHERE_SECONDS = 24 * 3600
_ours: Set[str] = set()  # names in use by this process
_swept: Set[Path] = set()  # directories


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A name beside ``path`` that no other process has; what is there at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    # The random part: hosts may have one name, and processes in containers one number.
    name = f".{path.name}.tmp.{_HOST}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    _ours.add(name)
    try:
        yield path.with_name(name)
    finally:
        _remove(path.with_name(name))
        _ours.discard(name)


def _sweep(directory: Path) -> None:
    """Remove what killed processes left in a directory: once, since it may have many files."""
    directory = directory.resolve()
    if directory in _swept:
        return
    _swept.add(directory)
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for match in [_ASIDE.fullmatch(entry.name) for entry in entries]:
            if match is not None and _is_left(directory / match[0], match):
                if match["old"] and not (directory / match["of"]).exists():
                    # killed between the two renames of atomic_dir
                    os.replace(directory / match[0], directory / match["of"])
                else:
                    _remove(directory / match[0])


def _is_left(path: Path, match: "re.Match[str]") -> bool:
    if match["host"] != _HOST:
        newest = max(part.stat().st_mtime for part in [path, *path.rglob("*")])
        return time.time() - newest > _ELSEWHERE_SECONDS
    if int(match["pid"]) == os.getpid():  # an earlier process may have had the same number
        return match["name"] not in _ours
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        pass
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: PathLike) -> Iterator[None]:
    """Turn a full disk inside the block into one line that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpireError(
                f"{path}: no space left on the device; free some and start the same command again"
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file beside ``path`` for writing and move it there when the block succeeds.

    Text is UTF-8 with ``\\n``. When the block raises, ``path`` keeps what it had and the file
    beside it is removed.
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _aside(path) as aside, disk_errors(path):
        with open(aside, mode, **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)


@contextlib.contextmanager
def atomic_dir(path: PathLike) -> Iterator[Path]:
    """Give an empty directory beside ``path`` and put it in its place when the block succeeds.

    A directory that was already at ``path`` is replaced as a whole.
    """
    path = Path(path)
    with _aside(path) as aside, disk_errors(path):
        aside.mkdir()
        yield aside
        if path.exists():
            old = aside.with_name(aside.name + ".old")
            os.replace(path, old)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)


@contextlib.contextmanager
def scratch_dir(path: PathLike) -> Iterator[Path]:
    """Give an empty directory beside ``path`` for files that do not stay.

    It is removed at the end; that of a killed process when another writes beside it.
    """
    path = Path(path)
    with _aside(path) as aside, disk_errors(path):
        aside.mkdir()
        yield aside


def remove_dir(path: PathLike) -> None:
    """Remove a directory: under its name it is there as a whole or not at all."""
    path = Path(path)
    with _aside(path) as aside:
        os.replace(path, aside)


def write_json(path: PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False)
        stream.write("\n")


def read_json(path: PathLike) -> Any:
    """Read JSON; a missing or broken file is an error that names it."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpireError(f"{path}: not valid JSON ({error}); make it again") from None
