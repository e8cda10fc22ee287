"""LibriSpeech: its tables are lhotse's, and each thing that is wrong with it is named."""

import pytest
from corpora import librispeech
from corpora.checks import prepare, rejected, run_prepare


@pytest.fixture
def root(tmp_path):
    return librispeech.build(tmp_path / "Libri Speech")  # a path with a space


def test_tables(root, tmp_path):
    tables = prepare("librispeech", root, "test-clean", tmp_path / "out")
    folder = root / "LibriSpeech/test-clean"
    assert tables["wav.scp"] == {
        "1089-134686-0000": f"{folder}/1089/134686/1089-134686-0000.flac",
        "1089-134686-0001": f"{folder}/1089/134686/1089-134686-0001.flac",
        "121-121726-0000": f"{folder}/121/121726/121-121726-0000.flac",
    }
    assert tables["utt2spk"] == {
        "1089-134686-0000": "1089",
        "1089-134686-0001": "1089",
        "121-121726-0000": "121",
    }
    assert tables["spk2utt"] == {
        "1089": "1089-134686-0000 1089-134686-0001",
        "121": "121-121726-0000",
    }
    assert tables["text"]["1089-134686-0000"].isupper()


def test_as_lhotse_reads_it(root, tmp_path):
    from lhotse.recipes import prepare_librispeech

    found = prepare_librispeech(root / "LibriSpeech", dataset_parts=["train-clean-100"])
    found = found["train-clean-100"]
    tables = prepare("librispeech", root, "train-clean-100", tmp_path / "out")
    texts = {segment.id: segment.text for segment in found["supervisions"]}
    speakers = {segment.id: segment.speaker for segment in found["supervisions"]}
    audio = {recording.id: recording.sources[0].source for recording in found["recordings"]}
    assert len(texts) == 2
    assert (tables["text"], tables["utt2spk"], tables["wav.scp"]) == (texts, speakers, audio)


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    folder = root / "LibriSpeech/train-clean-100/103/1240"
    (folder / "103-1240-0001.flac").unlink()
    with open(folder / "103-1240.trans.txt", "ab") as stream:
        stream.write(b"103-1240-0000 AGAIN\n103-1240-0002\n103-1240-0003 \xff\nnothing of it\n")
    (folder / "103-1240-0002.flac").write_bytes(b"x")
    tables = prepare(
        "librispeech", root, "train-clean-100", tmp_path / "out", "--max_rejected", "1"
    )
    assert list(tables["text"]) == ["103-1240-0000"]
    path = folder / "103-1240.trans.txt"
    assert rejected(tmp_path / "out") == {
        "103-1240-0000": f"is there already: {path}, line 1 ({path}, line 3)",
        "103-1240-0001": f"{folder}/103-1240-0001.flac: no such audio file ({path}, line 2)",
        "103-1240-0002": f"empty transcript ({path}, line 4)",
        "103-1240.trans.txt:5": f"not valid UTF-8 (invalid start byte) ({path}, line 5)",
        "103-1240.trans.txt:6": f"'nothing' is no utterance ({path}, line 6)",
    }


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    (root / "LibriSpeech/test-clean/121/121726/121-121726-0000.flac").unlink()
    done = run_prepare("librispeech", root, "test-clean", tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: librispeech test-clean: 1 of 3 utterances are unusable")
    assert "121-121726-0000.flac: no such audio file" in error
    assert (tmp_path / "out.rejected.tsv").exists()


def test_a_split_that_is_not_there(root, tmp_path):
    error = run_prepare("librispeech", root, "dev-other", tmp_path / "out").stderr.splitlines()[-1]
    assert error.startswith("error:") and "dev-other: no <speaker>/<chapter>/*.trans.txt" in error
