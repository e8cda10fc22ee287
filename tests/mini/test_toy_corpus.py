"""The toy corpus: who says what, the files, and running the command twice."""

import collections
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")

from espnet_spire.bin.mini_corpus import main  # noqa: E402
from espnet_spire.mini import espeak, toy_corpus  # noqa: E402
from espnet_spire.mini.grammar import sentence  # noqa: E402
from espnet_spire.mini.toy_corpus import ALL_SETS, Sizes, make_plan  # noqa: E402
from espnet_spire.utils.datadir import read_table, validate_data_dir  # noqa: E402
from espnet_spire.utils.errors import SpireError  # noqa: E402

SMALL = "--num_train 20 --num_dev 3 --num_test 4 --num_mono 5 --num_parallel 6 --num_blocks 30"
SMALL += " --cpt_percent 60 --it_percent 25 --st_percent 15"


def command(directory, *extra):
    main(SMALL.split() + ["--out", f"{directory}/data", "--downloads", f"{directory}/dl", *extra])


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    command(directory, "--nj", "2")
    return directory


def test_default_plan():
    plan = make_plan(Sizes(), seed=0)
    sets = {name: [u for u in plan.utterances if u.set_name == name] for name in ALL_SETS}
    assert {name: len(utterances) for name, utterances in sets.items()} == {
        "train_cpt": 1650,
        "train_it": 750,
        "train_st": 100,
        "dev": 60,
        "test": 150,
    }
    spoken = [u.index for u in plan.utterances]
    assert len(set(spoken)) == len(spoken) == 2710
    assert len({u.key for u in plan.utterances}) == 2710
    train = {u.voice for u in plan.utterances if u.set_name != "test"}
    test = {u.voice for u in sets["test"]}
    assert len(train) == 12 and len(test) == 2 and not train & test
    held_out = {u.index for name in ("dev", "test") for u in sets[name]}
    for indices in [*plan.mono.values(), plan.parallel, plan.blocks]:
        assert len(set(indices)) == len(indices)
        assert not held_out & set(indices)
    assert [len(v) for v in plan.mono.values()] == [1500] * 4 and len(plan.parallel) == 3000
    assert not set(plan.mono["en"]) & set(plan.mono["de"])


def test_plan_depends_on_seed_but_test_set_not_on_training_size():
    assert make_plan(Sizes(), 1) == make_plan(Sizes(), 1) != make_plan(Sizes(), 2)

    def test_set(size):
        plan = make_plan(Sizes(num_train=size), 0)
        return [u for u in plan.utterances if u.set_name == "test"]

    assert test_set(100) == test_set(2500)


def test_text_reuses_training_sentences_only_when_it_must():
    plan = make_plan(Sizes(num_train=7000, num_mono=10, num_parallel=2000), 0)
    held_out = {u.index for u in plan.utterances if u.set_name in ("dev", "test")}
    assert len(set(plan.parallel)) == 2000 and not held_out & set(plan.parallel)


@pytest.mark.parametrize(
    "sizes, message",
    [
        (Sizes(num_train=8000), "only 8000 sentences"),
        (Sizes(num_train=2), "too small"),
        (Sizes(st_percent=5), "add up to 100"),
        (Sizes(cpt_percent=104, it_percent=-8), "positive"),
        (Sizes(num_dev=0), "--num_dev 0"),
        (Sizes(num_parallel=7900), "--num_parallel"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(SpireError, match=message):
        make_plan(sizes, 0)


def test_prosody_is_drawn_by_key():
    drawn = [toy_corpus.prosody(f"x-{i}") for i in range(200)]
    assert drawn == [toy_corpus.prosody(f"x-{i}") for i in range(200)]
    for name, (low, high) in toy_corpus.PROSODY.items():
        values = [d[name] for d in drawn]
        assert low <= min(values) and max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < 0.15 * (high - low)


def test_data_directories(corpus):
    sizes = {"train_cpt": 12, "train_it": 5, "train_st": 3, "dev": 3, "test": 4}
    for name, size in sizes.items():
        directory = corpus / "data" / name
        assert validate_data_dir(directory) == size
        translations = sorted(path.name for path in directory.glob("text.tc.*"))
        gold = ["text.tc.de", "text.tc.fr", "text.tc.zh"]
        assert translations == (gold if name in ("train_st", "dev", "test") else [])
        spoken = read_table(directory / "text")
        # Kaldi wants the order by utterance to be the order by speaker too.
        speakers = list(read_table(directory / "utt2spk").values())
        assert speakers == sorted(speakers)
        for key, path in read_table(directory / "wav.scp").items():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
            assert 1.0 < info.duration < 5.0
            text = sentence(int(key.rsplit("-", 1)[1]))
            assert spoken[key] == text["en"]
            for lang_file in translations:
                assert read_table(directory / lang_file)[key] == text[lang_file[-2:]]


def test_recording_is_what_espeak_says(corpus):
    plan = make_plan(Sizes(20, 3, 4, 60, 25, 15, 5, 6, 30), 0)
    utterance = plan.utterances[0]
    samples, _ = soundfile.read(utterance.wav(corpus / "dl"), dtype="int16")
    text = sentence(utterance.index)["en"]
    expected = espeak.synthesize(text, utterance.voice, **toy_corpus.prosody(utterance.key))
    assert np.array_equal(samples, expected)


@pytest.mark.parametrize("lang, voice", [("de", "de+f2"), ("fr", "fr+f2")])
def test_another_language_is_spoken(tmp_path, lang, voice):
    command(tmp_path, "--speech_lang", lang)
    english = make_plan(Sizes(20, 3, 4, 60, 25, 15, 5, 6, 30), 0)
    spoken = make_plan(Sizes(20, 3, 4, 60, 25, 15, 5, 6, 30), 0, lang)
    assert [(u.set_name, u.index) for u in english.utterances] == [
        (u.set_name, u.index) for u in spoken.utterances
    ]
    others = sorted(f"text.tc.{other}" for other in ("en", "de", "fr", "zh") if other != lang)
    voices = {}
    for name in ALL_SETS:
        directory = tmp_path / "data" / name
        validate_data_dir(directory)
        voices[name] = set(read_table(directory / "utt2spk").values())
        found = sorted(path.name for path in directory.glob("text.tc.*"))
        assert found == (others if name in ("train_st", "dev", "test") else [])
        for key, text in read_table(directory / "text").items():
            assert text == sentence(int(key.rsplit("-", 1)[1]))[lang]
    assert not voices["test"] & (voices["train_cpt"] | voices["dev"])
    utterance = spoken.utterances[0]
    assert utterance.voice == voice
    samples, _ = soundfile.read(utterance.wav(tmp_path / "dl"), dtype="int16")
    expected = espeak.synthesize(
        sentence(utterance.index)[lang], voice, **toy_corpus.prosody(utterance.key)
    )
    assert np.array_equal(samples, expected)


def test_a_language_without_voices(tmp_path):
    with pytest.raises(SpireError, match="--speech_lang zh: the toy corpus is spoken in en, de, f"):
        command(tmp_path, "--speech_lang", "zh")


def test_text_only_data(corpus):
    for lang in ("en", "de", "fr", "zh"):
        mono = read_table(corpus / "data" / "text_mono" / f"text.{lang}")
        assert len(mono) == 5
        parallel = read_table(corpus / "data" / "text_parallel" / f"text.tc.{lang}")
        assert len(parallel) == 6
        for key, text in {**mono, **parallel}.items():
            assert text == sentence(int(key.rsplit("-", 1)[1]))[lang]
    lines = (corpus / "data" / "blocks" / "blocks.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 30


def test_one_process_gives_the_same_bytes(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command(".", "--nj", "1")
    here, there = contents(tmp_path), contents(corpus)
    assert here.keys() == there.keys()
    assert {k for k in here if here[k] != there[k]} == {
        f"data/{name}/wav.scp" for name in ALL_SETS
    }  # the paths, which are as given
    assert all(v.startswith("dl/wav/test/") for v in read_table("data/test/wav.scp").values())


def test_second_run_writes_nothing_and_damage_is_mended(corpus, monkeypatch):
    before = contents(corpus)
    times = {name: (corpus / name).stat().st_mtime_ns for name in before}
    calls = collections.Counter()

    def counting(*args, **kwargs):
        calls["synthesize"] += 1
        return espeak.synthesize(*args, **kwargs)

    monkeypatch.setattr(toy_corpus, "synthesize", counting)
    command(corpus)
    assert not calls
    assert times == {name: (corpus / name).stat().st_mtime_ns for name in before}

    wavs = [corpus / name for name in before if name.endswith(".wav")]
    wavs[0].write_bytes(wavs[0].read_bytes()[:1000])
    wavs[1].unlink()
    wavs[2].write_bytes(b"")
    (corpus / "data" / "dev" / "text").write_text("broken")
    command(corpus)
    assert calls["synthesize"] == 3
    assert contents(corpus) == before


def test_killed_run_goes_on(tmp_path, monkeypatch):
    made = []

    def failing(*args, **kwargs):
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(args)
        return espeak.synthesize(*args, **kwargs)

    monkeypatch.setattr(toy_corpus, "synthesize", failing)
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path)
    assert len(list(tmp_path.rglob("*.wav"))) == 7 and not (tmp_path / "data").exists()
    assert not list(tmp_path.rglob("*.tmp.*"))
    monkeypatch.setattr(toy_corpus, "synthesize", espeak.synthesize)
    command(tmp_path)
    assert len(list(tmp_path.rglob("*.wav"))) == 27


def test_new_prosody_makes_new_recordings(tmp_path, monkeypatch):
    command(tmp_path)
    wav = sorted(tmp_path.rglob("*.wav"))[0]
    before = wav.read_bytes()
    monkeypatch.setitem(toy_corpus.PROSODY, "rate", (300, 310))
    command(tmp_path)
    assert len(wav.read_bytes()) < len(before)


def test_recordings_of_others_are_left_alone(tmp_path):
    other = tmp_path / "dl" / "wav" / "test" / "mine.wav"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"precious")
    with pytest.raises(SpireError, match="mine.wav was not made by this command"):
        command(tmp_path)
    assert other.read_bytes() == b"precious"


def test_wav_bytes(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(toy_corpus.wav_bytes(np.array([0, 1, -32768, 32767], np.int16)))
    with wave.open(str(path)) as stream:
        assert stream.readframes(9) == b"\x00\x00\x01\x00\x00\x80\xff\x7f"
    assert toy_corpus.is_complete(path) and not toy_corpus.is_complete(tmp_path / "b.wav")


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(SpireError, match="white space"):
        main(["--out", str(tmp_path / "d"), "--downloads", str(tmp_path / "a b")])
    with pytest.raises(SpireError, match="--nj 0"):
        command(tmp_path, "--nj", "0")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpireError, match="pip install"):
        command(tmp_path)
    assert not (tmp_path / "data").exists()
    with pytest.raises(SystemExit) as stop:
        command(tmp_path, "--no_such_option", "1")
    assert stop.value.code == 2
