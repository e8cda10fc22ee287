"""Collecting frames: which are kept, through kills and shards, and loading them."""

import numpy as np
import pytest
import torch

from espnet_spire.units import frames as frames_module
from espnet_spire.units.frames import (
    Collection,
    collect_frames,
    kept_frames,
    load_frames,
    read_collection,
    sample_batches,
)
from espnet_spire.units.sampling import sample_utterances
from espnet_spire.utils.errors import SpireError

SECOND = 16000


class CountingEncoder:
    """Feature of frame i of an utterance: its first sample times 1000, and i."""

    dim = 2

    def __init__(self, scale=1.0):
        self.batches = 0
        self.scale = scale

    def num_frames(self, num_samples):
        return max(0, (num_samples - 400) // 320 + 1)

    def __call__(self, batch):
        self.batches += 1
        result = []
        for samples in batch:
            index = np.arange(self.num_frames(len(samples)))
            level = np.full(len(index), self.scale * np.round(1000 * samples[0]))
            result.append(torch.from_numpy(np.stack([level, index], axis=1).astype(np.float32)))
        return result


@pytest.fixture(scope="module")
def sample(tmp_path_factory, make_data_dir):
    """30 utterances of 0.3 to 1.03 seconds; the first sample tells which: n / 1000."""
    utterances = {
        f"u{n:02d}": np.full(int((0.3 + 0.025 * n) * SECOND), n / 1000) for n in range(30)
    }
    directory = make_data_dir(tmp_path_factory.mktemp("sample") / "d", utterances)
    return sample_utterances([directory], hours=1, seed=0)


def collection_of(sample, **changes):
    values = {
        "batches": sample_batches(sample, 2.0),
        "keep": 1.0,
        "dtype": np.dtype(np.float16),
        "dim": 2,
        "seed": 0,
    }
    return Collection(**{**values, **changes})


def rows_of(collected, collection):
    return np.concatenate(list(frames_module._read(collected, collection)))


def test_batches_are_of_like_lengths_under_the_budget(sample):
    cut = sample_batches(sample, 2.0)
    assert sorted(item.key for batch in cut for item in batch) == [f"u{n:02d}" for n in range(30)]
    for batch in cut:
        longest = max(item.num_samples for item in batch)
        assert len(batch) == 1 or len(batch) * longest <= 2 * SECOND
    assert len(cut) < 18


def test_every_frame_once(sample, tmp_path):
    collection = collection_of(sample)
    encoder = CountingEncoder()
    collect_frames(encoder, collection, tmp_path)
    assert encoder.batches == len(collection.batches)
    collected = read_collection(tmp_path, collection, 1)
    expected = {
        (n, i) for n in range(30) for i in range((int((0.3 + 0.025 * n) * SECOND) - 400) // 320 + 1)
    }
    rows = rows_of(collected, collection)
    assert rows.dtype == np.float16
    assert len(rows) == len(expected) == collected.num_frames
    assert set(map(tuple, rows.astype(int).tolist())) == expected
    assert collected.num_samples == sum(item.num_samples for item in sample)
    assert collected.rejected == {}


@pytest.mark.parametrize("keep", [1.0, 0.3])
@pytest.mark.parametrize("num_shards", [2, 3, 100])
def test_shards_collect_what_one_job_does(sample, tmp_path, keep, num_shards):
    collection = collection_of(sample, keep=keep)
    collect_frames(CountingEncoder(), collection, tmp_path / "one")
    for shard in range(num_shards, 0, -1):
        with pytest.raises(SpireError, match=f"of {num_shards} has not finished .* run it again"):
            read_collection(tmp_path / "many", collection, num_shards)
        options = {"num_shards": num_shards, "shard": shard}
        collect_frames(CountingEncoder(), collection, tmp_path / "many", **options)
    one = read_collection(tmp_path / "one", collection, 1)
    many = read_collection(tmp_path / "many", collection, num_shards)
    assert (rows_of(one, collection) == rows_of(many, collection)).all()
    loaded = [load_frames(part, collection, capacity=10**6) for part in (one, many)]
    assert (loaded[0][0] == loaded[1][0]).all() and (loaded[0][1] == loaded[1][1]).all()


def test_kept_frames_follow_from_seed_and_utterance(sample, tmp_path):
    first = kept_frames(sample[0], 1000, 0.3, seed=0)
    assert (first == kept_frames(sample[0], 1000, 0.3, seed=0)).all()
    assert (first != kept_frames(sample[0], 1000, 0.3, seed=1)).any()
    assert (first != kept_frames(sample[1], 1000, 0.3, seed=0)).any()
    assert 225 < first.sum() < 375  # 5 standard deviations are 72
    # however they are put into batches
    sets = []
    for seconds in (0.1, 30.0):
        collection = collection_of(sample, keep=0.3, batches=sample_batches(sample, seconds))
        collect_frames(CountingEncoder(), collection, tmp_path / str(seconds))
        collected = read_collection(tmp_path / str(seconds), collection, 1)
        sets.append(set(map(tuple, rows_of(collected, collection).tolist())))
    assert sets[0] == sets[1]
    assert {level for level, _ in sets[0]} == set(range(30))


@pytest.mark.parametrize("where", ["before the frames", "torn frames", "before the journal"])
def test_goes_on_after_a_kill(sample, tmp_path, where, monkeypatch):
    collection = collection_of(sample, keep=0.5)
    collect_frames(CountingEncoder(), collection, tmp_path / "whole")
    work = tmp_path / "killed"

    class Killed(BaseException):
        pass

    class DyingEncoder(CountingEncoder):
        def __call__(self, batch):
            if self.batches == 4:
                raise Killed
            return super().__call__(batch)

    encoder = DyingEncoder()
    if where == "before the journal":
        append = frames_module.Journal.append

        def die(self, record):
            if record.get("batch") == 4:
                raise Killed
            append(self, record)

        monkeypatch.setattr(frames_module.Journal, "append", die)
        encoder = CountingEncoder()
    with pytest.raises(Killed):
        collect_frames(encoder, collection, work)
    monkeypatch.undo()
    if where == "torn frames":
        with open(work / "frames.1-of-1.bin", "ab") as stream:
            stream.write(b"12345")
        with open(work / "frames.1-of-1.jsonl", "a") as stream:
            stream.write('{"batch": 4, "fra')
    again = CountingEncoder()
    collect_frames(again, collection, work)
    assert again.batches == len(collection.batches) - 4
    for name in ("frames.1-of-1.bin", "frames.1-of-1.jsonl"):
        assert (work / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # nothing left to do
    again = CountingEncoder()
    collect_frames(again, collection, work)
    assert again.batches == 0


def test_frames_that_are_gone(sample, tmp_path):
    collection = collection_of(sample)
    collect_frames(CountingEncoder(), collection, tmp_path)
    with open(tmp_path / "frames.1-of-1.bin", "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(SpireError, match="holds 100 bytes, its journal says .* remove"):
        collect_frames(CountingEncoder(), collection, tmp_path)
    with pytest.raises(SpireError, match="is cut off; remove"):
        rows_of(read_collection(tmp_path, collection, 1), collection)


def test_two_processes_at_one_job(sample, tmp_path):
    import fcntl

    collection = collection_of(sample)
    with open(tmp_path / "frames.1-of-1.bin", "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SpireError, match="another process is at this job"):
            collect_frames(CountingEncoder(), collection, tmp_path)


def test_unusable_utterances_are_listed(tmp_path, make_data_dir):
    directory = make_data_dir(
        tmp_path / "d",
        {"good": np.full(SECOND, 0.1), "late": np.full(SECOND, 0.2), "short": np.full(399, 0.3)},
    )
    sample = sample_utterances([directory], hours=1, seed=0)
    (directory / "audio" / "late.wav").write_bytes(b"overwritten after its length was read")
    collection = collection_of(sample)
    collect_frames(CountingEncoder(), collection, tmp_path / "work")
    collected = read_collection(tmp_path / "work", collection, 1)
    assert collected.num_samples == SECOND
    assert collected.num_frames == 49
    assert set(collected.rejected) == {"late", "short"}
    assert collected.rejected["short"] == "399 samples are shorter than one frame"
    assert "late.wav" in collected.rejected["late"]


def test_features_that_are_not_finite(sample, tmp_path):
    collection = collection_of(sample)
    collect_frames(CountingEncoder(float("nan")), collection, tmp_path)
    collected = read_collection(tmp_path, collection, 1)
    assert len(collected.rejected) == 30 and collected.num_frames == 0
    assert set(collected.rejected.values()) == {"its features are not finite"}


def test_features_too_large_for_float16(sample, tmp_path):
    collection = collection_of(sample)
    with pytest.raises(SpireError, match="does not fit float16; use --backend sklearn"):
        collect_frames(CountingEncoder(1e5), collection, tmp_path / "half")
    single = collection._replace(dtype=np.dtype(np.float32))
    collect_frames(CountingEncoder(1e5), single, tmp_path / "single")
    rows = rows_of(read_collection(tmp_path / "single", single, 1), single)
    assert rows[:, 0].max() == pytest.approx(29e5)


def test_loading_shuffles_and_takes_the_mean_off(sample, tmp_path):
    collection = collection_of(sample, dtype=np.dtype(np.float32))
    collect_frames(CountingEncoder(), collection, tmp_path)
    collected = read_collection(tmp_path, collection, 1)
    rows = rows_of(collected, collection)
    frames, mean = load_frames(collected, collection, capacity=10**6)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
    restored = sorted(map(tuple, np.round(frames + mean).tolist()))
    assert restored == sorted(map(tuple, rows.tolist()))
    # from utterance to utterance all the time: shuffled frames, not utterances
    levels = np.round(frames + mean)[:, 0]
    assert (levels[1:] != levels[:-1]).mean() > 0.9
    few, _ = load_frames(collected, collection, capacity=100)
    assert (few == frames[:100]).all()
