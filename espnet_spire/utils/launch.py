"""Start the jobs of a sharded stage, here or by a scheduler, and wait for all of them."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from espnet_spire.utils.atomic import atomic_write
from espnet_spire.utils.errors import SpireError

JOB = "JOB"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def job_command(command: Sequence[str], job: int, nj: int) -> List[str]:
    """The command for one shard; a single job is the command itself."""
    if nj == 1:
        return list(command)
    return [*command, "--num_shards", str(nj), "--shard", str(job)]


def merge_command(command: Sequence[str], nj: int) -> List[str]:
    """The command that joins what the shards left."""
    return [*command, "--num_shards", str(nj), "--merge"]


def last_line(log: Path) -> str:
    """What a failed job said last."""
    lines = [
        line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line
    ]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it printed nothing"])[-1]


def end_with_parent() -> Optional[Callable[[], None]]:
    """What a child runs before its command so that it ends when this process does, even by SIGKILL.

    Linux alone can do it; elsewhere ``None``, and jobs of a killed launcher run to their end.
    """
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec a child should do little.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)

    return prepare


def shared_environment(processes: int) -> Dict[str, str]:
    """The environment of each of several processes that share this machine's cores.

    ``OMP_NUM_THREADS`` is each one's share, unless the user has set it.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def launch_local(command: Sequence[str], *, nj: int, log: str) -> None:
    """Run shards 1 … nj as processes of this machine, then merge what they left.

    The jobs end with this process, and with the thread that calls.

    Args:
        command: argv of an entry point that takes ``--num_shards --shard --merge``.
        nj: how many.
        log: file name with ``JOB`` in it; what jobs print goes there, but the first job's progress
            is shown.

    Raises:
        SpireError: when a job fails, after the others were stopped; it names the log.
    """
    environment = shared_environment(nj)
    prepare = end_with_parent()
    processes = []
    try:
        for job in range(1, nj + 1):
            path = Path(log.replace(JOB, str(job)))
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as stream:
                if job == 1:
                    process = subprocess.Popen(
                        job_command(command, job, nj),
                        env=environment,
                        stdout=sys.stdout,
                        stderr=subprocess.PIPE,
                        preexec_fn=prepare,
                    )
                else:
                    process = subprocess.Popen(
                        job_command(command, job, nj),
                        env=environment,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        preexec_fn=prepare,
                    )
            processes.append((process, path))
        # In a thread, so that a failure of another job is noticed while the first goes on.
        shown = threading.Thread(target=_show, args=processes[0], daemon=True)
        shown.start()
        waiting = list(processes)
        while waiting:
            for process, path in list(waiting):
                status = process.poll()
                if status is None:
                    continue
                waiting.remove((process, path))
                if status != 0:
                    if process is processes[0][0]:
                        shown.join()
                    number = processes.index((process, path)) + 1
                    raise SpireError(f"job {number} of {nj}: {_reason(path)} (log: {path})")
            time.sleep(0.05)
        shown.join()
        _merge(command, nj)
    finally:
        for process, _ in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()


def launch_through(cmd: Sequence[str], command: Sequence[str], *, nj: int, log: str) -> None:
    """Let another program run shards 1 … nj, then merge what they left on this machine.

    The program is called as Kaldi's ``run.pl``, ``slurm.pl`` and ``queue.pl``: ``<cmd> JOB=1:<nj>
    <log> <command>``. It waits for all jobs and ends with another status than 0 if one failed.

    Args:
        cmd: the program and its options, e.g. ``utils/slurm.pl --mem 8G``.
        command: argv of an entry point that takes ``--num_shards --shard --merge``.
        nj: how many.
        log: file name with ``JOB`` in it, where the program puts what jobs print. A script is
            written beside it: the words of the command go through shells on their way, with rules
            of their own for quotes and for ``JOB``.

    Raises:
        SpireError: the program or a job failed; it names the log.
    """
    script = Path(log.replace(f".{JOB}", "").replace(JOB, "")).with_suffix(".sh")
    script.parent.mkdir(parents=True, exist_ok=True)
    words = shlex.join(command)
    shards = "" if nj == 1 else f' --num_shards {nj} --shard "$1"'
    with atomic_write(script) as stream:
        stream.write(f"#!/usr/bin/env bash\nexec {words}{shards}\n")
    logs = [Path(log.replace(JOB, str(job))) for job in range(1, nj + 1)]
    for path in logs:
        path.unlink(missing_ok=True)  # those of an earlier start say nothing of this one
    argv = [*cmd, f"{JOB}=1:{nj}", log, "bash", str(script), JOB]
    try:
        status = subprocess.run(argv, preexec_fn=end_with_parent()).returncode
    except OSError as error:
        raise SpireError(f"--cmd {shlex.join(cmd)} cannot be run: {error.strerror}") from None
    if status != 0:
        for job, path in enumerate(logs, 1):
            if path.exists() and last_line(path).startswith("error:"):
                raise SpireError(f"job {job} of {nj}: {_reason(path)} (log: {path})")
        raise SpireError(f"{shlex.join(cmd)} ended with status {status} (logs: {log})")
    _merge(command, nj)


def _merge(command: Sequence[str], nj: int) -> None:
    if nj == 1:
        return
    merged = subprocess.run(merge_command(command, nj), preexec_fn=end_with_parent())
    if merged.returncode != 0:
        raise SpireError("the jobs ended well, but their output cannot be joined (see above)")


def _reason(path: Path) -> str:
    return last_line(path).removeprefix("error: ")


def _show(process: subprocess.Popen, path: Path) -> None:
    """Copy the first job's stderr to its log and to the terminal, bytes as they come."""
    with open(path, "ab") as stream:
        while chunk := os.read(process.stderr.fileno(), 4096):
            stream.write(chunk)
            stream.flush()
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
