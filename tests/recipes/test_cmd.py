"""Who starts the jobs of sharded stages: ``cmd.sh``, and Slurm's job arrays."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.launch import launch_through

ROOT = Path(__file__).resolve().parents[2]
ARRAY = ROOT / "egs2/spire/slurm_array.sh"
# As Slurm's: prints the job's number at once, runs the script for each task, waits if it is asked
# to, and ends with the highest status.
SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$@" >sbatch.words
wait=false
while [ $# -gt 0 ]; do
    case "$1" in
    --parsable) shift ;;
    --wait) wait=true; shift ;;
    --array) range="${2/-/ }"; shift 2 ;;
    --output) output="$2"; shift 2 ;;
    --wrap) script="$2"; shift 2 ;;
    *) shift 2 ;;
    esac
done
echo "4711;cluster"
highest=0
for task in $(seq $range); do
    SLURM_ARRAY_TASK_ID=$task sh -c "$script" >"${output//%a/$task}" 2>&1
    status=$?
    ((status > highest)) && highest=$status
done
$wait || exit 0
exit $highest
"""
# A sharded command: each shard writes its number, the merge adds them up.
SHARDED = """
import argparse, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--num_shards", type=int, default=1)
parser.add_argument("--shard", type=int, default=1)
parser.add_argument("--merge", action="store_true")
parser.add_argument("--fail", type=int, default=0)
args = parser.parse_args()
parts = [args.out.with_name(f"part{i}") for i in range(1, args.num_shards + 1)]
if args.merge:
    args.out.write_text(str(sum(int(part.read_text()) for part in parts)))
elif args.shard == args.fail:
    raise SystemExit("error: no such audio")
else:
    parts[args.shard - 1].write_text(str(10**args.shard))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The current directory, with a Slurm of its own on PATH."""
    place = tmp_path / "a recipe"
    tools = tmp_path / "tools"
    for folder in (place, tools):
        folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", 'echo "$@" >cancelled\n')):
        (tools / name).write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}")
        (tools / name).chmod(0o755)
    (place / "job.py").write_text(SHARDED)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(place)
    return place


def sharded(slurm, *more):
    return [sys.executable, "job.py", "the 'result' ü $HOME", *more]


def test_a_job_array(slurm):
    cmd = [str(ARRAY), "--mem", "8G", "--partition", "cpu,other"]
    launch_through(cmd, sharded(slurm), nj=3, log="exp/log/units.JOB.log")
    assert (slurm / "the 'result' ü $HOME").read_text() == "1110"
    words = (slurm / "sbatch.words").read_text().splitlines()
    options = dict(zip(words[2::2], words[3::2], strict=False))
    assert words[:2] == ["--parsable", "--wait"]
    assert options["--array"] == "1-3" and options["--output"] == "exp/log/units.%a.log"
    assert options["--job-name"] == "units"
    assert options["--mem"] == "8G" and options["--partition"] == "cpu,other"


def test_a_task_of_the_array_that_fails(slurm):
    with pytest.raises(SpireError) as error:
        launch_through([str(ARRAY)], sharded(slurm, "--fail", "2"), nj=2, log="u.JOB.log")
    assert str(error.value) == "job 2 of 2: no such audio (log: u.2.log)"
    assert not (slurm / "the 'result' ü $HOME").exists()


def test_ending_it_cancels_the_jobs(slurm):
    (slurm.parent / "tools/sbatch").write_text("#!/usr/bin/env bash\necho 4711\nexec sleep 60\n")
    process = subprocess.Popen([str(ARRAY), "JOB=1:2", "x.JOB.log", "true"], start_new_session=True)
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 143
    os.killpg(process.pid, signal.SIGKILL)  # the sleep
    assert (slurm / "cancelled").read_text() == "4711\n"


def test_its_usage(slurm):
    done = subprocess.run([str(ARRAY), "--mem", "8G"], capture_output=True, text=True)
    assert done.returncode == 2 and "JOB=1:N LOG COMMAND… was expected" in done.stderr


def commands(backend, **environment):
    show = (
        '. "$SPIRE_ROOT/egs2/spire/cmd.sh"; printf "%s\\n" "$train_cmd" "$cuda_cmd" "$decode_cmd"'
    )
    return subprocess.run(
        ["bash", "-euc", show],
        env={**os.environ, "cmd_backend": backend, "SPIRE_ROOT": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


def test_cmd_sh():
    assert commands("local").stdout == "\n\n\n"
    train, cuda, decode = commands("slurm").stdout.splitlines()
    assert shlex.split(train)[:1] == [str(ARRAY)] and train == decode
    assert "--gres gpu:1" in cuda
    train, cuda, _ = commands("kaldi", kaldi_cmd="utils/queue.pl").stdout.splitlines()
    assert train == "utils/queue.pl --mem 16G" and cuda == "utils/queue.pl --mem 64G --gpu 1"
    done = commands("pbs")
    assert done.returncode == 1
    assert done.stderr == "error: cmd.sh: cmd_backend pbs: choose local, slurm or kaldi\n"
