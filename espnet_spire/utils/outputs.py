"""Outputs that are replaced as a whole: never what another made, never what is being read."""

from pathlib import Path
from typing import Iterable, Optional, Sequence

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError


def check_output(
    out: PathLike, *, inputs: Iterable[PathLike], marks: Optional[Sequence[str]] = None
) -> None:
    """Refuse an ``--out`` whose replacement would lose something else.

    Args:
        out: file or directory that will be written in place of what is there.
        inputs: files and directories that are read.
        marks: what a directory has in it that the same command made: only such a one, or an
            empty one, is replaced. ``None``: ``out`` is a file.

    Raises:
        SpireError: ``out`` is or contains an input, or was made by something else.
    """
    out = Path(out)
    resolved = out.resolve()
    for name in inputs:
        path = Path(name).resolve()
        if resolved == path or resolved in path.parents:
            raise SpireError(
                f"--out {out} would be replaced as a whole, and {name} is read from there; name"
                " another"
            )
    if marks is None:
        if out.is_dir():
            raise SpireError(f"--out {out} is a directory; name a file")
    elif out.exists() and not out.is_dir():
        raise SpireError(f"--out {out} is a file; name a directory")
    elif out.is_dir() and any(out.iterdir()):
        missing = [mark for mark in marks if not (out / mark).exists()]
        if missing:
            raise SpireError(
                f"--out {out} has files of something else in it (no {missing[0]}) and would be"
                " replaced as a whole; name another directory, or remove it yourself"
            )
