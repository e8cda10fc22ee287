"""CommonVoice: lhotse's speakers, texts and clips; each thing that is wrong with it is named."""

import json
import shutil

import pytest
import soundfile
from corpora import commonvoice
from corpora.checks import error_of, prepare, rejected
from corpora.commonvoice import CLIPS, client, clip, row, sentence
from corpora.material import say


@pytest.fixture
def root(tmp_path):
    return commonvoice.build(tmp_path / "Common Voice")  # a path with a space


def key(speaker, number):
    return f"{client(speaker)}-common_voice_en_{number}"


def table(clips, value):
    return {key(speaker, number): value(speaker, number, text) for speaker, number, text in clips}


def test_tables(root, tmp_path):
    tables = prepare("commonvoice", root, "train", tmp_path / "out")
    clips = CLIPS["train"]
    assert tables.pop("wav.scp") == table(clips, lambda _, n, __: f"{root}/en/clips/{clip(n)}")
    assert tables.pop("text") == table(clips, lambda _, __, text: sentence(text))
    assert tables.pop("utt2spk") == table(clips, lambda speaker, *_: client(speaker))
    assert tables.pop("spk2utt")[client(1)] == f"{key(1, 100)} {key(1, 101)}"
    assert not tables
    # cased, punctuated, quotation marks as they are
    text = prepare("commonvoice", root / "en", "test", tmp_path / "test")["text"]
    assert text == {key(8, 300): "It's \"quoted\", isn't it?", key(9, 301): say(15)["en"]}


def test_as_lhotse_reads_it(root, tmp_path):
    from lhotse.recipes import prepare_commonvoice

    found = prepare_commonvoice(root, tmp_path / "lhotse", languages=["en"], splits=["train"])
    found = found["en"]["train"]
    tables = prepare("commonvoice", root, "train", tmp_path / "out")
    keys = {segment.id: f"{segment.speaker}-{segment.id}" for segment in found["supervisions"]}
    assert len(keys) == 6
    assert tables["text"] == {keys[s.id]: s.text for s in found["supervisions"]}
    assert tables["utt2spk"] == {keys[s.id]: s.speaker for s in found["supervisions"]}
    assert tables["wav.scp"] == {keys[r.id]: r.sources[0].source for r in found["recordings"]}


def test_lengths_are_the_files_durations(root, tmp_path):
    prepare("commonvoice", root, "train", tmp_path / "out")
    frames = [soundfile.info(root / "en/clips" / clip(n)) for _, n, _ in CLIPS["train"]]
    hours = sum(info.frames / info.samplerate for info in frames) / 3600
    (step,) = json.loads((tmp_path / "out/preparation.json").read_text())["steps"]
    assert step["utterances"] == 6 and step["hours"] == pytest.approx(hours, abs=1e-4)


def test_the_papers_rules(root, tmp_path):
    """Five speakers read sentence 10; one clip is below three seconds by its duration, not by its
    audio; the clip without a duration is asked for its header."""
    path = root / "en/clip_durations.tsv"
    lengths = {clip(n): 4000 for _, n, _ in CLIPS["train"]}
    lengths[clip(101)] = 2999
    lengths[clip(105)] = 3000
    del lengths[clip(100)]
    rows = [f"{name}\t{value}\n" for name, value in lengths.items()]
    path.write_text("clip\tduration[ms]\n" + "".join(rows))
    rules = ["--rules", "min_seconds=3", "max_speakers_per_transcript=2", "--seed", "5"]
    tables = prepare("commonvoice", root, "train", tmp_path / "out", *rules)
    lines = (tmp_path / "out/left_out.tsv").read_text().splitlines()
    left_out = dict(line.split("\t") for line in lines)
    info = soundfile.info(root / "en/clips" / clip(100))
    assert info.frames / info.samplerate < 3
    assert left_out.pop(key(1, 101)) == "2.999 s is shorter than 3 s"
    assert left_out.pop(key(1, 100)).endswith(" s is shorter than 3 s")
    assert set(left_out.values()) == {"2 other speakers read this transcript"}
    four = {key(2, 102), key(3, 103), key(4, 104), key(5, 105)}
    assert len(tables["text"]) == 2 and set(tables["text"]) | set(left_out) == four
    steps = json.loads((tmp_path / "out/preparation.json").read_text())["steps"]
    assert [(step["step"], step["utterances"]) for step in steps] == [
        ("read", 6),
        ("at least 3 s", 4),
        ("at most 2 speakers a transcript", 2),
    ]


def test_older_releases(tmp_path):
    """Other columns, no durations, and file names without their ending."""
    folder = tmp_path / "cv-corpus-3" / "en"
    commonvoice.write_split(folder, "train", CLIPS["train"], commonvoice.OLD_COLUMNS)
    text = (folder / "train.tsv").read_text().replace(".mp3", "")
    (folder / "train.tsv").write_text(text)
    tables = prepare("commonvoice", tmp_path / "cv-corpus-3", "train", tmp_path / "out")
    assert tables["text"] == table(CLIPS["train"], lambda _, __, text: sentence(text))
    assert tables["wav.scp"][key(2, 102)] == f"{folder}/clips/{clip(102)}"
    (step,) = json.loads((tmp_path / "out/preparation.json").read_text())["steps"]
    assert step["hours"] is None


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    (root / "en/clips" / clip(102)).unlink()
    path = root / "en/train.tsv"
    rows = [
        row(commonvoice.COLUMNS, 1, 100, "Again."),
        row(commonvoice.COLUMNS, 7, 103, "  "),
        row(commonvoice.COLUMNS, 7, 104, "A tab\there."),
    ]
    no_speaker = row(commonvoice.COLUMNS, 7, 105, "Who?").replace(client(7), "")
    with open(path, "ab") as stream:
        stream.write("".join(f"{line}\n" for line in [*rows, no_speaker]).encode())
        stream.write(row(commonvoice.COLUMNS, 7, 105, "Caf").encode() + b"\xe9\n")
    with open(root / "en/clip_durations.tsv", "a") as stream:
        stream.write("common_voice_en_9.mp3\tlong\n")
    tables = prepare("commonvoice", root, "train", tmp_path / "out", "--max_rejected", "1")
    assert len(tables["text"]) == 5 and key(2, 102) not in tables["text"]
    durations = root / "en/clip_durations.tsv"
    last = len(durations.read_text().splitlines())
    assert rejected(tmp_path / "out") == {
        key(1, 100): f"is there already: {path}, line 2 ({path}, line 8)",
        key(2, 102): f"{root}/en/clips/{clip(102)}: no such audio file ({path}, line 4)",
        key(7, 103): f"empty transcript ({path}, line 9)",
        "train.tsv:10": f"14 columns where 13 were expected ({path}, line 10)",
        "-common_voice_en_105": f"speaker '' is no single word ({path}, line 11)",
        "train.tsv:12": f"not valid UTF-8 (invalid continuation byte) ({path}, line 12)",
        f"clip_durations.tsv:{last}": "duration 'long' is no number of milliseconds"
        f" ({durations}, line {last})",
    }


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    (root / "en/clips" / clip(301)).unlink()
    error = error_of("commonvoice", root, "test", tmp_path / "out")
    assert error.startswith("commonvoice test: 1 of 2 utterances are unusable")
    assert f"{clip(301)}: no such audio file" in error


def test_what_is_not_there(root, tmp_path):
    shutil.rmtree(root / "en/clips")
    (root / "en/train.tsv").write_text("client_id\tsentence\n")
    error = error_of("commonvoice", root, "train", tmp_path / "out")
    assert f"{root}/en/train.tsv, line 1: no column 'path'" in error
    error = error_of("commonvoice", root, "invalidated", tmp_path / "out")
    assert "neither en/invalidated.tsv nor invalidated.tsv is there; unpack" in error
