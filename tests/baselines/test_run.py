"""Decoding of test sets with baselines: layout, order, shards, kills, what cannot be decoded."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from espnet_spire.baselines.run import decode
from espnet_spire.baselines.systems import OF_TEXT, Said, System
from espnet_spire.bin import baseline_inference, score
from espnet_spire.decode.results import merge
from espnet_spire.score.layout import scored
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.datadir import read_rejected, read_table, write_table
from espnet_spire.utils.errors import SpireError

NAMES = ("st_cascade.en-de", "asr.en-en", "mt.de-en", "st.en-de")
JOBS = [parse_job(name) for name in NAMES]
GERMAN = {f"u{i}": f"Satz Nummer {i}" for i in range(7)}


class Recorder(System):
    """Says how much audio there was, or the text backwards; keeps the sizes it was given."""

    title = "Recorder"
    tasks = ("asr", "st", *OF_TEXT)

    def __init__(self, fails_after=None):
        self.batches, self.fails_after = [], fails_after

    def why_unusable(self, samples):
        return "it is silent" if not samples.any() else None

    def answer(self, job, batch):
        if self.fails_after is not None and len(self.batches) >= self.fails_after:
            raise KeyboardInterrupt
        self.batches.append((job.name, [len(one) for one in batch]))
        if job.task in OF_TEXT:
            return [Said(one[::-1]) for one in batch]
        return [Said(f"{len(one)} samples", 9 if len(one) == 8000 else None) for one in batch]


@pytest.fixture
def data(tmp_path, make_data_dir, make_audio):
    lengths = [0.5, 0.2, 0.4, 0.3, 0.25, 0.6, 0.35]
    audio = {f"u{i}": make_audio(seconds, i) for i, seconds in enumerate(lengths)}
    audio["u4"] = np.zeros(4000, np.float32)
    data = make_data_dir(tmp_path / "test", audio)
    write_table(data / "text.tc.de", {k: v for k, v in GERMAN.items() if k != "u6"})
    with open(data / "audio/u3.wav", "r+b") as stream:
        stream.truncate(60)
    return data


def files(out):
    paths = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_tables(tmp_path, data):
    system = Recorder()
    decode(lambda: system, JOBS, data_dir=data, out=tmp_path / "out", batch_seconds=1.0)
    asr, cascade = tmp_path / "out/asr.en-en", tmp_path / "out/st_cascade.en-de"
    said = read_table(asr / "text", allow_empty_value=True)
    assert list(said) == [f"u{i}" for i in range(7)]  # the set's order, not that of lengths
    assert said == {
        **{"u0": "8000 samples", "u1": "3200 samples", "u2": "6400 samples", "u3": ""},
        **{"u4": "", "u5": "9600 samples", "u6": "5600 samples"},
    }
    rejected = read_rejected(asr / "rejected.tsv")
    assert rejected.keys() == {"u3", "u4"} and rejected["u4"] == "it is silent"
    assert "u3.wav" in rejected["u3"]
    assert read_table(asr / "cut") == {"u0": "9"}
    # Short ones first, at most a second of padded audio together; u4 had a place in the first.
    assert [sizes for name, sizes in system.batches if name == "asr.en-en"] == [
        *([3200], [5600, 6400], [8000], [9600])
    ]
    # The cascade reads what asr wrote, of the utterances that have a reference.
    assert read_table(cascade / "text", allow_empty_value=True) == {
        key: text[::-1] for key, text in said.items() if key != "u6"
    }
    assert read_rejected(cascade / "rejected.tsv") == rejected
    assert read_table(tmp_path / "out/mt.de-en/text")["u2"] == "2 remmuN ztaS"
    assert "u6" not in read_table(tmp_path / "out/st.en-de/text", allow_empty_value=True)


def test_nothing_said_is_not_translated(tmp_path, data):
    system = Recorder()
    (tmp_path / "out/asr.en-en").mkdir(parents=True)
    transcripts = {f"u{i}": "" if i % 2 else f"x{i}" for i in range(7)}
    write_table(tmp_path / "out/asr.en-en/text", transcripts)
    decode(lambda: system, JOBS[:1], data_dir=data, out=tmp_path / "out")
    assert system.batches == [("st_cascade.en-de", [2, 2, 2])]
    found = read_table(tmp_path / "out/st_cascade.en-de/text", allow_empty_value=True)
    assert found == {k: v[::-1] for k, v in transcripts.items() if k != "u6"}


def test_three_shards_merged_equal_one(tmp_path, data):
    decode(Recorder, JOBS, data_dir=data, out=tmp_path / "one")
    for shard in (3, 1, 2):
        decode(Recorder, JOBS, data_dir=data, out=tmp_path / "three", num_shards=3, shard=shard)
    merge(JOBS, data_dir=data, out=tmp_path / "three", num_shards=3)
    one, three = files(tmp_path / "one"), files(tmp_path / "three")
    assert one == three and len(one) == 3 * len(JOBS)


def test_an_interrupted_job_goes_on(tmp_path, data):
    options = {"data_dir": data, "out": tmp_path / "out", "batch_seconds": 0.5}
    decode(Recorder, JOBS, **{**options, "out": tmp_path / "one"})
    with pytest.raises(KeyboardInterrupt):
        decode(lambda: Recorder(fails_after=2), JOBS, **options, identity="a")
    again = Recorder()
    decode(lambda: again, JOBS, **options, identity="a")
    asked = sum((sizes for name, sizes in again.batches if name == "asr.en-en"), [])
    assert sorted(asked) == [6400, 8000, 9600]  # 3200 and 5600 were there
    assert files(tmp_path / "out") == files(tmp_path / "one")
    third = Recorder()
    decode(lambda: third, JOBS, **options, identity="a")
    assert third.batches == []


def test_answers_of_others_are_not_used(tmp_path, data):
    options = {"data_dir": data, "out": tmp_path / "out", "batch_seconds": 0.5}
    with pytest.raises(KeyboardInterrupt):
        decode(lambda: Recorder(fails_after=2), JOBS[1:2], **options, identity="a")
    # Audio that was mended or replaced is heard again.
    stat = (data / "audio/u1.wav").stat()
    os.utime(data / "audio/u1.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    again = Recorder()
    decode(lambda: again, JOBS[1:2], **options, identity="a")
    asked = sum((sizes for _, sizes in again.batches), [])
    assert 3200 in asked and 5600 not in asked
    (tmp_path / "out/asr.en-en/text").unlink()
    other = Recorder()
    decode(lambda: other, JOBS[1:2], **options, identity="b")
    assert sorted(sum((sizes for _, sizes in other.batches), [])) == [3200, 5600, 6400, 8000, 9600]


def test_refused(tmp_path, data):
    with pytest.raises(SpireError, match="job asr.de-de: the speech is in en"):
        decode(Recorder, [parse_job("asr.de-de")], data_dir=data, out=tmp_path / "out")
    with pytest.raises(SpireError, match="ner.en-en: Recorder is for asr, st, mt, st_cascade"):
        decode(Recorder, [*JOBS, parse_job("ner.en-en")], data_dir=data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpireError, match="st_cascade needs asr decoded"):
        decode(Recorder, JOBS[:1], data_dir=data, out=tmp_path / "out")


@pytest.mark.parametrize("system", ["whisper", "seamless_m4t"])
def test_commands(tmp_path, data, whisper_dir, seamless_dir, system):
    """From the command line to scores under the system's own name; batches are no matter."""
    model = whisper_dir if system == "whisper" else seamless_dir
    jobs = NAMES if system == "seamless_m4t" else ["asr.en-en"]
    common = ["--system", system, "--model", model, "--data_dir", str(data), "--jobs", *jobs]
    common += ["--max_new_tokens", "6", "--device", "cpu"]
    out = tmp_path / f"exp/baseline_{system}/greedy/test"
    baseline_inference.main([*common, "--out", str(out)])
    baseline_inference.main(
        [*common, "--out", str(tmp_path / "alone"), "--batch_seconds", "0.1"]
        + ["--batch_characters", "1"]
    )
    assert files(out) == files(tmp_path / "alone") and len(files(out)) == 3 * len(jobs)
    score.main(["--decode_dir", str(out), "--data_dir", str(data)])
    found = scored(tmp_path / "exp")
    assert {entry.run.system for entry in found} == {system}
    assert {entry.job.name for entry in found} == set(jobs)


def test_killed_at_random_the_same_comes_out(tmp_path, data, whisper_dir):
    command = [sys.executable, "-m", "espnet_spire.bin.baseline_inference", "--system", "whisper"]
    command += ["--model", whisper_dir, "--data_dir", str(data), "--jobs", "asr.en-en"]
    command += ["--max_new_tokens", "30", "--batch_seconds", "0.1", "--device", "cpu", "--out"]
    subprocess.run([*command, str(tmp_path / "one")], check=True, capture_output=True)
    out = tmp_path / "two"
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL)
    while not list(out.glob("asr.en-en/.answers/*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert files(out) == files(tmp_path / "one")
