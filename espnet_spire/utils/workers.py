"""Many pieces of work, in processes of their own; the result does not depend on how many."""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Iterable, Iterator, Tuple

from espnet_spire.utils.errors import SpireError

_shared: Any = None


def run_jobs(
    function: Callable[[Any, Any], Any], shared: Any, jobs: Iterable[Any], nj: int
) -> Iterator[Tuple[Any, Any]]:
    """Yield ``(job, function(shared, job))`` as jobs end.

    Args:
        function: of a module's top level, so that another process can find it.
        shared: what all jobs need, sent to each process once.
        jobs: small things; few of them wait at a time.
        nj: how many processes; 1 does the work in this one. They end with it, even by SIGKILL.

    Raises:
        SpireError: of the first job that fails, or a process was killed.
    """
    if nj < 1:
        raise SpireError(f"--nj {nj}: must be at least 1")
    if nj == 1:
        for job in jobs:
            yield job, function(shared, job)
        return
    # not forked: threads of this process may hold locks
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        nj, context, initializer=_begin, initargs=(shared, os.getpid())
    )
    waiting = {}
    left = iter(jobs)
    try:
        while True:
            for job in itertools.islice(left, 2 * nj - len(waiting)):
                waiting[pool.submit(_call, function, job)] = job
            if not waiting:
                break
            done, _ = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise SpireError(
            "a worker process was killed (out of memory?); start the same command again, perhaps"
            " with a smaller --nj: it goes on where it stopped"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(shared: Any, parent: int) -> None:
    global _shared
    _shared = shared
    # Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(function: Callable[[Any, Any], Any], job: Any) -> Any:
    return function(_shared, job)
