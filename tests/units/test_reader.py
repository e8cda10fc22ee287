import itertools
import threading
import time

import numpy as np
import pytest
import soundfile
import torch

from espnet_spire.units.audio import Decoder, load_audio
from espnet_spire.units.reader import read_ahead
from espnet_spire.units.sources import Source
from espnet_spire.utils.errors import SpireError

RATE = 16000
WORKERS = [0, 1, 4]


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode-")]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert decoding_threads() == []


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Utterances of many lengths and rates: the long ones would overtake nobody."""
    root = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    found = []
    for number in range(30):
        rate = (16000, 44100, 8000)[number % 3]
        length = 90000 if number % 7 == 0 else 500 + 100 * number
        path = str(root / f"{number}.flac")
        soundfile.write(path, rng.uniform(-0.5, 0.5, length), rate)
        found.append((f"u{number:02d}", Source(path)))
    return found


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("max_ahead", [1, 100000, 10**9])
def test_the_same_as_one_after_the_other(items, num_workers, max_ahead):
    results = list(read_ahead(items, num_workers=num_workers, max_ahead_samples=max_ahead))
    assert [result.key for result in results] == [key for key, _ in items]
    for result, (_, source) in zip(results, items, strict=True):
        assert result.reason is None
        assert result.samples.tolist() == load_audio(source).tolist()


@pytest.mark.parametrize("num_workers", WORKERS)
def test_what_cannot_be_read_has_a_reason(items, num_workers):
    broken = [items[0], ("gone", Source("gone.wav")), ("fails", Source("exit 3 |")), items[1]]
    results = list(read_ahead(broken, num_workers=num_workers, max_ahead_samples=10**6))
    assert [result.key for result in results] == ["u00", "gone", "fails", "u01"]
    assert results[1].samples is None and results[1].reason == "gone.wav: no such audio file"
    assert results[2].samples is None and "status 3" in results[2].reason
    assert results[0].reason is results[3].reason is None


@pytest.mark.parametrize("num_workers", WORKERS)
def test_errors_of_ours_reach_the_caller(items, num_workers, monkeypatch):
    load = Decoder.load

    def fail(self, source):
        if source == items[3][1]:
            raise ZeroDivisionError("a bug")
        return load(self, source)

    monkeypatch.setattr(Decoder, "load", fail)
    results = read_ahead(items, num_workers=num_workers, max_ahead_samples=10**6)
    assert [next(results).key for _ in range(3)] == ["u00", "u01", "u02"]
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(results)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_errors_of_the_table_come_in_their_turn(items, num_workers):
    def broken():
        yield from items[:5]
        raise SpireError("wav.scp, line 6: no")

    results = read_ahead(broken(), num_workers=num_workers, max_ahead_samples=10**6)
    assert len(list(itertools.islice(results, 5))) == 5
    with pytest.raises(SpireError, match="line 6"):
        next(results)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_nothing_to_read(num_workers):
    assert list(read_ahead([], num_workers=num_workers, max_ahead_samples=1)) == []


def settle(count):
    """Wait until ``count()`` has not changed for a while."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.02)
        if count() != last:
            last, since = count(), time.monotonic()
    return last


def test_waiting_audio_is_bounded(tmp_path, monkeypatch):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(1000), RATE)
    begun = []
    load = Decoder.load
    monkeypatch.setattr(Decoder, "load", lambda *args: begun.append(1) or load(*args))
    items = ((f"u{number}", Source(path)) for number in itertools.count())
    results = read_ahead(items, num_workers=2, max_ahead_samples=5000)
    for taken in range(1, 4):
        next(results)
        # five wait, and a sixth if both workers began when there was room for one
        assert taken + 5 <= settle(lambda: len(begun)) <= taken + 6
    results.close()


def test_the_list_is_read_lazily(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(1000), RATE)
    asked = itertools.count()
    items = ((f"u{number}", Source(path)) for number in asked)
    results = read_ahead(items, num_workers=2, max_ahead_samples=5000)
    for _ in range(600):
        next(results)
    results.close()
    assert next(asked) <= 600 + 256


@pytest.mark.parametrize("how", ["close", "break", "raise"])
def test_stopping_early_ends_workers_and_pipes(items, how):
    slow = items[:2] + [(f"p{number}", Source("sleep 600 |")) for number in range(9)]
    results = read_ahead(slow, num_workers=3, max_ahead_samples=10**9)
    assert next(results).key == "u00"
    assert len(decoding_threads()) == 3
    if how == "close":
        results.close()
    elif how == "break":
        for _ in results:
            break
        del results
    else:
        with pytest.raises(KeyError):
            results.throw(KeyError("of the caller"))


def test_threads_of_torch_stay_as_they_were(items):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(read_ahead(items, num_workers=2, max_ahead_samples=10**6))
        found = [torch.get_num_threads()]
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert found == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_workers_resample_with_one_thread_each(items, monkeypatch):
    seen = []
    load = Decoder.load
    monkeypatch.setattr(
        Decoder, "load", lambda *args: seen.append(torch.get_num_threads()) or load(*args)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(read_ahead(items, num_workers=2, max_ahead_samples=10**6))
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
