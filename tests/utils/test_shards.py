import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.shards import join_tables, remove_shards, shard_file, shard_files


def test_names(tmp_path):
    path = shard_file(tmp_path / "text.rm", 4, 3)
    assert path == tmp_path / ".text.rm.3-of-4"


def test_join_and_remove(tmp_path):
    out = tmp_path / "text"
    shard_file(out, 3, 1).write_text("a 1\nd 4\n")
    shard_file(out, 3, 2).write_text("b\n")
    shard_file(out, 3, 3).write_text("")
    shard_file(out, 2, 1).write_text("another number of shards\n")
    assert join_tables(out, 3) == {"a": "1", "d": "4", "b": ""}
    assert shard_files(out, 3) == [shard_file(out, 3, shard) for shard in (1, 2, 3)]
    remove_shards([out, tmp_path / "never-there"], 3)
    assert list(tmp_path.iterdir()) == [shard_file(out, 2, 1)]


def test_missing_shard(tmp_path):
    out = tmp_path / "text"
    shard_file(out, 2, 1).write_text("a 1\n")
    with pytest.raises(SpireError, match=".text.2-of-2: job 2 of 2 has not finished; run it again"):
        join_tables(out, 2)
