"""Collecting frames: which are kept, through kills, shards and changes, and loading them."""

import os

import numpy as np
import pytest
import torch

from espnet_spire.units import collecting, frames
from espnet_spire.units.collecting import collect_frames
from espnet_spire.units.frames import kept_frames, load_frames, make_collection, read_collection
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
        "batch_seconds": 2.0,
        "keep": 1.0,
        "dtype": np.dtype(np.float16),
        "dim": 2,
        "seed": 0,
        "sample": "the sample",
    }
    return make_collection(sample, **{**values, **changes})


def rows_of(collected, collection):
    return np.concatenate(list(frames._read(collected, collection)))


def test_batches_are_of_like_lengths_under_the_budget(sample):
    cut = collection_of(sample).batches
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
        collection = collection_of(sample, keep=0.3, batch_seconds=seconds)
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
        append = collecting.Journal.append

        def die(self, record):
            if record.get("batch") == 4:
                raise Killed
            append(self, record)

        monkeypatch.setattr(collecting.Journal, "append", die)
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
    assert set(collected.rejected) == {(0, "late"), (0, "short")}
    assert collected.rejected[0, "short"] == "399 samples are shorter than one frame"
    assert "late.wav" in collected.rejected[0, "late"]


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


def corpus_of(directory, make_data_dir, broken=()):
    """10 utterances of 0.3 to 0.75 seconds, some of them not audio."""
    make_data_dir(
        directory,
        {f"u{n}": np.full(int((0.3 + 0.05 * n) * SECOND), n / 1000) for n in range(10)},
    )
    for key in broken:
        (directory / "audio" / f"{key}.wav").rename(directory / f"{key}.good")
        (directory / "audio" / f"{key}.wav").write_bytes(b"not audio")
    return directory


def mend(directory, key):
    (directory / f"{key}.good").rename(directory / "audio" / f"{key}.wav")


def levels_of(work, collection, num_shards=1):
    """How many frames of each utterance were collected, and all else that is known of them."""
    collected = read_collection(work, collection, num_shards)
    levels = rows_of(collected, collection)[:, 0].astype(int)
    values, counts = np.unique(levels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True)), collected


def frames_of(n):
    return (int((0.3 + 0.05 * n) * SECOND) - 400) // 320 + 1


@pytest.mark.parametrize("num_shards", [1, 2, 30])
@pytest.mark.parametrize("known", [True, False])
def test_what_was_mended_is_appended(tmp_path, make_data_dir, num_shards, known):
    """Unusable when decoded, or already when its length was asked for."""
    directory = corpus_of(tmp_path / "d", make_data_dir, broken=["u3", "u6"])
    if known:
        (directory / "utt2num_samples").write_text(
            "".join(f"u{n} {int((0.3 + 0.05 * n) * SECOND)}\n" for n in range(10))
        )
    sample = sample_utterances([directory], hours=1, seed=0)
    collection = collection_of(sample, batch_seconds=1.0)
    assert len(collection.unknown) == (0 if known else 2)
    work = tmp_path / "work"

    def start():
        for shard in range(1, num_shards + 1):
            collect_frames(CountingEncoder(), collection, work, num_shards=num_shards, shard=shard)

    def files():
        return {path.name: path.read_bytes() for path in work.iterdir()}

    start()
    first = files()
    counts, collected = levels_of(work, collection, num_shards)
    assert counts == {n: frames_of(n) for n in range(10) if n not in (3, 6)}
    assert set(collected.rejected) == {(0, "u3"), (0, "u6")}
    start()
    assert files() == first  # nothing was mended
    mend(directory, "u3")
    start()
    for name, content in first.items():
        assert files()[name].startswith(content)
    counts, again = levels_of(work, collection, num_shards)
    assert counts == {n: frames_of(n) for n in range(10) if n != 6}
    assert again.stretches[: len(collected.stretches)] == collected.stretches
    assert set(again.rejected) == {(0, "u6")} and again.digest != collected.digest
    # another reason is noted, and is no other frame
    (directory / "audio" / "u6.wav").unlink()
    start()
    _, gone = levels_of(work, collection, num_shards)
    assert "no such audio file" in gone.rejected[0, "u6"] and gone.digest == again.digest
    mend(directory, "u6")
    start()
    counts, whole = levels_of(work, collection, num_shards)
    assert counts == {n: frames_of(n) for n in range(10)} and whole.rejected == {}
    assert whole.num_samples == sum(int((0.3 + 0.05 * n) * SECOND) for n in range(10))


def test_the_same_key_in_two_corpora(tmp_path, make_data_dir):
    directories = [corpus_of(tmp_path / name, make_data_dir, broken=["u4"]) for name in "ab"]
    sample = sample_utterances(directories, hours=1, seed=0)
    collection = collection_of(sample)
    collect_frames(CountingEncoder(), collection, tmp_path / "w")
    _, collected = levels_of(tmp_path / "w", collection)
    assert set(collected.rejected) == {(0, "u4"), (1, "u4")}
    mend(directories[1], "u4")
    collect_frames(CountingEncoder(), collection, tmp_path / "w")
    counts, collected = levels_of(tmp_path / "w", collection)
    assert set(collected.rejected) == {(0, "u4")}
    assert counts == {n: frames_of(n) * (1 if n == 4 else 2) for n in range(10)}


def touch(path, level=None):
    """Another file of the same length at the same path."""
    import soundfile

    samples, rate = soundfile.read(path)
    soundfile.write(path, samples if level is None else np.full(len(samples), level), rate)
    os.utime(path, ns=(0, 12345))


def test_audio_that_changed_is_read_again(tmp_path, make_data_dir, caplog):
    directory = corpus_of(tmp_path / "d", make_data_dir, broken=["u9"])
    sample = sample_utterances([directory], hours=1, seed=0)
    collection = collection_of(sample, batch_seconds=1.0)
    work = tmp_path / "work"
    collect_frames(CountingEncoder(), collection, work)
    before = read_collection(work, collection, 1).digest
    changed = collection.batches[2][0].key
    touch(directory / "audio" / f"{changed}.wav", level=0.5)
    # what is not at hand is not changed
    hidden = directory / "audio" / f"{collection.batches[0][0].key}.wav"
    hidden.rename(directory / "hidden")
    with pytest.raises(SpireError, match=f"utterance {changed} has changed since job 1 of 1 read"):
        read_collection(work, collection, 1)
    encoder = CountingEncoder()
    collect_frames(encoder, collection, work)
    total = len(collection.batches)
    assert encoder.batches == total - 2
    assert f"utterance {changed} has changed" in caplog.text
    assert f"the last {total - 2} of {total} batches are collected again" in caplog.text
    (directory / "hidden").rename(hidden)
    counts, collected = levels_of(work, collection)
    n = int(changed[1:])
    assert counts.pop(500) == frames_of(n)
    assert counts == {m: frames_of(m) for m in range(9) if m != n}
    assert collected.digest != before
    # as if it had been so from the beginning
    collect_frames(CountingEncoder(), collection, tmp_path / "anew")
    for name in ("frames.1-of-1.bin", "frames.1-of-1.jsonl"):
        assert (work / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_mended_audio_that_changed_again(tmp_path, make_data_dir):
    directory = corpus_of(tmp_path / "d", make_data_dir, broken=["u3", "u6"])
    collection = collection_of(sample_utterances([directory], hours=1, seed=0), batch_seconds=0.6)
    for key in ("u3", "u6"):
        collect_frames(CountingEncoder(), collection, tmp_path / "w")
        mend(directory, key)
    collect_frames(CountingEncoder(), collection, tmp_path / "w")
    touch(directory / "audio" / "u3.wav", level=0.7)
    encoder = CountingEncoder()
    collect_frames(encoder, collection, tmp_path / "w")
    assert encoder.batches == 2  # u6 was appended after u3
    counts, _ = levels_of(tmp_path / "w", collection)
    assert counts.pop(700) == frames_of(3)
    assert counts == {n: frames_of(n) for n in range(10) if n != 3}


def test_audio_that_changes_while_it_is_read(tmp_path, make_data_dir, monkeypatch):
    directory = corpus_of(tmp_path / "d", make_data_dir)
    collection = collection_of(sample_utterances([directory], hours=1, seed=0))

    class Meddling(CountingEncoder):
        def __call__(self, batch):
            if any(round(1000 * samples[0]) == 5 for samples in batch):
                touch(directory / "audio" / "u5.wav")
            return super().__call__(batch)

    collect_frames(Meddling(), collection, tmp_path / "w", num_workers=0)
    with pytest.raises(SpireError, match="audio of utterance u5 has changed"):
        read_collection(tmp_path / "w", collection, 1)


def test_frames_of_another_sample_are_of_no_use(sample, tmp_path):
    collection = collection_of(sample)
    collect_frames(CountingEncoder(), collection, tmp_path)
    other = collection._replace(sample="another")
    with pytest.raises(SpireError, match="job 1 of 1 has not finished"):
        read_collection(tmp_path, other, 1)
    encoder = CountingEncoder()
    collect_frames(encoder, other, tmp_path)
    assert encoder.batches == len(collection.batches)
    read_collection(tmp_path, other, 1)
