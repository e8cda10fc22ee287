"""FLEURS: lhotse's recordings, the sentences as they were written, translations by number."""

import json
import shutil

import pytest
from corpora import fleurs
from corpora.checks import error_of, prepare, rejected
from corpora.fleurs import LACKING, LANGUAGES, RECORDINGS
from corpora.material import say, speech

TARGETS = [lang for lang in LANGUAGES if lang != "en"]


@pytest.fixture
def root(tmp_path):
    return fleurs.build(tmp_path / "FLE URS")


def keys(split):
    """Key → number of its sentence."""
    return {f"{number}-{file}": number for number, file, _ in RECORDINGS[split]}


@pytest.mark.parametrize("split", RECORDINGS)
def test_tables(root, tmp_path, split):
    tables = prepare("fleurs", root, split, tmp_path / "out")
    folder = root / "data/en_us/audio" / split
    audio = {f"{number}-{file}": f"{folder}/{file}.wav" for number, file, _ in RECORDINGS[split]}
    assert tables.pop("wav.scp") == audio
    assert tables.pop("text") == {key: say(n)["en"] for key, n in keys(split).items()}
    assert tables.pop("utt2spk") == tables.pop("spk2utt") == {key: key for key in audio}
    for lang in TARGETS:
        lacking = LACKING.get(lang, ())
        expected = {key: say(n)[lang] for key, n in keys(split).items() if n not in lacking}
        assert tables.pop(f"text.tc.{lang}", {}) == expected
    assert not tables
    report = json.loads((tmp_path / "out/preparation.json").read_text())
    seconds = sum(len(speech(number, speaker)) for number, _, speaker in RECORDINGS[split]) / 16000
    assert report["steps"][0]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert report["translations"]["de"] == len(audio)


def test_as_lhotse_reads_it(tmp_path):
    from lhotse.recipes import prepare_fleurs

    root = fleurs.build(tmp_path / "fleurs", lhotse=True)
    found = prepare_fleurs(root, tmp_path / "lhotse", languages=["en_us"])["en_us"]
    for split in RECORDINGS:
        tables = prepare("fleurs", root, split, tmp_path / split)
        supervisions = list(found[split]["supervisions"])
        # "<number>_<how manieth recording of it>_<file>"
        key = {s.recording_id: f"{s.id.split('_')[0]}-{s.recording_id}" for s in supervisions}
        assert tables["text"] == {key[s.recording_id]: s.custom["raw_text"] for s in supervisions}
        audio = {key[r.id]: r.sources[0].source for r in found[split]["recordings"]}
        assert tables["wav.scp"] == audio


def test_both_layouts_say_the_same(root, tmp_path):
    other = fleurs.build(tmp_path / "l" / "fleurs", lhotse=True)
    for place in (other, other.parent):
        hub = prepare("fleurs", root, "test", tmp_path / "hub")
        lhotse = prepare("fleurs", place, "test", tmp_path / "lhotse")
        names = {key: value.rsplit("/", 1)[1] for key, value in hub.pop("wav.scp").items()}
        assert names == {k: v.rsplit("/", 1)[1] for k, v in lhotse.pop("wav.scp").items()}
        assert hub == lhotse


def test_how_many_lack_a_translation_is_said(root, tmp_path, caplog):
    caplog.set_level("INFO")
    prepare("fleurs", root, "test", tmp_path / "out", "--targets", "de", "zh")
    assert "fleurs test: translations into de: 0 lack one" in caplog.text
    assert "fleurs test: translations into zh: 1 lack one" in caplog.text


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    english, german = (root / "data" / language / "train.tsv" for language in ("en_us", "de_de"))
    (root / "data/en_us/audio/train/10027656994021350210.wav").unlink()
    line = fleurs.row(903, "10009414287632395082", "en", 16000)
    lines = [
        line,
        fleurs.row(5, "1", "en", 9).replace(say(5)["en"], ""),
        line.replace(say(903)["en"], "A\ttab"),
        line.replace("16000", "many"),
        "903",
    ]
    (root / "data/en_us/audio/train/1.wav").write_bytes(b"x")
    with open(english, "ab") as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode() + b"\xff\n")
    text = german.read_text().replace(say(903)["de"], '"Ein Anführungszeichen', 1)
    german.write_text(text + "ein Tab\tmehr\n")
    options = ["--targets", "de", "--max_rejected", "1"]
    tables = prepare("fleurs", root, "train", tmp_path / "out", *options)
    first, second = (f"903-{file}" for file in ("10004088536354799741", "10009414287632395082"))
    assert list(tables["text"]) == [first, second]
    # of several rows of one number the first is taken
    assert set(tables["text.tc.de"].values()) == {'"Ein Anführungszeichen'}
    audio = root / "data/en_us/audio/train"
    assert rejected(tmp_path / "out") == {
        "7-10027656994021350210": f"{audio}/10027656994021350210.wav: no such audio file"
        f" ({english}, line 3)",
        second: f"{'many'!r} is no number of samples ({english}, line 7)",
        f"{second}#2": f"is there already: {english}, line 2 ({english}, line 4)",
        "5-1": f"empty transcript ({english}, line 5)",
        "train.tsv:6": f"8 columns where 7 were expected ({english}, line 6)",
        "train.tsv:8": f"1 columns where 7 were expected ({english}, line 8)",
        "train.tsv:9": f"not valid UTF-8 (invalid start byte) ({english}, line 9)",
        "train.tsv:4": f"2 columns where 7 were expected ({german}, line 4)",
    }


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    path = root / "data/ko_kr/test.tsv"
    path.write_bytes(path.read_bytes().replace(b"\tFEMALE", b"", 1))
    error = error_of("fleurs", root, "test", tmp_path / "out")
    assert error.startswith("fleurs test: 1 of 3 utterances are unusable")
    assert f"6 columns where 7 were expected ({path}, line 1)" in error


def test_what_is_not_there(root, tmp_path):
    folder = root / "data/en_us/audio"
    shutil.rmtree(folder / "test")
    error = error_of("fleurs", root, "test", tmp_path / "out")
    assert error == f"{folder}/test: no such directory; get test.tar.gz"
    (folder / "test.tar.gz").write_bytes(b"x")
    error = error_of("fleurs", root, "test", tmp_path / "out")
    assert error.endswith(f"no such directory; unpack {folder}/test.tar.gz in {folder}")
    (root / "data/ko_kr/dev.tsv").unlink()
    error = error_of("fleurs", root, "dev", tmp_path / "out")
    assert error.endswith("ko_kr/dev.tsv: no such file; get it, or leave ko out of --targets")
    (root / "data/en_us/dev.tsv").unlink()
    error = error_of("fleurs", root, "dev", tmp_path / "out")
    assert error.endswith("neither data/en_us/dev.tsv nor metadata/en_us/dev.tsv is there")
