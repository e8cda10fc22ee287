"""Start the ranks of a training on this machine, pass signals on to all, wait while they save.

``torchrun`` kills its workers half a minute after SIGTERM, and SIGUSR1 kills it before them: a
checkpoint of a large model takes longer.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from typing import Collection, Dict, List, NamedTuple, Optional, Sequence

from espnet_spire.utils.errors import SpireError, Stopped
from espnet_spire.utils.launch import end_with_parent, shared_environment
from espnet_spire.utils.stopping import ANNOUNCED

PASSED_ON = (*ANNOUNCED, signal.SIGINT)
# Ranks that a failed one leaves behind wait for it in a collective, for ever. Before they are
# killed they may say the same error, or finish what they write.
GRACE_SECONDS = 30.0
INTERRUPTED = 128 + signal.SIGINT


class Ended(NamedTuple):
    """A rank that is no more; ``status`` as in ``subprocess``: -n if signal n ended it."""

    rank: int
    status: int


def rank_environment(rank: int, nproc: int, port: int) -> Dict[str, str]:
    """What torch and DeepSpeed read of a rank's place among ``nproc`` on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def first_failure(ended: Sequence[Ended]) -> Optional[Ended]:
    """Whom to blame among ranks found ended at the same time; ``None`` if all ended well.

    One that a signal ended comes first: errors of the others may follow from that. One that
    aborted comes last: threads of gloo and NCCL do that when another rank has gone.
    """
    failed = [one for one in ended if one.status not in (0, Stopped.exit_code)]

    def order(one: Ended):
        return one.status == -signal.SIGABRT, one.status >= 0, one.rank

    return min(failed, key=order, default=None)


def exit_status(
    failed: Optional[Ended], statuses: Sequence[int], passed_on: Collection[int]
) -> int:
    """The launcher's status.

    Args:
        failed: the first rank that failed, if any.
        statuses: of all ranks.
        passed_on: signals that all ranks were given. One that is ended by SIGTERM or SIGUSR1 of
            these had not come to where it saves; earlier checkpoints stand.

    Returns:
        0; the status of the first rank that failed, 128 + n for signal n; ``Stopped.exit_code``
        if none failed but for a signal that was passed on; 130 after a SIGINT.
    """
    if signal.SIGINT in passed_on and any(statuses):
        return INTERRUPTED
    if failed is None:
        return Stopped.exit_code if Stopped.exit_code in statuses else 0
    if failed.status >= 0:
        return failed.status
    if -failed.status in ANNOUNCED and -failed.status in passed_on:
        return Stopped.exit_code
    return 128 - failed.status


def reserve_port(port: Optional[int] = None) -> socket.socket:
    """A socket that keeps a port for the first rank: it may listen there, nobody else is given it.

    Args:
        port: which one; ``None`` for any that is free.

    Raises:
        SpireError: when it is in use or no port.
    """
    if port is not None and not 1 <= port <= 65535:
        raise SpireError(f"--master_port {port}: not between 1 and 65535")
    held = socket.socket()
    # The first rank's socket has this option too, and this one never listens.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("", port or 0))
    except OSError as error:
        held.close()
        raise SpireError(
            f"--master_port {port}: {error.strerror}; choose another, or leave the option out"
        ) from None
    return held


def launch_ranks(
    command: Sequence[str],
    *,
    nproc: int,
    master_port: Optional[int] = None,
    grace: float = GRACE_SECONDS,
) -> int:
    """Run a command as ``nproc`` ranks of this machine and wait for all of them.

    SIGTERM, SIGUSR1 and the first SIGINT are passed on to all, which may take all the time that
    they need; a second SIGINT kills them. Ranks end with this process, even by SIGKILL (Linux).
    To be called from the main thread.

    Args:
        command: argv; each rank learns its place from its environment (``RANK`` …).
        nproc: how many.
        master_port: where the first rank listens; by default one that is free.
        grace: seconds that the others get when one has failed.

    Returns:
        see :func:`exit_status`.

    Raises:
        SpireError: bad arguments, or a command that is not installed.
    """
    if nproc < 1:
        raise SpireError(f"--nproc {nproc}: at least one process is needed")
    if not command:
        raise SpireError("no command to launch: give it after --")
    received: List[int] = []
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    processes: List[subprocess.Popen] = []
    with reserve_port(master_port) as held:
        try:
            for number in PASSED_ON:
                signal.signal(number, lambda number, _frame: received.append(number))
            _start(processes, command, nproc, held.getsockname()[1])
            return _wait(processes, received, grace)
        finally:
            _kill(processes)
            for number, handler in before.items():
                signal.signal(number, handler)


def _start(
    processes: List[subprocess.Popen], command: Sequence[str], nproc: int, port: int
) -> None:
    """Start the ranks; those that were started are in ``processes`` whatever happens."""
    environment, prepare = shared_environment(nproc), end_with_parent()
    for rank in range(nproc):
        try:
            process = subprocess.Popen(
                command,
                env={**environment, **rank_environment(rank, nproc, port)},
                stdin=subprocess.DEVNULL,
                # A group of its own: from the terminal, Ctrl-C would reach it twice.
                process_group=0,
                preexec_fn=prepare,
            )
        except OSError as error:
            raise SpireError(f"{command[0]} cannot be started: {error.strerror}") from None
        processes.append(process)


def _wait(processes: List[subprocess.Popen], received: List[int], grace: float) -> int:
    """Wait for all, passing on what is received; returns the launcher's status."""
    running = dict(enumerate(processes))
    passed_on: List[int] = []
    failed: Optional[Ended] = None
    deadline = float("inf")
    while running:
        while received:
            number = received.pop(0)
            again = number == signal.SIGINT and number in passed_on
            logging.info("passing %s on to all ranks", signal.Signals(number).name)
            if again:
                _kill(running.values())
            for process in running.values():
                process.send_signal(number)
            passed_on.append(number)
        ended = [Ended(r, s) for r, p in running.items() if (s := p.poll()) is not None]
        for one in ended:
            del running[one.rank]
        if failed is None and (failed := first_failure(ended)) is not None:
            others = f"; the others get {grace:g} s" if running else ""
            logging.error("%s%s", describe(failed), others)
            deadline = time.monotonic() + grace
        if running and time.monotonic() > deadline:
            logging.error("killing %s", ", ".join(f"rank {rank}" for rank in running))
            _kill(running.values())
        time.sleep(0.05)
    return exit_status(failed, [process.returncode for process in processes], passed_on)


def describe(ended: Ended) -> str:
    """How a rank ended, in words."""
    if ended.status >= 0:
        return f"rank {ended.rank} ended with status {ended.status}"
    number = -ended.status
    guess = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    return f"rank {ended.rank} was ended by signal {number} ({signal.strsignal(number)}{guess})"


def _kill(processes: Collection[subprocess.Popen]) -> None:
    """Kill those that run, with what they have started, and wait for them."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()
