"""Decode utterances in the background, in order, a bounded way ahead of whoever uses them.

Threads, not processes: libsndfile and the resampler let go of Python's lock, nothing has to be
copied between processes, there is one cache of recordings, and starting costs nothing.
"""

import threading
from collections import deque
from typing import Deque, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from espnet_spire.units.audio import Decoder
from espnet_spire.units.sources import Source
from espnet_spire.utils.errors import SpireError

# Names of utterances that wait to be decoded; they weigh next to nothing.
_MAX_QUEUED = 256


class Decoded(NamedTuple):
    """An utterance: float32 samples at 16 kHz, shape (samples,), or the reason for none."""

    key: str
    samples: Optional[np.ndarray]
    reason: Optional[str]


def read_ahead(
    items: Iterable[Tuple[str, Source]], *, num_workers: int, max_ahead_samples: int
) -> Iterator[Decoded]:
    """Decode ``items`` in the background; yield them in their order.

    ``items`` is read lazily, by the thread that reads the results. At most ``max_ahead_samples``
    16 kHz samples wait to be taken, and one utterance more for each worker. When the generator
    is closed, at its end or before, its workers have ended, and so have the pipes they ran.

    Args:
        items: utterances and where their audio is.
        num_workers: threads that decode; 0 decodes when a result is asked for.
        max_ahead_samples: how much audio may wait.

    Yields:
        :class:`Decoded`; an utterance that cannot be read has the message as its reason.

    Raises:
        whatever ``items`` raises, after the results before it; any error of ours.
    """
    decoder = Decoder()
    if num_workers == 0:
        try:
            for key, source in items:
                yield _decode(decoder, key, source)
        finally:
            decoder.close()
        return
    pool = _Pool(decoder, num_workers, max_ahead_samples)
    try:
        yield from pool.results(iter(items))
    finally:
        pool.close()


def _decode(decoder: Decoder, key: str, source: Source) -> Decoded:
    try:
        return Decoded(key, decoder.load(source), None)
    except SpireError as error:
        return Decoded(key, None, str(error))


class _Job:
    """An utterance on its way: queued, then with a result or the error that stopped it."""

    def __init__(self, key: str, source: Source) -> None:
        self.key = key
        self.source = source
        self.result: Optional[Decoded] = None
        self.error: Optional[BaseException] = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    @property
    def size(self) -> int:
        if self.result is None or self.result.samples is None:
            return 0
        return len(self.result.samples)


class _Pool:
    """Workers, the jobs in order, and how much decoded audio waits; all under one condition."""

    def __init__(self, decoder: Decoder, num_workers: int, max_ahead_samples: int) -> None:
        self._decoder = decoder
        self._max_ahead = max_ahead_samples
        self._changed = threading.Condition()
        self._jobs: Deque[_Job] = deque()  # in order, until their results are taken
        self._queued: Deque[_Job] = deque()  # those that no worker has begun
        self._waiting_samples = 0
        self._closed = False
        self._threads: List[threading.Thread] = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def results(self, items: Iterator[Tuple[str, Source]]) -> Iterator[Decoded]:
        """Keep the queue filled, yield what is next when it is done."""
        failure: Optional[Exception] = None
        exhausted = False
        while True:
            while not exhausted and len(self._jobs) < _MAX_QUEUED:
                try:
                    self._put(_Job(*next(items)))
                except StopIteration:
                    exhausted = True
                except Exception as error:  # its turn comes after what was read before it
                    exhausted, failure = True, error
            if not self._jobs:
                break
            yield self._take()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End pipes and workers; what is being decoded is finished first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._decoder.close()
        for thread in self._threads:
            thread.join()

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._queued.append(job)
            self._changed.notify_all()

    def _take(self) -> Decoded:
        with self._changed:
            job = self._jobs[0]
            self._changed.wait_for(lambda: job.done)
            self._jobs.popleft()
            self._waiting_samples -= job.size
            self._changed.notify_all()
        if job.error is not None:
            raise job.error
        return job.result

    def _may_begin(self) -> bool:
        # What is next in order was queued first: when audio waits, it is begun already, so that
        # waiting for room cannot last for ever.
        return self._closed or (
            bool(self._queued)
            and (self._waiting_samples < self._max_ahead or self._queued[0] is self._jobs[0])
        )

    def _work(self) -> None:
        # The workers are the parallelism. Only of this thread, unlike torch.set_num_threads,
        # which all threads after it would inherit; and after torch has made its own setting.
        torch.get_num_threads()
        with threadpool_limits(1, user_api="openmp"):
            while True:
                with self._changed:
                    self._changed.wait_for(self._may_begin)
                    if self._closed:
                        return
                    job = self._queued.popleft()
                try:
                    result, error = _decode(self._decoder, job.key, job.source), None
                except BaseException as raised:  # for the thread that takes it
                    result, error = None, raised
                with self._changed:
                    job.result, job.error = result, error
                    self._waiting_samples += job.size
                    self._changed.notify_all()
