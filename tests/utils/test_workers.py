"""Work in other processes."""

import os
import signal
import time

import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.workers import run_jobs


def times(factor, number):
    return factor * number, os.getpid()


def fail_at_three(_shared, number):
    if number == 3:
        raise SpireError("three is no good")
    return number


def fall_over(_shared, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


@pytest.mark.parametrize("nj", [1, 2])
def test_every_job_is_done_once(nj):
    found = {job: value for job, value in run_jobs(times, 7, iter(range(20)), nj)}
    assert {job: value for job, (value, _) in found.items()} == {n: 7 * n for n in range(20)}
    processes = {pid for _, pid in found.values()}
    assert (processes == {os.getpid()}) if nj == 1 else (os.getpid() not in processes)


def test_jobs_are_taken_as_they_are_needed():
    taken = []

    def jobs():
        for number in range(1000):
            taken.append(number)
            yield number

    for job, _ in run_jobs(times, 1, jobs(), 2):
        if job > 10:
            break
    assert len(taken) < 40


@pytest.mark.parametrize("nj", [1, 2])
def test_an_error_is_raised_here(nj):
    with pytest.raises(SpireError, match="^three is no good$"):
        list(run_jobs(fail_at_three, None, range(100), nj))


def test_a_killed_process_is_said_in_one_line():
    with pytest.raises(SpireError, match="a worker process was killed .* same command again"):
        list(run_jobs(fall_over, None, range(100), 2))


def test_less_than_one_process():
    with pytest.raises(SpireError, match="--nj 0: must be at least 1"):
        list(run_jobs(times, 1, [], 0))
