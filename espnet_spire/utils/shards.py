"""Outputs of the jobs of a sharded stage, and how they are joined."""

from pathlib import Path
from typing import Dict, Iterable, List

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError


def shard_file(out: PathLike, num_shards: int, shard: int) -> Path:
    """Where job ``shard`` of ``num_shards`` leaves its part of ``out``."""
    out = Path(out)
    return out.with_name(f".{out.name}.{shard}-of-{num_shards}")


def shard_files(out: PathLike, num_shards: int) -> List[Path]:
    """All parts of ``out``, in order; a missing one is an error that names the job."""
    files = [shard_file(out, num_shards, shard) for shard in range(1, num_shards + 1)]
    for shard, path in enumerate(files, 1):
        if not path.exists():
            raise SpireError(f"{path}: job {shard} of {num_shards} has not finished; run it again")
    return files


def join_tables(out: PathLike, num_shards: int) -> Dict[str, str]:
    """The union of the parts of ``out``."""
    table: Dict[str, str] = {}
    for path in shard_files(out, num_shards):
        table.update(read_table(path, allow_empty_value=True))
    return table


def remove_shards(outs: Iterable[PathLike], num_shards: int) -> None:
    """Delete the parts once the whole is in place."""
    for out in outs:
        for shard in range(1, num_shards + 1):
            shard_file(out, num_shards, shard).unlink(missing_ok=True)
