"""The ways to start several ranks: Slurm's file, ESPnet's launcher, ESPnet's own processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_lm import lm_base, lm_dir, process_environment, read_history_lines, trained  # noqa: F401

ROOT = Path(__file__).parents[2]
# What srun does, for two tasks on one machine; it passes signals on, as Slurm's daemon does.
SRUN = """#!/usr/bin/env bash
echo $$ >srun.pid
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" &
    tasks+=($!)
done
trap 'kill -USR1 "${tasks[@]}"' USR1
status=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2>/dev/null; do wait "$task" || status=$?; done
done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in
    show) echo localhost ;;
    requeue) echo "$2" >>requeued ;;
esac
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
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "exp" / "log").mkdir(parents=True)
    job = free_port(21000, 39000) - 20000
    return tmp_path, {
        **process_environment(),
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NAME": "spire_train",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": "1",
    }


def submit(folder, environment, options, restarts):
    log = folder / "exp" / "log" / f"spire_train.{environment['SLURM_JOB_ID']}.log"
    with open(log, "ab") as stream:
        return subprocess.Popen(
            ["bash", str(ROOT / "conf" / "slurm_train.sbatch"), *options],
            cwd=folder,
            env={**environment, "SLURM_RESTART_COUNT": str(restarts)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ), log


def test_slurm_is_warned_saves_queues_again_and_goes_on(trained, slurm):  # noqa: F811
    folder, options, _ = trained
    work, environment = slurm
    arguments = [
        *options,
        *("--deepspeed_config", str(folder / "zero2.json"), "--output_dir", str(work / "run")),
    ]
    process, log = submit(work, environment, arguments, 0)
    history = work / "run" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not history.exists() or history.read_text().count("\n") < 7:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.005)
    os.kill(int((work / "srun.pid").read_text()), signal.SIGUSR1)
    assert process.wait(60) != 0
    assert "stopped by a signal at step" in log.read_text()
    assert (work / "requeued").read_text().split() == [environment["SLURM_JOB_ID"]]
    process, log = submit(work, environment, arguments, 1)
    assert process.wait(120) == 0, log.read_text()[-3000:]
    assert "resumed at step" in log.read_text()
    nearly(read_history_lines(folder / "zero1"), read_history_lines(work / "run"))


def test_a_run_that_fails_is_not_queued_again(trained, slurm):  # noqa: F811
    folder, options, _ = trained
    work, environment = slurm
    arguments = [*options, "--deepspeed_config", "none.json", "--output_dir", str(work / "run")]
    process, log = submit(work, environment, arguments, 0)
    assert process.wait(120) != 0
    assert "none.json: no such file" in log.read_text() and not (work / "requeued").exists()


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


def test_espnets_launcher_on_one_machine(trained, tmp_path):  # noqa: F811
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
