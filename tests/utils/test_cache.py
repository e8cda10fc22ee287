"""Results by content: several jobs, kills, and what is read back."""

import json
import subprocess
import sys

import pytest

from espnet_spire.utils.cache import ContentCache, content_key
from espnet_spire.utils.errors import SpireError


def test_keys_tell_contents_apart():
    contents = [("a", "b"), ("ab",), ("a", ["b"]), ("a", "b", None), (["a", "b"],), ("b", "a")]
    assert len({content_key(*content) for content in contents}) == len(contents)
    # The order of a mapping is nothing that a result depends on.
    assert content_key({"x": 1, "y": 2}) == content_key({"y": 2, "x": 1})
    # Keys are on disk: they stay what they are. BLAKE2b of ["Brot","\u00fc"] in UTF-8.
    assert content_key("Brot", "ü") == "5de45d1ce92f7e57209060a43ef6fc22"


def test_all_jobs_read_what_any_has_added(tmp_path):
    one, two = ContentCache(tmp_path / "c", "1-of-2"), ContentCache(tmp_path / "c", "2-of-2")
    assert one.known(["x"]) == {}
    one.add({"x": ["Brot", 3], "y": 1})
    two.add({"z": 2})
    one.add({"w": 4})
    one.add({})
    everything = {"x": ["Brot", 3], "y": 1, "z": 2, "w": 4}
    for cache in (one, two, ContentCache(tmp_path / "c")):
        assert cache.known("wxyz") == everything
        assert cache.known({"y", "z", "not there"}) == {"y": 1, "z": 2}
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["1-of-2.jsonl", "2-of-2.jsonl"]


def test_nothing_is_made_where_nothing_is_added(tmp_path):
    cache = ContentCache(tmp_path / "c", "1-of-1")
    cache.known(["x"])
    cache.close()
    assert not (tmp_path / "c").exists()


def test_a_line_that_a_kill_cut_short(tmp_path):
    cache = ContentCache(tmp_path / "c")
    cache.add({"x": 1})
    cache.close()
    path = tmp_path / "c" / "1-of-1.jsonl"
    with open(path, "a") as stream:
        stream.write('{"y": 2, "z"')
    cache = ContentCache(tmp_path / "c")
    assert cache.known("xyz") == {"x": 1}
    cache.add({"z": 3})
    assert cache.known("xyz") == {"x": 1, "z": 3}
    assert [json.loads(line) for line in path.read_text().splitlines()][1:] == [{"x": 1}, {"z": 3}]


HOLD = """
import sys, time
from espnet_spire.utils.cache import ContentCache
cache = ContentCache(sys.argv[1], "1-of-2")
cache.add({"x": 1})
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_a_job(tmp_path):
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "c")], stdout=subprocess.PIPE
    )
    try:
        assert held.stdout.readline() == b"held\n"
        # Reading needs no lock, nor does another job.
        assert ContentCache(tmp_path / "c", "1-of-2").known("x") == {"x": 1}
        ContentCache(tmp_path / "c", "2-of-2").add({"y": 1})
        with pytest.raises(SpireError, match="1-of-2.jsonl: another process is at this job"):
            ContentCache(tmp_path / "c", "1-of-2").add({"y": 1})
    finally:
        held.kill()
        held.communicate()
    ContentCache(tmp_path / "c", "1-of-2").add({"z": 1})
