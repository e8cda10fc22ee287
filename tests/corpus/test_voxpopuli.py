"""VoxPopuli: both layouts, as lhotse reads them, and each thing that is wrong is named."""

import gzip

import pytest
from corpora import voxpopuli
from corpora.checks import prepare, rejected, run_prepare
from corpora.material import say

from espnet_spire.units.audio import load_audio, utterance_sources
from espnet_spire.utils.errors import SpireError

PLENARY = "20130114-0900-PLENARY"
KEYS = [
    f"{PLENARY}-1-en_20130114-17:12:00_0",
    f"{PLENARY}-1-en_20130114-17:12:01_1",
    f"{PLENARY}-13-en_20130114-19:00:00_0",
    f"{PLENARY}-13-en_20130114-19:00:02_2",
]


@pytest.fixture
def root(tmp_path):
    return voxpopuli.build(tmp_path / "Vox Populi")  # a path with a space


@pytest.fixture
def sessions(tmp_path):
    return voxpopuli.build(tmp_path / "Vox Sessions", sessions=True)


def test_tables_of_cut_utterances(root, tmp_path):
    tables = prepare("voxpopuli", root, "train", tmp_path / "out")
    keys = [KEYS[2], KEYS[3], f"4747-{KEYS[0]}", f"96-{KEYS[1]}"]
    assert list(tables["text"]) == keys
    folder = root / "transcribed_data/en/2013"
    names = [KEYS[2], KEYS[3], KEYS[0], KEYS[1]]
    paths = [f"{folder}/{name}.ogg" for name in names]
    assert tables["wav.scp"] == dict(zip(keys, paths, strict=True))
    # those without a speaker are one of their session
    speakers = [f"{PLENARY}-13", f"{PLENARY}-13", "4747", "96"]
    assert tables["utt2spk"] == dict(zip(keys, speakers, strict=True))
    texts = [
        f'"{say(402)["en"]}" he said',
        say(404)["en"],
        say(400)["en"].rstrip(".").lower(),  # which has no raw text
        f"“{say(401)['en']}” – indeed, Mr President…",
    ]
    assert tables["text"] == dict(zip(keys, texts, strict=True))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_both_layouts_give_the_same(root, sessions, tmp_path, split):
    cut = prepare("voxpopuli", root, split, tmp_path / "cut")
    parts = prepare("voxpopuli", sessions, split, tmp_path / "parts")
    for name in ("text", "utt2spk", "spk2utt"):
        assert cut[name] == parts[name]
    lengths = []
    for out in (tmp_path / "cut", tmp_path / "parts"):
        lengths.append([len(load_audio(source)) for source in utterance_sources(out).values()])
    assert lengths[0] == pytest.approx(lengths[1], abs=16) and min(lengths[0]) > 16000


def test_as_lhotse_reads_it(tmp_path):
    from lhotse.recipes import prepare_voxpopuli

    root = voxpopuli.build(tmp_path / "vox", sessions=True, kind="en")
    found = prepare_voxpopuli(root, root / "transcribed_data/en", lang="en")
    for split, count in (("train", 4), ("dev", 1), ("test", 2)):
        tables = prepare("voxpopuli", root, split, tmp_path / split)
        # lhotse numbers utterances: a session and when one starts name it in either
        places = {
            tuple(value.split()[:2]): (key, value) for key, value in tables["segments"].items()
        }
        segments = list(found[split]["supervisions"])
        assert len(segments) == len(places) == count
        for segment in segments:
            key, value = places[segment.recording_id, f"{segment.start:.3f}"]
            assert value == f"{segment.recording_id} {segment.start:.3f} {segment.end:.3f}"
            assert tables["text"][key] == (segment.custom["orig_text"] or segment.text)
            if segment.speaker.isdecimal():
                assert tables["utt2spk"][key] == segment.speaker
            else:
                assert tables["utt2spk"][key] == segment.recording_id
        audio = {
            recording.id: recording.sources[0].source for recording in found[split]["recordings"]
        }
        assert tables["wav.scp"] == audio


def test_how_many_have_no_raw_text_is_said(root, tmp_path):
    done = run_prepare("voxpopuli", root, "train", tmp_path / "out")
    assert done.returncode == 0
    assert "voxpopuli train: 1 of 4 utterances have no raw text" in done.stderr


def test_the_older_header(root, tmp_path):
    path = root / "transcribed_data/en/asr_test.tsv"
    lines = [line.split("\t")[:6] for line in path.read_text().splitlines()]
    before = prepare("voxpopuli", root, "test", tmp_path / "before")
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    assert prepare("voxpopuli", root, "test", tmp_path / "after") == before


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    path = root / "transcribed_data/en/asr_train.tsv"
    (path.parent / "2013" / f"{KEYS[3]}.ogg").unlink()
    with open(path, "ab") as stream:
        for fields in (
            f"{KEYS[0]}\tAgain.\tagain\t4747\ttrain\tmale\tTrue\tNone",
            "2013x\tA\ttab.\ta tab\t7\ttrain\tmale\tTrue\tNone",
            "2013y\t\t \t7\ttrain\tmale\tTrue\tNone",
            "2013z\tTexte \xe9crit.\t\t7\ttrain\tmale\tTrue\tNone",
            "2013w\tTwo words.\t\ta b\ttrain\tmale\tTrue\tNone",
        ):
            stream.write(fields.encode("latin-1") + b"\n")
    tables = prepare("voxpopuli", root, "train", tmp_path / "out", "--max_rejected", "1")
    assert list(tables["text"]) == [KEYS[2], f"4747-{KEYS[0]}", f"96-{KEYS[1]}"]
    missing = f"{path.parent}/2013/{KEYS[3]}.ogg"
    word = "key 'a b-2013w' has white space or a slash, or is empty"
    assert rejected(tmp_path / "out") == {
        KEYS[3]: f"{missing}: no such audio file ({path}, line 5)",
        f"4747-{KEYS[0]}": f"is there already: {path}, line 2 ({path}, line 6)",
        "asr_train.tsv:7": f"9 columns where 8 were expected ({path}, line 7)",
        "7-2013y": f"empty transcript ({path}, line 8)",
        "asr_train.tsv:9": f"not valid UTF-8 (invalid continuation byte) ({path}, line 9)",
        "a b-2013w": f"{word} ({path}, line 10)",
    }


def rewrite(root, change):
    """Change the lines of the annotations."""
    path = root / "transcribed_data/en/asr_en.tsv.gz"
    lines = change(gzip.decompress(path.read_bytes()).splitlines())
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    return path


def test_what_is_wrong_with_annotations(sessions, tmp_path):
    def spoil(lines):
        row = lines[1].split(b"|")

        def line(**changes):
            fields = dict(zip(lines[0].decode().split("|"), row, strict=True))
            return b"|".join({**fields, **changes}.values())

        return [
            *lines,
            line(original_text=b'"A quote that does not end.'),
            line(original_text=b"A | in it."),
            line(id_=b"x", end_time=b"late"),
            line(id_=b"y", start_time=b"7", end_time=b"7"),
            line(original_text=b"\xff"),
            line(id_=b"z", decoded=b"much " * 40000, session_id=b"2013-none"),
            lines[1],
        ]

    path = rewrite(sessions, spoil)
    tables = prepare("voxpopuli", sessions, "train", tmp_path / "out", "--max_rejected", "1")
    assert list(tables["text"]) == [KEYS[2], KEYS[3], f"4747-{KEYS[0]}", f"96-{KEYS[1]}"]
    missing = f"{sessions}/raw_audios/original/2013/2013-none_original.ogg"
    assert rejected(tmp_path / "out") == {
        "asr_en.tsv.gz:10": f"5 columns where 14 were expected ({path}, line 10)",
        "asr_en.tsv.gz:11": f"15 columns where 14 were expected ({path}, line 11)",
        f"4747-{PLENARY}-1-x": "its times are none: could not convert string to float: 'late'"
        f" ({path}, line 12)",
        f"4747-{PLENARY}-1-y": f"7.0 s to 7.0 s is no part of a recording ({path}, line 13)",
        "asr_en.tsv.gz:14": f"not valid UTF-8 (invalid start byte) ({path}, line 14)",
        "4747-2013-none-z": f"{missing}: no such audio file ({path}, line 15)",
        f"4747-{KEYS[0]}": f"is there already: {path}, line 2 ({path}, line 16)",
    }


def test_a_test_set_is_whole_or_not_at_all(sessions, tmp_path):
    next((sessions / "raw_audios/original/2018").iterdir()).unlink()
    error = "^voxpopuli test: 2 of 2 utterances are unusable, first 124-2018"
    with pytest.raises(SpireError, match=error):
        prepare("voxpopuli", sessions, "test", tmp_path / "out", "--max_rejected", "1")
    assert not (tmp_path / "out").exists()


def test_annotations_that_were_cut_off(sessions, tmp_path):
    path = sessions / "transcribed_data/en/asr_en.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    done = run_prepare("voxpopuli", sessions, "train", tmp_path / "out", "--max_rejected", "1")
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert error.startswith(f"error: {path}: cut off or damaged (")
    assert error.endswith("; download it again")


def test_nothing_of_it_is_there(sessions, tmp_path):
    (sessions / "raw_audios").rename(sessions / "audios")
    with pytest.raises(SpireError, match="/raw_audios: has no original/ and no en/$"):
        prepare("voxpopuli", sessions, "dev", tmp_path / "out")
    (sessions / "transcribed_data").rename(sessions / "other")
    error = "no transcribed_data/en/asr_dev.tsv and no transcribed_data/en/asr_en.tsv.gz there$"
    with pytest.raises(SpireError, match=error):
        prepare("voxpopuli", sessions, "dev", tmp_path / "out")
