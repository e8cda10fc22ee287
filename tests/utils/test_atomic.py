import errno
import json
import os
import subprocess
import sys
import time

import pytest
from helpers_lm import process_environment

from espnet_spire.utils import atomic
from espnet_spire.utils.atomic import (
    atomic_dir,
    atomic_write,
    read_json,
    remove_dir,
    write_json,
)
from espnet_spire.utils.errors import SpireError


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_nothing_is_there_before_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as stream:
        stream.write("Zwölf\n")
        assert not path.exists()
    assert path.read_bytes() == b"Zw\xc3\xb6lf\n"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_write_that_fails_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(ZeroDivisionError):
        with atomic_write(path) as stream:
            stream.write("half of")
            stream.flush()
            raise ZeroDivisionError
    assert names(tmp_path) == (["a.txt"] if before else [])
    if before:
        assert path.read_text() == before


def test_binary(tmp_path):
    with atomic_write(tmp_path / "a", "wb") as stream:
        stream.write(b"\0\r\n")
    assert (tmp_path / "a").read_bytes() == b"\0\r\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_while_writing(tmp_path, code):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(SpireError, match="a.txt: no space left .*start the same command again"):
        with atomic_write(path) as stream:
            stream.write("half")
            raise OSError(code, os.strerror(code))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_disk_full_when_it_reaches_the_disk(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpireError, match="a.json: no space left"):
        write_json(tmp_path / "a.json", [1])
    with pytest.raises(SpireError, match="no space left"):
        with atomic_dir(tmp_path / "model") as aside:
            write_json(aside / "config.json", {})
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError):
        with atomic_write(tmp_path / "a"):
            raise PermissionError(errno.EACCES, "no")
    assert names(tmp_path) == []


def test_directory_appears_as_a_whole(tmp_path):
    out = tmp_path / "deep" / "model"
    with atomic_dir(out) as aside:
        (aside / "a").write_text("1")
        assert not out.exists()
        assert aside.parent == out.parent  # one file system: the move is a rename
    assert names(out) == ["a"]
    assert names(out.parent) == ["model"]


def test_directory_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "old").write_text("1")
    with atomic_dir(out) as aside:
        (aside / "new").write_text("2")
        assert names(out) == ["old"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("before", [False, True])
def test_directory_that_fails(tmp_path, before):
    out = tmp_path / "model"
    if before:
        out.mkdir()
        (out / "old").write_text("1")
    with pytest.raises(SpireError, match="no space left"):
        with atomic_dir(out) as aside:
            (aside / "new").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == (["model"] if before else [])
    if before:
        assert names(out) == ["old"]


@pytest.fixture
def dead():
    """Number of a process that was."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(directory, name, pid, *, host=atomic._HOST, end="0123abcd"):
    path = directory / f".{name}.tmp.{host}.{pid}.{end}"
    path.mkdir()
    (path / "half").write_text("x")
    return path


def write_one(path):
    write_json(path, 1)


def make_one(path):
    with atomic_dir(path):
        pass


@pytest.mark.parametrize("do", [write_one, make_one])
def test_what_a_killed_job_left_is_swept(tmp_path, dead, do):
    leave(tmp_path, "model", dead)
    leave(tmp_path, "model [1]", dead)
    leave(tmp_path, "other", dead)
    (tmp_path / f".units.tmp.{atomic._HOST}.{dead}.0123abcd").write_text("half")
    (tmp_path / ".own.tmp.txt").write_text("the user's")
    do(tmp_path / "model")
    assert names(tmp_path) == [".own.tmp.txt", "model"]


def test_a_real_kill_leaves_nothing_for_ever(tmp_path):
    code = (
        "import os, signal, sys; from espnet_spire.utils.atomic import atomic_dir, atomic_write\n"
        "a, b = sys.argv[1:]\n"
        "with atomic_write(a) as stream, atomic_dir(b) as aside:\n"
        "    stream.write('half'); (aside / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b")]
    subprocess.run(command, env=process_environment())
    assert [name.split(".tmp.")[0] for name in names(tmp_path)] == [".a", ".b"]
    make_one(tmp_path / "c")
    assert names(tmp_path) == ["c"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = leave(tmp_path, "model", process.pid)
    make_one(tmp_path / "model")
    assert names(tmp_path) == [path.name, "model"]
    process.communicate(b"\n")
    forget(tmp_path)
    make_one(tmp_path / "model")
    assert names(tmp_path) == ["model"]


def forget(directory):
    """As a new process, to which the directory is new."""
    atomic._swept.discard(directory.resolve())


def test_two_of_one_process_are_apart(tmp_path):
    with atomic_dir(tmp_path / "model") as one:
        (one / "a").touch()
        forget(tmp_path)
        with atomic_dir(tmp_path / "model") as other:
            assert other != one and names(one) == ["a"]
            (other / "b").touch()
        assert names(tmp_path / "model") == ["b"]
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["a"]


def test_a_number_that_comes_again(tmp_path):
    """In a container the first process is always the same one."""
    leave(tmp_path, "model", os.getpid())
    make_one(tmp_path / "model")
    assert names(tmp_path) == ["model"]


def test_other_hosts_have_a_day(tmp_path, dead):
    path = leave(tmp_path, "model", dead, host="node-7")
    yesterday = time.time() - 25 * 3600
    os.utime(path, (yesterday, yesterday))
    make_one(tmp_path / "model")  # what is in it is new
    assert names(tmp_path) == [path.name, "model"]
    os.utime(path / "half", (yesterday, yesterday))
    forget(tmp_path)
    make_one(tmp_path / "model")
    assert names(tmp_path) == ["model"]


def test_killed_between_the_two_renames(tmp_path, dead):
    """What was there before comes back."""
    old = leave(tmp_path, "model", dead, end="0123abcd.old")
    leave(tmp_path, "model", dead)
    make_one(tmp_path / "other")
    assert names(tmp_path) == ["model", "other"] and names(tmp_path / "model") == ["half"]
    old.mkdir()
    forget(tmp_path)
    make_one(tmp_path / "other")
    assert names(tmp_path) == ["model", "other"] and names(tmp_path / "model") == ["half"]


def test_json(tmp_path):
    value = {"ü": [1, 2.5, None, "今"]}
    write_json(tmp_path / "a.json", value)
    assert "今" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    assert read_json(tmp_path / "a.json") == value


def test_json_errors_name_the_file(tmp_path):
    with pytest.raises(SpireError, match="gone.json: no such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text('{"a": ')
    with pytest.raises(SpireError, match="bad.json: not valid JSON .*line 1.*make it again"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "bytes.json").write_bytes(b'"\xff"')
    with pytest.raises(SpireError, match="bytes.json: not valid JSON"):
        read_json(tmp_path / "bytes.json")
    with pytest.raises(TypeError):
        write_json(tmp_path / "set.json", {1, 2})
    assert not (tmp_path / "set.json").exists()


def test_a_directory_is_removed_as_a_whole(tmp_path):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "deep" / "file").write_text("")
    remove_dir(tmp_path / "work")
    assert list(tmp_path.iterdir()) == []
