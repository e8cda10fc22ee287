"""SIGTERM and SIGUSR1, by which schedulers announce the end: noted, for the work to save itself."""

import contextlib
import signal
from typing import Iterator

ANNOUNCED = (signal.SIGTERM, signal.SIGUSR1)
_received = False


def stop_wanted() -> bool:
    """Whether one of the signals has come since :func:`noted_signals` was entered."""
    return _received


@contextlib.contextmanager
def noted_signals() -> Iterator[None]:
    """Inside, the process does not die of these signals; whoever asks is told of them."""
    global _received
    _received = False
    before = {number: signal.signal(number, _note) for number in ANNOUNCED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(_number: int, _frame) -> None:
    global _received
    _received = True
