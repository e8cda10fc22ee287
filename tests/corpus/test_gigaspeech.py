"""GigaSpeech: its tables are lhotse's, and each thing that is wrong with it is named."""

import json

import pytest
from corpora import gigaspeech
from corpora.checks import prepare, rejected, run_prepare
from corpora.material import say

from espnet_spire.corpus.gigaspeech import CORPUS
from espnet_spire.corpus.rules import gigaspeech_text
from espnet_spire.units.audio import load_audio, utterance_sources
from espnet_spire.utils.datadir import read_rejected
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def root(tmp_path):
    return gigaspeech.build(tmp_path / "Giga Speech")  # a path with a space


def edit(root, change):
    """Change the metadata by a function that is given its recordings."""
    path = root / "GigaSpeech.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    change(metadata["audios"])
    path.write_text(json.dumps(metadata, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def test_tables(root, tmp_path):
    tables = prepare("gigaspeech", root, "XL", tmp_path / "out")
    audio, metadata = root / "audio", json.loads((root / "GigaSpeech.json").read_text())
    assert tables["wav.scp"] == {
        "AUD0000000003": f"{audio}/audiobook/A0001/AUD0000000003.opus",
        "POD0000000001": f"{audio}/podcast/P0001/POD0000000001.opus",
    }
    third = metadata["audios"][0]["segments"][2]
    keys = [f"POD0000000001_S000000{place}" for place in (0, 2, 3)]
    assert list(tables["text"]) == ["AUD0000000003_S0000002", *keys]
    times = f"{third['begin_time']:.3f} {third['end_time']:.3f}"
    assert tables["segments"][keys[1]] == f"POD0000000001 {times}"
    assert tables["spk2utt"] == {
        "AUD0000000003": "AUD0000000003_S0000002",
        "POD0000000001": " ".join(keys),
    }
    first, second, *rest = say(301)["en"].lower().rstrip(".").split()
    assert tables["text"][keys[1]] == f"{first} {second}, {' '.join(rest)}."


@pytest.mark.parametrize(
    "split, count, marked", [("XL", 4, 1), ("L", 2, 1), ("XS", 1, 0), ("DEV", 2, 2), ("TEST", 1, 1)]
)
def test_subsets_as_lhotse_reads_them(root, tmp_path, split, count, marked):
    from lhotse.recipes import prepare_gigaspeech

    found = prepare_gigaspeech(root, tmp_path / "lhotse", dataset_parts=[split])[split]
    recordings = {recording.id: recording for recording in found["recordings"]}
    spoken = [s for s in found["supervisions"] if not s.text.startswith(("<SIL>", "<MUSIC>"))]
    spoken = [s for s in spoken if not s.text.startswith(("<NOISE>", "<OTHER>"))]
    tables = prepare("gigaspeech", root, split, tmp_path / "out")
    assert len(spoken) == count
    assert tables["text"] == {s.id: gigaspeech_text(s.text) for s in spoken}
    assert tables["segments"] == {
        s.id: f"{s.recording_id} {s.start:.3f} {s.end:.3f}" for s in spoken
    }
    names = {s.recording_id for s in spoken}
    assert tables["wav.scp"] == {name: recordings[name].sources[0].source for name in names}
    # lhotse's speakers are the corpus's, who are "N/A"
    assert tables["utt2spk"] == {s.id: s.recording_id for s in spoken}
    assert read_rejected(tmp_path / "out/rejected.tsv") == {}
    report = json.loads((tmp_path / "out/preparation.json").read_text())
    assert (report["read"], report["marked_by_corpus"]) == (count, marked)


def test_what_is_no_speech_is_listed(root, tmp_path):
    done = run_prepare("gigaspeech", root, "DEV", tmp_path / "out")
    assert done.returncode == 0 and "gigaspeech DEV: 2 more are no speech" in done.stderr
    path = root / "GigaSpeech.json"
    assert read_rejected(tmp_path / "out/left_out.tsv") == {
        "YOU0000000002_S0000001": f"is no speech: <NOISE> ({path}, audios[1].segments[1])",
        "YOU0000000002_S0000002": f"is no speech: <SIL> ({path}, audios[1].segments[2])",
    }


def test_segments_are_what_is_said(root, tmp_path):
    prepare("gigaspeech", root, "DEV", tmp_path / "out")
    sources = utterance_sources(tmp_path / "out")
    assert list(sources) == ["YOU0000000002_S0000000", "YOU0000000002_S0000003"]
    for source, number in zip(sources.values(), (303, 304), strict=True):
        samples, said = load_audio(source), gigaspeech.speech(number, 1)
        assert abs(len(samples) - len(said)) <= 16
        length = min(len(samples), len(said))
        # Opus is near in loudness over time, not in samples
        blocks = [
            (abs(x[:length])[: length // 800 * 800]).reshape(-1, 800) for x in (samples, said)
        ]
        energies = [block.mean(axis=1) for block in blocks]
        assert abs(energies[0] - energies[1]).mean() < 0.2 * energies[1].mean()


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    def spoil(audios):
        pod, _, book = audios
        segments = pod["segments"]
        segments[0]["text_tn"] = " <COMMA> "
        segments[2]["sid"] = segments[3]["sid"]
        segments.append({**segments[3], "sid": "POD0000000001_S0000009", "text_tn": "A\tTAB"})
        del segments[3]["begin_time"]
        segments.append({**segments[2], "sid": "POD0000000001_S0000005", "end_time": "late"})
        segments.append({**segments[2], "sid": "POD0000000001_S0000006", "end_time": 0.5})
        segments.append({**segments[2], "sid": "POD0000000001_S0000007", "text_tn": None})
        segments.append({**segments[2], "sid": "a b"})
        segments.append({**segments[2]})
        segments.append("none")
        audios.append({"aid": "POD0000000004", "segments": []})
        (root / book["path"]).unlink()

    path = edit(root, spoil)
    begin = json.loads(path.read_text())["audios"][0]["segments"][2]["begin_time"]
    tables = prepare("gigaspeech", root, "XL", tmp_path / "out", "--max_rejected", "1")
    assert tables["text"]["POD0000000001_S0000009"] == "a tab"
    assert list(tables["text"]) == ["POD0000000001_S0000003", "POD0000000001_S0000009"]
    where = f"{path}, audios[0].segments"
    missing = f"{root}/audio/audiobook/A0001/AUD0000000003.opus"
    assert rejected(tmp_path / "out") == {
        "POD0000000001_S0000000": f"empty transcript ({where}[0])",
        "GigaSpeech.json:audios[0].segments[3]": f"has no 'begin_time' ({where}[3])",
        "GigaSpeech.json:audios[0].segments[5]": "is not as it should be: could not convert string"
        f" to float: 'late' ({where}[5])",
        "POD0000000001_S0000006": f"{begin} s to 0.5 s is no part of a recording ({where}[6])",
        "GigaSpeech.json:audios[0].segments[7]": "is not as it should be: 'NoneType' object has no"
        f" attribute 'upper' ({where}[7])",
        "a b": f"key 'a b' has white space or a slash, or is empty ({where}[8])",
        "POD0000000001_S0000003": f"is there already: {where}[2] ({where}[9])",
        "GigaSpeech.json:audios[0].segments[10]": "is not as it should be: string indices must be"
        f" integers, not 'str' ({where}[10])",
        "GigaSpeech.json:audios[3]": f"has no 'path' ({path}, audios[3])",
        "AUD0000000003_S0000002": f"{missing}: no such audio file ({path}, audios[2].segments[2])",
    }


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    def spoil(audios):
        (root / audios[2]["path"]).unlink()

    edit(root, spoil)
    with pytest.raises(SpireError, match="^gigaspeech TEST: 1 of 1 .* are unusable, first AUD"):
        prepare("gigaspeech", root, "TEST", tmp_path / "out", "--max_rejected", "1")
    assert not (tmp_path / "out").exists()


def test_json_that_was_cut_off(root, tmp_path):
    path = root / "GigaSpeech.json"
    path.write_bytes(path.read_bytes()[:-200])
    done = run_prepare("gigaspeech", root, "XL", tmp_path / "out", "--max_rejected", "1")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert error.startswith(f"error: {path}: cut off or damaged JSON (")
    assert error.endswith("; download it again")


def test_json_that_is_not_utf8(root, tmp_path):
    path = root / "GigaSpeech.json"
    lines = path.read_bytes().split(b"\n")
    number = next(n for n, line in enumerate(lines, 1) if b'"AUD0000000003_S0000002"' in line)
    lines[number - 1] = lines[number - 1].replace(b"AUD", b"\xc4UD")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(SpireError) as caught:
        prepare("gigaspeech", root, "DEV", tmp_path / "out")
    assert str(caught.value) == f"{path}, line {number}: not valid UTF-8; mend the file"


@pytest.mark.parametrize("text", ["{}", '{"audios": []}', "[]"])
def test_json_without_recordings(root, tmp_path, text):
    (root / "GigaSpeech.json").write_text(text)
    with pytest.raises(SpireError, match="GigaSpeech.json: has no 'audios'$"):
        prepare("gigaspeech", root, "XL", tmp_path / "out")


def test_recordings_are_read_one_at_a_time(root):
    def many(audios):
        # some megabytes, as much as the parser may read ahead and more
        audios[:] = [{**audios[0], "title": "No title" * 100}] * 1000

    path = edit(root, many)
    assert path.stat().st_size > 2_000_000
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    items = CORPUS.read(root, "XS", [])
    # they come, though the second half is not there
    assert [next(items).key for _ in range(400)] == ["POD0000000001_S0000000"] * 400
    with pytest.raises(SpireError, match="cut off or damaged JSON"):
        list(items)
