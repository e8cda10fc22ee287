"""MLS: its tables are lhotse's, and each thing that is wrong with it is named."""

import pytest
from corpora import mls
from corpora.checks import prepare, rejected, run_prepare
from corpora.material import say

from espnet_spire.utils.errors import SpireError


@pytest.fixture
def root(tmp_path):
    return mls.build(tmp_path / "M L S")  # a path with spaces


def test_tables(root, tmp_path):
    tables = prepare("mls", root, "test", tmp_path / "out")
    folder = root / "mls_english/test/audio/10226/10111"
    assert tables == {
        "wav.scp": {
            "10226-10111-000000": f"{folder}/10226_10111_000000.flac",
            "10226-10111-000001": f"{folder}/10226_10111_000001.flac",
        },
        "text": {
            "10226-10111-000000": say(220)["en"].lower().rstrip("."),
            "10226-10111-000001": say(221)["en"].lower().rstrip("."),
        },
        "utt2spk": {"10226-10111-000000": "10226", "10226-10111-000001": "10226"},
        "spk2utt": {"10226": "10226-10111-000000 10226-10111-000001"},
    }


@pytest.mark.parametrize("audio", ["flac", "opus"])
def test_as_lhotse_reads_it(tmp_path, audio):
    from lhotse.recipes import prepare_mls

    root = mls.build(tmp_path / "mls", audio)
    found = prepare_mls(root, opus=audio == "opus")["english"]
    for split, count in (("train", 19), ("dev", 1), ("test", 2)):
        tables = prepare("mls", root, split, tmp_path / split)
        segments = {s.id.replace("_", "-"): s for s in found[split]["supervisions"]}
        recordings = {r.id.replace("_", "-"): r for r in found[split]["recordings"]}
        assert len(segments) == count
        assert tables["text"] == {key: segment.text for key, segment in segments.items()}
        assert tables["utt2spk"] == {key: segment.speaker for key, segment in segments.items()}
        assert tables["wav.scp"] == {key: r.sources[0].source for key, r in recordings.items()}


def test_sorted_by_speaker_too(root, tmp_path):
    tables = prepare("mls", root, "train", tmp_path / "out")
    speakers = list(tables["utt2spk"].values())
    assert speakers == sorted(speakers) and list(dict.fromkeys(speakers)) == ["10", "100", "4800"]


def test_the_paper_takes_13_a_speaker(root, tmp_path):
    tables = prepare("mls", root, "train", tmp_path / "out", "--rules", "max_per_speaker=13")
    counts = {speaker: len(keys.split()) for speaker, keys in tables["spk2utt"].items()}
    assert counts == {"10": 13, "100": 2, "4800": 2}
    left_out = (tmp_path / "out/left_out.tsv").read_text().splitlines()
    assert len(left_out) == 2 and all(line.startswith("10-1100-") for line in left_out)


def test_the_language_folder_itself(root, tmp_path):
    given = prepare("mls", root / "mls_english", "dev", tmp_path / "out")
    assert given == prepare("mls", root, "dev", tmp_path / "other")


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    folder = root / "mls_english/train"
    # the first of the table: the format is found all the same
    (folder / "audio/10/1100/10_1100_000000.flac").unlink()
    path = folder / "transcripts.txt"
    with open(path, "ab") as stream:
        stream.write(
            b"100_1200_000000\tagain\n100_1200_000007\ttext\twith a tab\n100_1200_000008\t"
        )
        stream.write(b"\n100_1200_000009 no tab\n100_1200_000010\t\xe9t\xe9\nabout\tnothing\n")
    tables = prepare("mls", root, "train", tmp_path / "out", "--max_rejected", "1")
    assert len(tables["text"]) == 18
    missing = f"{folder}/audio/10/1100/10_1100_000000.flac"
    assert rejected(tmp_path / "out") == {
        "10-1100-000000": f"{missing}: no such audio file ({path}, line 1)",
        "100-1200-000000": f"is there already: {path}, line 16 ({path}, line 20)",
        "transcripts.txt:21": f"3 columns where 2 were expected ({path}, line 21)",
        "100-1200-000008": f"empty transcript ({path}, line 22)",
        "transcripts.txt:23": f"1 columns where 2 were expected ({path}, line 23)",
        "transcripts.txt:24": f"not valid UTF-8 (invalid continuation byte) ({path}, line 24)",
        "transcripts.txt:25": f"'about' is no utterance ({path}, line 25)",
    }


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    path = root / "mls_english/test/transcripts.txt"
    with open(path, "ab") as stream:
        stream.write(b"10226_10111_000002\t\xff\n")
    done = run_prepare("mls", root, "test", tmp_path / "out", "--max_rejected", "1")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert error.startswith("error: mls test: 1 of 3 utterances are unusable, first transcripts")
    assert f"not valid UTF-8 (invalid start byte) ({path}, line 3)" in error


def test_no_audio_at_all(root, tmp_path):
    for path in root.rglob("*.flac"):
        path.unlink()
    with pytest.raises(SpireError, match="mls dev: 1 of 1 .* are unusable.* no such audio file"):
        prepare("mls", root, "dev", tmp_path / "out")


def test_a_split_that_is_not_there(root, tmp_path):
    error = r"no train/transcripts.txt there, nor in its mls_english\[_opus\]/"
    with pytest.raises(SpireError, match=error):
        prepare("mls", root / "mls_english/dev", "train", tmp_path / "out")
