"""SPGISpeech: its tables are lhotse's, and each thing that is wrong with it is named."""

import json
import re

import pytest
import soundfile
from corpora import spgispeech
from corpora.checks import prepare, rejected, run_prepare
from corpora.material import say

from espnet_spire.utils.errors import SpireError

CALL, OTHER = "07a785e9237c389c1354bb60abca42d5", "13aa6c0669adb5544a0d62beef677189"


@pytest.fixture
def root(tmp_path):
    return spgispeech.build(tmp_path / "SPGI Speech")  # a path with a space


def test_tables(root, tmp_path):
    tables = prepare("spgispeech", root, "train", tmp_path / "out")
    folder = root / "spgispeech/train"
    assert tables["wav.scp"] == {
        f"{CALL}-1": f"{folder}/{CALL}/1.wav",
        f"{CALL}-10": f"{folder}/{CALL}/10.wav",
        f"{CALL}-2": f"{folder}/{CALL}/2.wav",
        f"{OTHER}-75": f"{folder}/{OTHER}/75.wav",
    }
    assert tables["spk2utt"] == {
        CALL: f"{CALL}-1 {CALL}-10 {CALL}-2",
        OTHER: f"{OTHER}-75",
    }
    # with casing and punctuation
    assert tables["text"][f"{CALL}-10"] == say(102)["en"]
    assert tables["text"][f"{CALL}-10"] != say(102)["en"].lower().rstrip(".")


def test_as_lhotse_reads_it(root, tmp_path):
    from lhotse.recipes import prepare_spgispeech

    found = prepare_spgispeech(root, tmp_path / "lhotse", normalize_text=False)
    for split, count in (("train", 4), ("val", 2)):
        tables = prepare("spgispeech", root, split, tmp_path / split)
        segments = {s.id.replace("_", "-"): s for s in found[split]["supervisions"]}
        recordings = {r.id.replace("_", "-"): r for r in found[split]["recordings"]}
        assert len(segments) == count
        assert tables["text"] == {key: segment.text for key, segment in segments.items()}
        assert tables["utt2spk"] == {key: segment.speaker for key, segment in segments.items()}
        assert tables["wav.scp"] == {key: r.sources[0].source for key, r in recordings.items()}


def test_tables_and_audio_in_one_folder(root, tmp_path):
    for split in ("train", "val"):
        (root / f"{split}.csv").rename(root / "spgispeech" / f"{split}.csv")
    below = prepare("spgispeech", root, "train", tmp_path / "out")
    inside = prepare("spgispeech", root / "spgispeech", "train", tmp_path / "inside")
    assert len(below["text"]) == 4 and inside == below


def test_hours_come_from_the_sizes_of_files(root, tmp_path):
    prepare("spgispeech", root, "train", tmp_path / "out")
    files = (root / "spgispeech/train").rglob("*.wav")
    seconds = sum(soundfile.info(file).duration for file in files)
    report = json.loads((tmp_path / "out/preparation.json").read_text())
    assert report["steps"][0]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert seconds > 5


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    (root / f"spgispeech/train/{CALL}/10.wav").unlink()
    table = root / "train.csv"
    with open(table, "ab") as stream:
        stream.write(f"{CALL}/1.wav|1000|Again.\n{CALL}/2.wav|1000|a | b\n".encode())
        stream.write(f"{OTHER}/75.wav|1000\n{OTHER}/76.wav|1000|\n".encode())
        stream.write(f"{OTHER}/77.wav|1000|\xff\n".encode("latin-1"))
        stream.write(b"75.wav|1000|Of no call.\nsome call/1.wav|1000|Of two words.\n")
        stream.write(f"{OTHER}/78.wav|many|With\ta tab.\n".encode())
    (root / f"spgispeech/train/{OTHER}/78.wav").write_bytes(b"RIFF")
    tables = prepare("spgispeech", root, "train", tmp_path / "out", "--max_rejected", "1")
    assert list(tables["text"]) == [f"{CALL}-1", f"{CALL}-2", f"{OTHER}-75", f"{OTHER}-78"]
    assert tables["text"][f"{OTHER}-78"] == "With a tab."
    missing = f"{root}/spgispeech/train/{CALL}/10.wav"
    assert rejected(tmp_path / "out") == {
        f"{CALL}-10": f"{missing}: no such audio file ({table}, line 4)",
        f"{CALL}-1": f"is there already: {table}, line 2 ({table}, line 6)",
        "train.csv:7": f"4 columns where 3 were expected ({table}, line 7)",
        "train.csv:8": f"2 columns where 3 were expected ({table}, line 8)",
        f"{OTHER}-76": f"empty transcript ({table}, line 9)",
        "train.csv:10": f"not valid UTF-8 (invalid start byte) ({table}, line 10)",
        "train.csv:11": f"'75.wav' is no <call>/<n>.wav ({table}, line 11)",
        "some call-1": "key 'some call-1' has white space or a slash, or is empty"
        f" ({table}, line 12)",
    }


def test_too_much_is_wrong(root, tmp_path):
    (root / f"spgispeech/train/{CALL}/10.wav").unlink()
    with pytest.raises(SpireError, match="^spgispeech train: 1 of 4 utterances are unusable"):
        prepare("spgispeech", root, "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    with open(root / "val.csv", "a") as stream:
        stream.write("0018ad922e541b415ae60e175160b976/118.wav|1000|Again.\n")
    done = run_prepare("spgispeech", root, "val", tmp_path / "out", "--max_rejected", "1")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert error.startswith("error: spgispeech val: 1 of 3 utterances are unusable, first ")
    assert f"is there already: {root}/val.csv, line 2 ({root}/val.csv, line 4)" in error


@pytest.mark.parametrize(
    "text, error",
    [
        ("", "train.csv: the file is empty"),
        ("a/1.wav|1|Hello.\n", "line 1: no column 'wav_filename' (there are a/1.wav, 1, Hello.)"),
        (None, "no train.csv there, nor in its spgispeech/"),
    ],
)
def test_tables_that_are_none(root, tmp_path, text, error):
    (root / "train.csv").unlink()
    if text is not None:
        (root / "train.csv").write_text(text)
    with pytest.raises(SpireError, match=re.escape(error)):
        prepare("spgispeech", root, "train", tmp_path / "out")
