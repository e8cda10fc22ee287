"""Europarl-ST: one utterance with the translations of all languages; M4A through ffmpeg."""

import json
import shlex

import numpy as np
import pytest
from corpora import europarl_st
from corpora.checks import error_of, prepare, rejected
from corpora.europarl_st import LACKING, SPEECHES, segments
from corpora.material import say

from espnet_spire.units.audio import load_audio, utterance_sources

LANGS = ("de", "fr", "it")
TARGETS = ["--targets", *LANGS]


@pytest.fixture(scope="module")
def path_with_ffmpeg(tmp_path_factory):
    return europarl_st.with_ffmpeg(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def root(tmp_path):
    """With WAV files: what is no matter of audio needs no ffmpeg."""
    return europarl_st.build(tmp_path / "Euro parl", m4a=False)


def rows(split):
    """Key → speech, speaker, times, number of the sentence."""
    found = {}
    for position, (speech, speaker, numbers) in enumerate(SPEECHES[split]):
        _, times = segments(position, numbers)
        speaker = speaker.replace(" ", "_")
        for number, (start, end) in zip(numbers, times, strict=True):
            key = f"{speaker}-{speech}-{round(start * 1000):08d}-{round(end * 1000):08d}"
            found[key] = (speech, speaker, start, end, number)
    return found


@pytest.mark.parametrize("split", SPEECHES)
def test_tables(root, tmp_path, split):
    tables = prepare("europarl_st", root, split, tmp_path / "out", *TARGETS)
    expected = rows(split)
    audios = root / "v1.1/en/audios"
    recordings = {speech: f"{audios}/{speech}.wav" for speech, *_ in expected.values()}
    assert tables.pop("wav.scp") == recordings
    assert tables.pop("segments") == {
        key: f"{speech} {start:.3f} {end:.3f}"
        for key, (speech, _, start, end, _) in expected.items()
    }
    assert tables.pop("text") == {key: say(row[4])["en"] for key, row in expected.items()}
    assert tables.pop("utt2spk") == {key: row[1] for key, row in expected.items()}
    tables.pop("spk2utt")
    for lang in LANGS:
        has = {key: row[4] for key, row in expected.items() if (lang, row[4]) not in LACKING}
        texts = {key: say(number)[lang] for key, number in has.items()}
        assert tables.pop(f"text.tc.{lang}") == texts
    assert not tables
    report = json.loads((tmp_path / "out/preparation.json").read_text())
    seconds = sum(end - start for _, _, start, end, _ in expected.values())
    assert report["steps"][0]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert report["translations"]["it"] == len(expected)


def test_a_language_alone_gives_what_its_files_say(root, tmp_path):
    """Line by line, without the join."""
    tables = prepare("europarl_st", root / "v1.1", "train", tmp_path / "out", "--targets", "fr")
    folder = root / "v1.1/en/fr/train"
    places, english, french = (
        (folder / f"segments.{ending}").read_text().splitlines() for ending in ("lst", "en", "fr")
    )
    assert len(places) == 3
    found = {}
    for key, place in tables["segments"].items():
        speech, start, end = place.split()
        line = f"{speech} {float(start):.2f} {float(end):.2f}"
        found[line] = (tables["text"][key], tables["text.tc.fr"][key])
    assert found == dict(zip(places, zip(english, french, strict=True), strict=True))


def test_m4a_is_heard_through_ffmpeg(tmp_path, monkeypatch, path_with_ffmpeg):
    monkeypatch.setenv("PATH", path_with_ffmpeg)
    root = europarl_st.build(tmp_path / "Euro parl's", langs=("de",))
    out = tmp_path / "out"
    tables = prepare("europarl_st", root, "test", out, "--targets", "de")
    (speech, command), *_ = tables["wav.scp"].items()
    path = f"{root}/v1.1/en/audios/{speech}.m4a"
    assert shlex.split(command) == [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-i", path),
        *("-f", "wav", "-ar", "16000", "-ac", "1", "-", "|"),
    ]
    # the two sentences are heard where they were said
    monkeypatch.setattr(europarl_st, "RATE", 16000)
    said, times = segments(0, SPEECHES["test"][0][2])
    for (start, end), source in zip(times, utterance_sources(out).values(), strict=True):
        heard = load_audio(source)
        wanted = said[round(start * 16000) : round(end * 16000)]
        assert abs(len(heard) - len(wanted)) <= 1
        size = min(len(heard), len(wanted))
        # AAC keeps the loudness over time, not the samples
        envelopes = [
            np.sqrt(np.convolve(signal[:size] ** 2, np.ones(800) / 800, "valid"))
            for signal in (heard, wanted)
        ]
        assert np.corrcoef(*envelopes)[0, 1] > 0.98


def test_without_ffmpeg_there_is_one_error(root, tmp_path, monkeypatch):
    audios = root / "v1.1/en/audios"
    for path in audios.glob("*.wav"):
        path.rename(path.with_suffix(".m4a"))
    monkeypatch.setenv("PATH", str(tmp_path))
    error = error_of("europarl_st", root, "test", tmp_path / "out", *TARGETS)
    assert error == (
        f"{audios}/en.20110118.9.2-081.m4a: ffmpeg is needed to read it and is not in PATH; install"
        f" it, or convert the speeches to {root}/v1.1/en/audios_wav/<speech>.wav"
    )
    (audios.parent / "audios_wav").mkdir()
    for path in audios.glob("*.m4a"):
        path.rename(audios.parent / "audios_wav" / f"{path.stem}.wav")
    tables = prepare("europarl_st", root, "test", tmp_path / "out", *TARGETS)
    assert list(tables["wav.scp"].values()) == [f"{audios}_wav/en.20110118.9.2-081.wav"]


def test_speakers_that_are_not_listed(root, tmp_path):
    for lang in LANGS:
        (root / f"v1.1/en/{lang}/dev/speakers.lst").unlink()
    tables = prepare("europarl_st", root, "dev", tmp_path / "out", *TARGETS)
    speech = "en.20090112.15.1-124"
    assert tables["utt2spk"] == {
        key.replace("Graham_Watson_1952", speech): speech for key in rows("dev")
    }


def append(folder, **lines):
    for ending, line in lines.items():
        with open(folder / f"segments.{ending}", "ab") as stream:
            stream.write(line if isinstance(line, bytes) else line.encode())


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path, caplog):
    en = root / "v1.1/en"
    (en / "audios/en.20080924.4.3-018.wav").unlink()
    german, french = en / "de/train", en / "fr/train"
    first = (german / "segments.lst").read_text().splitlines()[0]
    speech = "en.20080924.31.3-243"
    append(german, lst=f"{first}\n", en="Again.\n", de="Noch einmal.\n")
    append(german, lst=f"{speech} 9.00\n", en="No end.\n", de="Kein Ende.\n")
    append(german, lst=f"{speech} 2.00 1.00\n", en="Back.\n", de="Zur\u00fcck.\n")
    append(german, lst=f"{speech} 1.00 2.00\n", en="A word.\n", de=b"S\xe4tze.\n")
    append(german, lst=f"{speech} 1.10 2.10\n", en="\n", de="Nichts.\n")
    append(french, lst=f"{speech} 1.20 2.20\n", en="A\ttab.\n", fr="\n")
    append(en / "it/train", lst=f"{speech} 1.20 2.20\n", en="A dab.\n", it="It\u00e0lia.\n")
    path = en / "it/train/speakers.lst"
    path.write_bytes(path.read_bytes().replace(b"Farage", b"Far\xe4ge"))
    options = [*TARGETS, "--max_rejected", "1"]
    tables = prepare("europarl_st", root, "train", tmp_path / "out", *options)
    place = german / "segments.lst"
    keys = list(rows("train"))
    speaker = "Nigel_Farage_4525"
    (lost,) = (key for key in keys if "4.3-018" in key)
    again = keys[0]
    mixed = f"{speaker}-{speech}-00001200-00002200"
    assert set(tables["text"]) == {*keys, mixed} - {lost}
    assert tables["text"][mixed] == "A tab."
    assert mixed not in tables["text.tc.fr"] and tables["text.tc.it"][mixed] == "It\u00e0lia."
    assert tables["text.tc.de"][again] == say(SPEECHES["train"][0][2][0])["de"]
    assert rejected(tmp_path / "out") == {
        lost: f"{en}/audios/en.20080924.4.3-018.m4a: no such audio file ({place}, line 4)",
        again: f"has a translation into de already ({place}, line 5)",
        "de/segments.lst:6": f"'{speech} 9.00' is no segment ({place}, line 6)",
        "de/segments.lst:7": f"'{speech} 2.00 1.00' is no segment ({place}, line 7)",
        "segments.de:8": "not valid UTF-8 (invalid continuation byte)"
        f" ({german}/segments.de, line 8)",
        "speakers.lst:1": f"not valid UTF-8 (invalid continuation byte) ({path}, line 1)",
        f"{speaker}-{speech}-00001100-00002100": f"empty transcript ({place}, line 9)",
    }
    assert "1 segments have another transcript with another language" in caplog.text
    said = f"1 translations into fr are empty and left out, first that of {mixed}"
    assert said in caplog.text


def test_files_that_do_not_belong_together(root, tmp_path):
    """A truncated file: from where it ends on nothing would be in step."""
    folder = root / "v1.1/en/de/test"
    path = folder / "segments.de"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    error = error_of("europarl_st", root, "test", tmp_path / "out", *TARGETS)
    assert error.startswith(
        f"{path}: ends before line 2, which segments.lst, segments.en have; they belong together"
    )
    (folder / "segments.en").unlink()
    error = error_of("europarl_st", root, "test", tmp_path / "out", *TARGETS)
    assert error == f"{folder}/segments.en: no such file"


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    path = root / "v1.1/en/it/test/segments.lst"
    path.write_text(path.read_text().replace("en.2011", "en.1999", 1))
    error = error_of("europarl_st", root, "test", tmp_path / "out", *TARGETS)
    assert error.startswith("europarl_st test: 1 of 3 utterances are unusable")
    assert f"en.19990118.9.2-081.m4a: no such audio file ({path}, line 1)" in error


def test_where_it_may_lie(root, tmp_path):
    places = (root, root / "v1.1", root / "v1.1/en")
    found = [prepare("europarl_st", place, "dev", tmp_path / "out", *TARGETS) for place in places]
    assert found[0]["text"] and found[0] == found[1] == found[2]
    empty = tmp_path / "empty"
    empty.mkdir()
    error = error_of("europarl_st", empty, "dev", tmp_path / "no", *TARGETS)
    assert error.startswith(f"{empty}: neither en/audios nor v1.1/en/audios is there")
    error = error_of("europarl_st", root, "dev", tmp_path / "no", "--targets")
    assert error == "europarl_st: --targets is empty; name at least one language"
