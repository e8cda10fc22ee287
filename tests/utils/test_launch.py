"""The launcher with a small sharded command of its own: a script that upper-cases its share."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers_lm import process_environment

from espnet_spire.bin import launch as command
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.launch import (
    end_with_parent,
    job_command,
    last_line,
    launch_local,
    launch_through,
    merge_command,
)

SCRIPT = """
import argparse, fcntl, os, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--num_shards", type=int, default=1)
parser.add_argument("--shard", type=int, default=1)
parser.add_argument("--merge", action="store_true")
parser.add_argument("--fail", type=int)
parser.add_argument("--sleep", type=float, default=0)
parser.add_argument("--sleep_merge", type=float, default=0)
args = parser.parse_args()
part = lambda shard: args.out.with_name(f"part.{shard}")
held = open(args.out.with_name(f"lock.{'merge' if args.merge else args.shard}"), "w")
fcntl.flock(held, fcntl.LOCK_EX)
if args.merge:
    print("merging", file=sys.stderr)
    time.sleep(args.sleep_merge)
    args.out.write_text("".join(part(i).read_text() for i in range(1, args.num_shards + 1)))
    sys.exit(0)
print(f"working on {args.shard}, threads {os.environ['OMP_NUM_THREADS']}", file=sys.stderr)
if args.shard == args.fail:
    print("error: data/text, line 3: no value", file=sys.stderr)
    print("and one line more", file=sys.stderr)
    sys.exit(1)
time.sleep(args.sleep if args.shard != args.fail else 0)
text = "".join("abcdefg"[args.shard - 1 :: args.num_shards]).upper()
(args.out if args.num_shards == 1 else part(args.shard)).write_text(text)
"""


@pytest.fixture
def job(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    return [sys.executable, str(script), str(tmp_path / "out")]


def test_words():
    assert job_command(["x", "-a"], 2, 3) == ["x", "-a", "--num_shards", "3", "--shard", "2"]
    assert job_command(["x"], 1, 1) == ["x"]
    assert merge_command(["x"], 3) == ["x", "--num_shards", "3", "--merge"]


def test_all_shards_run_and_are_merged(job, tmp_path, capfd):
    launch_local(job, nj=3, log=str(tmp_path / "log/x.JOB.log"))
    assert (tmp_path / "out").read_text() == "ADGBECF"
    logs = [(tmp_path / f"log/x.{number}.log").read_text() for number in (1, 2, 3)]
    assert [log.split(",")[0] for log in logs] == [f"working on {n}" for n in (1, 2, 3)]
    shown = capfd.readouterr().err
    assert "working on 1" in shown and "working on 2" not in shown


def test_one_job_is_the_command_itself(job, tmp_path):
    launch_local(job, nj=1, log=str(tmp_path / "x.JOB.log"))
    assert (tmp_path / "out").read_text() == "ABCDEFG"
    assert (tmp_path / "x.1.log").exists()


def test_logs_are_of_this_start(job, tmp_path):
    for _ in range(2):
        launch_local(job, nj=2, log=str(tmp_path / "x.JOB.log"))
    for number in (1, 2):
        assert (tmp_path / f"x.{number}.log").read_text().count("working on") == 1


def test_threads_are_shared_out(job, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch_local(job, nj=3, log=str(tmp_path / "x.JOB.log"))
    assert "threads 2" in (tmp_path / "x.2.log").read_text()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's word stands
    launch_local(job, nj=3, log=str(tmp_path / "x.JOB.log"))
    assert "threads 5" in (tmp_path / "x.2.log").read_text()


@pytest.mark.parametrize("fail", [1, 2, 3])
def test_a_failing_job_says_why_and_where(job, tmp_path, fail):
    with pytest.raises(SpireError) as caught:
        launch_local([*job, "--fail", str(fail)], nj=3, log=str(tmp_path / "x.JOB.log"))
    log = tmp_path / f"x.{fail}.log"
    assert str(caught.value) == f"job {fail} of 3: data/text, line 3: no value (log: {log})"
    assert not (tmp_path / "out").exists()


def test_the_others_are_stopped(job, tmp_path):
    started = time.monotonic()
    with pytest.raises(SpireError, match="job 1 of 3"):
        launch_local([*job, "--fail", "1", "--sleep", "30"], nj=3, log=str(tmp_path / "x.JOB"))
    assert time.monotonic() - started < 10


def wait_for(happened):
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(lock):
    """Whether the process that holds a lock is no more."""
    with open(lock) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("sleep", "locks"), [("--sleep", "12"), ("--sleep_merge", ["merge"])])
def test_jobs_end_with_a_launcher_that_is_killed(job, tmp_path, how, sleep, locks):
    words = [sys.executable, "-m", "espnet_spire.bin.launch", "--nj", "2"]
    words += ["--log", str(tmp_path / "x.JOB"), "--", *job, sleep, "60"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=process_environment())
    said = b""
    while (b"merging" if locks == ["merge"] else b"working on 1") not in said:
        said += os.read(process.stderr.fileno(), 4096)
    locks = [tmp_path / f"lock.{name}" for name in locks]
    wait_for(lambda: all(lock.exists() and not ended(lock) for lock in locks))
    process.send_signal(how)
    process.wait()
    process.stderr.close()
    wait_for(lambda: all(map(ended, locks)))
    assert not (tmp_path / "out").exists()


def test_other_systems_cannot_do_that(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert end_with_parent() is None


def test_merge_that_fails(tmp_path):
    script = tmp_path / "job.py"
    script.write_text("import sys; sys.exit('--merge' in sys.argv)")
    with pytest.raises(SpireError, match="output cannot be joined"):
        launch_local([sys.executable, str(script)], nj=2, log=str(tmp_path / "x.JOB.log"))


def test_last_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nerror: bad\nb\n\n")
    assert last_line(log) == "error: bad"
    log.write_text("Traceback\nValueError: x\n\n")
    assert last_line(log) == "ValueError: x"
    log.write_bytes(b"")
    assert last_line(log) == "it printed nothing"


def test_command(job, tmp_path):
    command.main(["--nj", "2", "--log", str(tmp_path / "l.JOB"), "--", *job])
    assert (tmp_path / "out").read_text() == "ACEGBDF"


# What Kaldi's run.pl does with its words: those with spaces go into quotes, others to the shell as
# they are, and JOB is replaced wherever it stands.
RUN_PL = """#!/usr/bin/env bash
echo "$@" >>"$(dirname "$0")/called"
while [[ "$1" = --* ]]; do shift 2; done
range="${1#JOB=1:}"
log="$2"
shift 2
line=""
for word in "$@"; do
    if [[ "$word" = *" "* ]]; then line+="\\"$word\\" "; else line+="$word "; fi
done
failed=0
for job in $(seq "$range"); do
    ( echo "# $line" >"${log//JOB/$job}"
      bash -c "${line//JOB/$job}" >>"${log//JOB/$job}" 2>&1 ) || failed=$((failed + 1))
done
[ "$failed" = 0 ] || { echo "run.pl: $failed / $range failed" >&2; exit 1; }
"""


@pytest.fixture
def run_pl(tmp_path):
    path = tmp_path / "utils" / "run.pl"
    path.parent.mkdir()
    path.write_text(RUN_PL)
    path.chmod(0o755)
    return path


def test_jobs_by_another_program(job, run_pl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log = "exp/my log/units.JOB.log"
    # words that a shell would understand in its own way, and a JOB that is none
    words = [*job, "--sleep_merge", "0"]
    words[2] = str(tmp_path / "out $HOME;JOB (1)")
    command.main(["--nj", "3", "--log", log, "--cmd", "utils/run.pl --mem 8G", "--", *words])
    assert (tmp_path / "out $HOME;JOB (1)").read_text() == "ADGBECF"
    called = (tmp_path / "utils/called").read_text()
    assert called == f"--mem 8G JOB=1:3 {log} bash exp/my log/units.sh JOB\n"
    assert "working on 3" in (tmp_path / "exp/my log/units.3.log").read_text()


def test_one_job_by_another_program(job, run_pl, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch_through([str(run_pl)], job, nj=1, log=str(tmp_path / "JOB.log"))
    assert (tmp_path / "out").read_text() == "ABCDEFG"


def test_a_job_that_fails_in_another_program(job, run_pl, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log = str(tmp_path / "units.JOB.log")
    with pytest.raises(SpireError) as error:
        launch_through([str(run_pl)], [*job, "--fail", "2"], nj=3, log=log)
    reason = f"job 2 of 3: data/text, line 3: no value (log: {tmp_path}/units.2.log)"
    assert str(error.value) == reason
    assert not (tmp_path / "out").exists()
    run_pl.write_text("#!/usr/bin/env bash\nexit 3\n")
    with pytest.raises(SpireError, match="run.pl ended with status 3"):
        launch_through([str(run_pl)], job, nj=3, log=log)
    with pytest.raises(SpireError, match="--cmd none.pl cannot be run: No such file"):
        launch_through(["none.pl"], job, nj=3, log=log)
