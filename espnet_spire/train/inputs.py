"""The files that a stream is read from, known by size and time."""

import contextlib
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

from espnet_spire.train.sources import Stream
from espnet_spire.units.unit_files import rejected_file
from espnet_spire.utils.digest import stat_stamp
from espnet_spire.utils.errors import SpireError


class Input(NamedTuple):
    """``state``: stamps of a file, or of the files of a directory."""

    path: str
    state: Tuple[str, ...]


def inputs_of(stream: Stream) -> List[Input]:
    """What a stream depends on, as it is now; what is not there has an empty state."""
    paths = [*stream.tables]
    if stream.with_units:
        paths.append(str(rejected_file(paths[-1])))
    return [Input(path, _state(Path(path))) for path in paths]


def check_unchanged(inputs: Sequence[Input]) -> None:
    """Raise if one of them is not any more what it was."""
    for path, state in inputs:
        if _state(Path(path)) != state:
            raise SpireError(f"{path}: changed while it was read; start the same command again")


def _state(path: Path) -> Tuple[str, ...]:
    states = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            states.append(stat_stamp(file.stat()))
    return tuple(states)
