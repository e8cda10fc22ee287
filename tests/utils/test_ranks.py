"""Ranks of one machine: real processes, most of them small scripts."""

import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest
from helpers_lm import process_environment

from espnet_spire.bin import launch_ranks as command
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.ranks import (
    Ended,
    describe,
    exit_status,
    first_failure,
    launch_ranks,
    rank_environment,
    reserve_port,
)

TERM, USR1, INT, KILL = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL


def script(text):
    """argv of a rank."""
    return [sys.executable, "-c", text]


# Pure --------------------------------------------------------------------------------------


def test_a_ranks_place():
    assert rank_environment(1, 4, 29500) == {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }


def test_whom_to_blame():
    assert first_failure([]) is None
    assert first_failure([Ended(0, 0), Ended(1, 75)]) is None
    assert first_failure([Ended(0, 75), Ended(2, 3), Ended(1, 1)]) == Ended(1, 1)
    # the first rank says that its connection broke, since the third was killed
    assert first_failure([Ended(0, 1), Ended(2, -9)]) == Ended(2, -9)
    # a thread of the first rank aborts, since the second has gone
    assert first_failure([Ended(0, -6), Ended(1, 1)]) == Ended(1, 1)
    assert first_failure([Ended(0, 0), Ended(1, -6)]) == Ended(1, -6)


@pytest.mark.parametrize(
    ("failed", "statuses", "passed_on", "status"),
    [
        (None, [0, 0], [], 0),
        (None, [0, 0], [TERM], 0),  # it came after the last step
        (None, [75, 75], [USR1], 75),
        (None, [75, 75], [], 75),  # a rank was given the signal directly
        (Ended(1, 3), [1, 3], [], 3),
        (Ended(1, 1), [75, 1], [TERM], 1),
        (Ended(0, -9), [-9, -9], [], 137),
        (Ended(0, -9), [-9, 1], [TERM], 137),
        (Ended(1, -15), [-9, -15], [TERM], 75),
        (Ended(1, -10), [1, -10], [USR1], 75),
        (Ended(1, -15), [1, -15], [USR1], 143),
        (Ended(1, -15), [1, -15], [], 143),
        (Ended(0, 130), [130, 1], [INT], 130),
        (Ended(0, 1), [1, 130], [INT], 130),
        (Ended(0, 1), [1, -9], [INT, INT], 130),
        (None, [0, 0], [INT], 0),
    ],
)
def test_status(failed, statuses, passed_on, status):
    assert exit_status(failed, statuses, passed_on) == status


def test_description():
    assert describe(Ended(3, 1)) == "rank 3 ended with status 1"
    assert describe(Ended(3, -15)) == "rank 3 was ended by signal 15 (Terminated)"
    assert "rank 0 was ended by signal 9 (Killed; " in describe(Ended(0, -9))
    assert "signal 40" in describe(Ended(0, -40))  # has no name


# Ports -------------------------------------------------------------------------------------


def test_a_reserved_port_is_for_whom_is_told_it():
    with reserve_port() as held, socket.socket() as other, socket.socket() as rank:
        port = held.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        rank.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rank.bind(("", port))
        rank.listen()
        with pytest.raises(SpireError, match=f"^--master_port {port}: Address already in use; ch"):
            reserve_port(port)
    with reserve_port(port) as held:
        assert held.getsockname()[1] == port


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port):
    with pytest.raises(SpireError, match="not between 1 and 65535"):
        reserve_port(port)


# Ranks that end by themselves --------------------------------------------------------------


def test_all_ranks_know_their_place(capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS"
    # One write each: lines of several processes stay whole.
    text = f"""
import os
line = " ".join(os.environ[name] for name in "{names}".split())
os.write(1, line.encode() + b"\\n")
"""
    before = signal.getsignal(TERM)
    assert launch_ranks(script(text), nproc=3) == 0
    assert signal.getsignal(TERM) is before
    said = sorted(capfd.readouterr().out.splitlines())
    assert said == [f"{rank} {rank} 3 3 127.0.0.1 2" for rank in range(3)]


ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(value)
assert value.item() == 3.0, value
dist.barrier()
dist.destroy_process_group()
"""


def test_they_find_each_other():
    with reserve_port() as held:
        port = held.getsockname()[1]
    assert launch_ranks(script(ALL_REDUCE), nproc=2, master_port=port) == 0
    assert launch_ranks(script(ALL_REDUCE), nproc=2) == 0


def test_the_others_are_killed_after_a_grace(tmp_path, caplog):
    waits = f"""
import os, subprocess, sys, time
if os.environ["RANK"] == "1":
    while not os.path.exists("{tmp_path}/ready"):
        time.sleep(0.01)
    sys.exit(3)
lock = open("{tmp_path}/lock", "w")
__import__("fcntl").flock(lock, 2)
subprocess.Popen(["sleep", "60"], pass_fds=[lock.fileno()])
open("{tmp_path}/ready", "w")
time.sleep(60)
"""
    assert launch_ranks(script(waits), nproc=2, grace=0.3) == 3
    assert caplog.messages == [
        "rank 1 ended with status 3; the others get 0.3 s",
        "killing rank 0",
    ]
    # With what it had started: nobody holds the lock.
    with open(tmp_path / "lock") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_ends_within_the_grace_is_not_killed(tmp_path, caplog):
    text = f"""
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit(1)
time.sleep(0.3)
open("{tmp_path}/said", "w")
sys.exit(7)
"""
    assert launch_ranks(script(text), nproc=2) == 1
    assert (tmp_path / "said").exists()
    assert caplog.messages == ["rank 1 ended with status 1; the others get 30 s"]


def test_a_rank_that_is_killed(caplog):
    text = "import os; os.kill(os.getpid(), 9) if os.environ['RANK'] == '0' else None"
    assert launch_ranks(script(text), nproc=2) == 137
    assert "rank 0 was ended by signal 9 (Killed; the system does that" in caplog.text


# Signals -----------------------------------------------------------------------------------

# Says when it can save, and saves for longer than the launcher waits for anything else.
SAVES = """
import os, signal, sys, time
rank, out = os.environ["RANK"], sys.argv[1]
stop = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: stop.append(number))
os.write(2, b"ready\\n")
while not stop:
    time.sleep(0.01)
if rank == "0":
    time.sleep(0.5)
open(f"{out}/saved.{rank}.{stop[0]}", "w")
sys.exit(75)
"""


class Launcher:
    """The command line in a process of its own, ready when both ranks are."""

    def __init__(self, text, *arguments):
        words = [sys.executable, "-m", "espnet_spire.bin.launch_ranks", "--nproc", "2", "--"]
        words += [*script(text), *arguments]
        environment = process_environment()
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, env=environment)
        said = b""
        while said.count(b"ready") < 2:
            chunk = os.read(self.process.stderr.fileno(), 4096)
            assert chunk, said
            said += chunk

    def end(self, *numbers):
        for number in numbers:
            self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1].decode()
        return self.process.returncode, said


@pytest.mark.parametrize("number", [TERM, USR1])
def test_a_signal_reaches_all_and_they_save(tmp_path, number):
    status, said = Launcher(SAVES, str(tmp_path)).end(number)
    assert status == 75
    assert f"passing {number.name} on to all ranks" in said and "killing" not in said
    assert sorted(os.listdir(tmp_path)) == [f"saved.{rank}.{number.value}" for rank in range(2)]


def test_a_signal_before_they_can_save():
    """Python's own handler ends them: nothing was done that had to be saved."""
    text = "import os, time; os.write(2, b'ready\\n'); time.sleep(60)"
    assert Launcher(text).end(USR1)[0] == 75


STUBBORN = """
import os, signal, time
count = []
signal.signal(signal.SIGINT, lambda *_: (count.append(1), os.write(2, b"interrupted\\n")))
os.write(2, b"ready\\n")
time.sleep(60)
"""


def test_ctrl_c_is_passed_on_and_the_second_kills():
    launcher = Launcher(STUBBORN)
    launcher.process.send_signal(INT)
    said = b""
    while said.count(b"interrupted") < 2:
        said += os.read(launcher.process.stderr.fileno(), 4096)
    assert launcher.process.poll() is None
    status, said = launcher.end(INT)
    assert status == 130 and "interrupted" not in said


def test_ctrl_c_ends_pythons():
    status, said = Launcher("import os, time; os.write(2, b'ready\\n'); time.sleep(60)").end(INT)
    assert status == 130 and said.count("KeyboardInterrupt") == 2


def test_ranks_end_with_a_launcher_that_is_killed(tmp_path):
    launcher = Launcher(SAVES, str(tmp_path))
    assert launcher.end(KILL)[0] == -KILL  # its end of stderr is closed when they have ended, too
    assert len(os.listdir(tmp_path)) == 2


# Mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nproc", [0, -1])
def test_too_few(nproc):
    with pytest.raises(SpireError, match=f"--nproc {nproc}: at least one process is needed"):
        launch_ranks(["true"], nproc=nproc)


def test_no_command():
    with pytest.raises(SpireError, match="give it after --"):
        command.main(["--nproc", "2", "--"])


def test_a_command_that_is_not_there(tmp_path):
    with pytest.raises(SpireError, match="/none cannot be started: No such file or directory"):
        launch_ranks([str(tmp_path / "none")], nproc=2)
    with pytest.raises(SpireError, match="cannot be started: Permission denied"):
        launch_ranks([str(tmp_path)], nproc=2)


def test_command_line():
    # What follows -- is the command's, also where it looks like an option of the launcher.
    checks = script("import sys; sys.exit(sys.argv[1:] != ['--nproc', 'a-b', '--', '--x'] and 4)")
    command.main(["--nproc", "2", "--", *checks, "--nproc", "a-b", "--", "--x"])
    with pytest.raises(SystemExit) as caught:
        command.main(["--nproc", "1", "--", *checks])
    assert caught.value.code == 4
    with pytest.raises(SpireError, match="--master_port 70000: not between"):
        command.main(["--nproc", "1", "--master-port", "70000", "--", "true"])
    with pytest.raises(SystemExit) as caught:
        command.main(["--", "true"])
    assert caught.value.code == 2
