"""The ways to start several ranks: Slurm's file, our launcher, ESPnet's."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_lm import (  # noqa: F401
    lm_base,
    lm_dir,
    process_environment,
    read_history_lines,
    train_command,
    trained,
)

ROOT = Path(__file__).parents[2]
# What srun does, for two tasks on one machine; it passes signals on, as Slurm's daemon does, and
# its status is the highest of the tasks'.
SRUN = """#!/usr/bin/env bash
echo $$ >srun.pid
while [[ "$1" = --* ]]; do
    echo "$1" >>srun.options
    shift
done
trap 'kill -USR1 "${tasks[@]}"; interrupted=true' USR1
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" &
    tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do
    while
        interrupted=false
        wait "$task"
        status=$?
        $interrupted
    do :; done
    ((status > highest)) && highest=$status
done
exit $highest
"""
SCONTROL = """#!/usr/bin/env bash
case "$1 $2" in
    "show hostnames") echo localhost ;;
    "show job") echo "JobId=$3 JobState=$(cat state) Reason=None" ;;
    "requeue "*) echo "$2" >>requeued ;;
esac
"""
# In place of spire_train, where only what surrounds it is of interest: notes what a rank is given,
# waits for a signal if it is asked to, and ends with a status of choice.
RANK = """#!/usr/bin/env bash
echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $MASTER_PORT $SRUN_CPUS_PER_TASK: $*" >>given.$RANK
if [ -f wait ]; then
    trap 'exit $(cat status)' USR1
    touch ready.$RANK
    while true; do sleep 0.05; done
fi
exit $(cat status)
"""
# A recipe as far as Slurm's file goes: the launcher's words, then a command, as run_step has them.
RUN_SH = """#!/usr/bin/env python3
import shlex, subprocess, sys
launcher = shlex.split(sys.argv[sys.argv.index("--train_launcher") + 1])
open("recipe", "w").write(" ".join(sys.argv[1:5]))
sys.exit(subprocess.call([*launcher, "python3", "-m", "a command", "--b", "c d"]))
"""


def nearly(expected, found):
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=1e-5)


def free_port(low, high):
    for port in range(low, high):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) != 0:
                return port
    raise AssertionError("no port is free")


@pytest.fixture
def slurm(tmp_path):
    """A directory that looks like a recipe to Slurm's file, and the environment of a job."""
    tools = tmp_path / "tools"
    tools.mkdir()
    executable(tools / "srun", SRUN)
    executable(tools / "scontrol", SCONTROL)
    (tmp_path / "state").write_text("RUNNING")
    job = free_port(20000, 30000) - 20000
    return tmp_path, {
        **process_environment(),
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NAME": "spire_train",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": "1",
    }


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def submit(slurm, options, restarts=0):
    work, environment = slurm
    log = work / "any_name.log"
    with open(log, "ab") as stream:
        return subprocess.Popen(
            ["bash", str(ROOT / "conf" / "slurm_train.sbatch"), *options],
            cwd=work,
            env={**environment, "SLURM_RESTART_COUNT": str(restarts)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ), log


def until(happened, process, log):
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.005)


def in_mid_training(history):
    return lambda: history.exists() and history.read_text().count("\n") >= 7


def test_slurm_is_warned_saves_queues_again_and_goes_on(trained, slurm):  # noqa: F811
    folder, options, _ = trained
    work, environment = slurm
    # A new start is asked for, which is meant once.
    arguments = [
        *(*options, "--resume", "false"),
        *("--deepspeed_config", str(folder / "zero2.json"), "--output_dir", str(work / "run")),
    ]
    process, log = submit(slurm, arguments)
    until(in_mid_training(work / "run" / "history.jsonl"), process, log)
    os.kill(int((work / "srun.pid").read_text()), signal.SIGUSR1)
    assert process.wait(60) == 75
    assert "stopped by a signal at step" in log.read_text()
    assert (work / "requeued").read_text().split() == [environment["SLURM_JOB_ID"]]
    assert set((work / "srun.options").read_text().split()) == {
        *("--kill-on-bad-exit=0", "--wait=120")
    }
    process, log = submit(slurm, arguments, restarts=1)
    assert process.wait(120) == 0, log.read_text()[-3000:]
    assert "resumed at step" in log.read_text()
    nearly(read_history_lines(folder / "zero1"), read_history_lines(work / "run"))


@pytest.fixture
def rank_that_ends(slurm):
    """Slurm's directory, and what makes both ranks end with a status."""
    work, _ = slurm
    executable(work / "tools" / "python3", RANK)
    return work, lambda status: (work / "status").write_text(str(status))


@pytest.mark.parametrize(
    ("status", "restarts", "queued"),
    [
        (0, 0, False),
        (1, 0, False),
        (75, 0, True),
        (75, 99, True),
        (75, 100, False),
        (137, 3, False),
    ],
)
def test_what_is_queued_again(slurm, rank_that_ends, status, restarts, queued):
    work, end_with = rank_that_ends
    end_with(status)
    process, log = submit(slurm, ["--a", "b c"], restarts)
    assert process.wait(30) == status
    assert (work / "requeued").exists() == queued
    assert ("queued again 100 times" in log.read_text()) == (restarts == 100)
    port = 20000 + int(slurm[1]["SLURM_JOB_ID"])
    resume = " --resume true" if restarts else ""
    for rank in range(2):
        given = f"{rank}/2 {rank} localhost {port} 1:"
        given += f" -m espnet_spire.bin.spire_train --ngpu 1 --a b c{resume}\n"
        assert (work / f"given.{rank}").read_text() == given


def test_what_is_cancelled_is_not_queued_again(slurm, rank_that_ends):
    work, end_with = rank_that_ends
    end_with(75)
    (work / "state").write_text("COMPLETING")
    process, log = submit(slurm, [])
    assert process.wait(30) == 75
    assert not (work / "requeued").exists() and "not queued again" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_warning_may_reach_the_batch_script_too(slurm, rank_that_ends, number):
    work, end_with = rank_that_ends
    end_with(75)
    (work / "wait").touch()
    process, log = submit(slurm, [])
    until(lambda: all((work / f"ready.{rank}").exists() for rank in range(2)), process, log)
    process.send_signal(number)
    process.send_signal(number)
    os.kill(int((work / "srun.pid").read_text()), signal.SIGUSR1)
    process.send_signal(number)
    assert process.wait(30) == 75
    assert (work / "requeued").read_text().split() == [slurm[1]["SLURM_JOB_ID"]]


@pytest.mark.parametrize("restarts", [0, 2])
def test_a_recipe_under_slurm(slurm, rank_that_ends, restarts):
    work, end_with = rank_that_ends
    end_with(75)
    executable(work / "run.sh", RUN_SH.replace("/usr/bin/env python3", sys.executable))
    process, log = submit(slurm, ["./run.sh", "--stage", "8"], restarts)
    assert process.wait(30) == 75, log.read_text()
    assert (work / "recipe").read_text() == "--stage 8 --ngpu 1"
    assert (work / "requeued").exists()
    for rank in range(2):
        given = (work / f"given.{rank}").read_text()
        assert given.startswith(f"{rank}/2 {rank} localhost ")
        assert given.endswith(f": -m a command --b c d{' --resume true' * (restarts > 0)}\n")


def test_a_run_that_fails_is_not_queued_again(trained, slurm):  # noqa: F811
    folder, options, _ = trained
    work, _ = slurm
    arguments = [*options, "--deepspeed_config", "none.json", "--output_dir", str(work / "run")]
    process, log = submit(slurm, arguments)
    # Not always 1: a thread of gloo may abort when the other rank has gone.
    assert process.wait(120) not in (0, 75)
    assert "none.json: no such file" in log.read_text() and not (work / "requeued").exists()


def test_our_launcher_saves_and_goes_on_with_another_number_of_ranks(trained, tmp_path):  # noqa: F811
    folder, options, _ = trained
    command = train_command(options, tmp_path / "run", folder / "zero2.json")
    ranks = [sys.executable, "-m", "espnet_spire.bin.launch_ranks", "--nproc", "2", "--"]
    log = tmp_path / "log"
    with open(log, "wb") as stream:
        process = subprocess.Popen([*ranks, *command], env=process_environment(), stderr=stream)
    until(in_mid_training(tmp_path / "run" / "history.jsonl"), process, log)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 75
    assert log.read_text().count("error: stopped by a signal at step") == 2
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step" in done.stderr
    nearly(read_history_lines(folder / "zero1"), read_history_lines(tmp_path / "run"))


def test_what_espnets_launcher_gives_to_each_process(trained, tmp_path):  # noqa: F811
    """``espnet2.bin.launch --host`` starts each rank with these options and nothing else."""
    folder, options, _ = trained
    meeting = f"file://{tmp_path}/meeting"
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "espnet_spire.bin.spire_train", *options),
                *("--deepspeed_config", str(folder / "zero2.json")),
                *("--output_dir", str(tmp_path / "run")),
                *("--ngpu", "0", "--multiprocessing_distributed", "false"),
                *("--dist_rank", str(rank), "--dist_world_size", "2"),
                *("--dist_init_method", meeting, "--dist_backend", "gloo"),
            ],
            env=process_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in processes:
        said = process.communicate()[1].decode()
        assert process.returncode == 0, said[-3000:]
    nearly(read_history_lines(folder / "zero1"), read_history_lines(tmp_path / "run"))


# ESPnet's own processes (``--multiprocessing_distributed true`` and ``--ngpu`` above 1) exist on
# GPUs only: AbsTask counts one a GPU, and refuses to spawn any without.
def test_one_process_through_espnets_launcher(trained, tmp_path):  # noqa: F811
    folder, options, _ = trained
    run = tmp_path / "run.pl"
    run.write_text('#!/usr/bin/env bash\n# run.pl --gpu N LOG COMMAND…\nshift 3\nexec "$@"\n')
    run.chmod(0o755)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "espnet2.bin.launch", "--cmd", str(run), "--log", "train.log"),
            *("--ngpu", "0", "--num_nodes", "1", "--multiprocessing_distributed", "true", "--"),
            *(sys.executable, "-m", "espnet_spire.bin.spire_train", *options, "--max_steps", "3"),
            *("--deepspeed_config", str(folder / "zero1.json")),
            *("--output_dir", str(tmp_path / "run")),
        ],
        cwd=tmp_path,
        env=process_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [e["step"] for e in read_history_lines(tmp_path / "run")] == [1, 2, 3, 3]
