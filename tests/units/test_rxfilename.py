import os
import subprocess
import threading
import time

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_spire.units.rxfilename import Pipes, ark_place, file_state, is_pipe, read_ark
from espnet_spire.utils.errors import SpireError


def test_kinds(tmp_path):
    assert is_pipe("sox a.wav -t wav - | ") and not is_pipe("a.wav")
    assert ark_place("dir/a.ark:123") == ("dir/a.ark", 123)
    assert ark_place("a:b.ark:0") == ("a:b.ark", 0)
    for name in ("a.wav", "a.ark", "a.ark:", "a.ark:x", "cat a.ark:1 |", "a.ark:5[0:3]"):
        assert ark_place(name) is None
    colon = tmp_path / "at 12:30"
    colon.write_bytes(b"")
    assert ark_place(str(colon)) is None


def test_output_of_pipes():
    assert Pipes().read("printf 'a\\0b' |") == b"a\0b"
    assert len(Pipes().read("head -c 3000000 /dev/zero |")) == 3_000_000
    with pytest.raises(SpireError, match="exit 3.*: status 3 .*no luck"):
        Pipes().read("echo first >&2; echo no luck >&2; exit 3 |")
    with pytest.raises(SpireError, match="status 1"):  # the first part of the pipe counts too
        Pipes().read("false | cat |")


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_closing_ends_all_parts_of_a_pipe(tmp_path):
    pipes, raised = Pipes(), []

    def run():
        try:
            pipes.read(f"(echo $BASHPID > {tmp_path}/pid; exec sleep 600) | cat |")
        except SpireError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.01)
    pipes.close()
    thread.join(20)
    assert not thread.is_alive() and "status -9" in raised[0]
    for _ in range(500):
        if not alive(int(pid.read_text())):
            break
        time.sleep(0.01)
    assert not alive(int(pid.read_text()))
    with pytest.raises(SpireError, match="reading was stopped"):
        pipes.read("true |")


def noise(count):
    return np.random.default_rng(0).integers(-9000, 9000, count).astype(np.int16)


@pytest.mark.parametrize("how", [{}, {"write_function": "soundfile"}])
def test_arks_of_kaldiio(tmp_path, how):
    ark, scp = str(tmp_path / "a.ark"), str(tmp_path / "a.scp")
    kaldiio.save_ark(ark, {"a": (16000, noise(700)), "b": (8000, noise(300))}, scp, **how)
    for line, rate, count in zip(open(scp), (16000, 8000), (700, 300), strict=True):
        path, offset = ark_place(line.split()[1])
        (tmp_path / "a.wav").write_bytes(read_ark(path, offset))
        samples, found = soundfile.read(tmp_path / "a.wav", dtype="int16")
        assert found == rate and samples.tolist() == noise(count).tolist()
        assert len(read_ark(path, offset)) < os.path.getsize(ark)


def test_flac_in_an_ark(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(5000), 16000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "x.ark").write_bytes(b"a " + content + b"b " + content)
    path = str(tmp_path / "x.ark")
    assert read_ark(path, 2).startswith(content)
    assert read_ark(path, 4 + len(content)) == content


def test_what_is_no_audio_in_an_ark(tmp_path):
    path = str(tmp_path / "x.ark")
    kaldiio.save_ark(path, {"a": np.zeros((3, 2), dtype=np.float32)})
    with pytest.raises(SpireError, match="x.ark:2: a matrix without a sampling rate"):
        read_ark(path, 2)
    kaldiio.save_ark(path, {"a": {"x": 1}}, write_function="pickle")
    with pytest.raises(SpireError, match="x.ark:2: a pickle, which runs code"):
        read_ark(path, 2)
    with pytest.raises(SpireError, match="x.ark:1000: no audio at this place"):
        read_ark(path, 1000)
    kaldiio.save_ark(path, {"a": (16000, noise(700))})
    content = open(path, "rb").read()
    with open(path, "wb") as stream:
        stream.write(content[:-100])
    with pytest.raises(SpireError, match="x.ark:2: cut off, 100 bytes of it are missing"):
        read_ark(path, 2)
    with open(path, "wb") as stream:  # as a stream of sox has it
        stream.write(b"a RIFF\xff\xff\xff\xff" + content[10:])
    with pytest.raises(SpireError, match="x.ark:2: WAV without its size"):
        read_ark(path, 2)


def test_state_of_files_and_arks_and_none_of_pipes(tmp_path):
    ark = tmp_path / "a.ark"
    ark.write_bytes(b"12345")
    assert file_state(f"{ark}:3") == file_state(str(ark))
    assert file_state(str(ark)).startswith("5:")
    assert file_state(f"cat {ark} |") is None
    assert file_state(str(tmp_path / "none.wav")) is None
