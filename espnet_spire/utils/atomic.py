"""Write aside and rename, so that a killed job never leaves half a file."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, Iterator, Union

from espnet_spire.utils.errors import SpireError

PathLike = Union[str, Path]


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp.{os.getpid()}")


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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with disk_errors(path):
            with open(aside, mode, **text) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


@contextlib.contextmanager
def atomic_dir(path: PathLike) -> Iterator[Path]:
    """Give an empty directory beside ``path`` and put it in its place when the block succeeds.

    A directory that was already at ``path`` is replaced as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.tmp.*"):
        shutil.rmtree(stale, ignore_errors=True)
    aside = _aside(path)
    aside.mkdir()
    try:
        with disk_errors(path):
            yield aside
            if path.exists():
                old = aside.with_name(aside.name + ".old")
                os.replace(path, old)
                os.replace(aside, path)
                shutil.rmtree(old)
            else:
                os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
