"""Data directories that other recipes left: as they are in stage 2, and imported."""

import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool

import kaldiio
import numpy as np
import pytest
import soundfile
from corpora.kaldi import RATE, TEXTS, audio, plain, ramp, write_extras, write_st_set, write_table

from espnet_spire.bin.import_data_dir import main as import_data_dir
from espnet_spire.corpus.format import Limits, format_data_dir
from espnet_spire.utils.datadir import read_rejected, read_table, validate_data_dir
from espnet_spire.utils.errors import SpireError

# What recipes write into wav.scp, run by programs that are here whatever is installed. `flac`,
# `sox` and `sph2pipe` are stand-ins that read their input file to standard output, as those do.
PIPES = {
    "cat": "cat '{}' |",
    "flac": "flac -c -d -s '{}' |",
    "sox": "sox '{}' -r 16000 -c 1 -b 16 -t wav - |",
    "sph2pipe": "sph2pipe -f wav -p -c 1 '{}' | sox -t wav - -t wav - |",
    "python": "{python} -c \"import sys; sys.stdout.buffer.write(open('{{}}', 'rb').read())\" |",
}
STAND_IN = """#!/usr/bin/env bash
for word in "$@"; do
    [ -f "$word" ] && exec cat "$word"
done
exec cat
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("flac", "sox", "sph2pipe"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def recipe(tmp_path):
    """A recipe directory with a space in its name, ``egs2/xyz/st1`` of ESPnet's."""
    path = tmp_path / "esp net" / "st1"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another current directory: that of our recipe."""
    path = tmp_path / "spire1"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def pipe(kind, name):
    return PIPES[kind].replace("{python}", sys.executable).replace("{{}}", "{}").format(name)


def formatted(data, out, src_lang=None):
    """Stage 2: key → int16 samples, and the directory's tables."""
    with ThreadPool(1) as pool:  # processes take seconds to start
        format_data_dir(
            data, out, limits=Limits(), pool=pool, audio_format="wav", src_lang=src_lang
        )
    samples = {}
    for key, path in read_table(out / "wav.scp").items():
        samples[key], rate = soundfile.read(path, dtype="int16")
        assert rate == RATE
    return samples, tables(out)


def tables(out):
    validate_data_dir(out)
    names = [path.name for path in out.iterdir() if path.is_file()]
    tables = [name for name in names if not name.endswith((".json", ".tsv"))]
    return {name: read_table(out / name, allow_empty_value=True) for name in tables}


def same(samples, start, count=8000):
    return np.array_equal(samples, ramp(start, count))


@pytest.mark.parametrize("kind", PIPES)
def test_pipes_and_extras_as_they_are_in_stage_2(recipe, monkeypatch, tools, tmp_path, kind):
    monkeypatch.chdir(recipe)  # relative to where the recipe runs, as Kaldi's are
    names = audio(recipe)
    data = write_st_set(recipe, "train", {key: pipe(kind, name) for key, name in names.items()})
    samples, found = formatted(data, tmp_path / "out", "en")
    assert [same(samples[key], 1000 * n) for n, key in enumerate(TEXTS)] == [True] * 3
    assert found["text"] == {key: text for key, (text, _) in TEXTS.items()}
    assert found["text.tc.de"] == {key: text for key, (_, text) in TEXTS.items()}
    kept = {"wav.scp", "text", "text.tc.de", "utt2spk", "spk2utt", "utt2num_samples"}
    assert set(found) == kept


def test_stage_2_without_a_spoken_language_takes_text(recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(recipe)
    data = write_st_set(recipe, "train", audio(recipe))
    _, found = formatted(data, tmp_path / "out")
    assert found["text"]["spk2-c"] == "it rains again"
    # another language is spoken here: English is a translation
    _, found = formatted(data, tmp_path / "out2", "de")
    assert found["text"]["spk2-c"] == "Es regnet, wieder!"
    assert found["text.tc.en"]["spk2-c"] == "It rains, again!"


def stereo_set(recipe, name="rec.wav"):
    """A call of two speakers, one a channel, in Kaldi's two ways."""
    (recipe / "path.sh").touch()
    soundfile.write(recipe / name, np.stack([ramp(0, 16000), ramp(1, 16000)[::-1]], axis=1), RATE)
    data = recipe / "data" / "calls"
    write_table(data / "text", {"call-A-1": "hello", "call-B-1": "yes"})
    write_table(data / "utt2spk", {"call-A-1": "call-A", "call-B-1": "call-B"})
    return data


@pytest.mark.parametrize("way", ["reco2file_and_channel", "segments"])
@pytest.mark.parametrize("imported", [False, True])
def test_each_side_of_a_call(recipe, monkeypatch, tmp_path, way, imported):
    monkeypatch.chdir(recipe)
    data = stereo_set(recipe)
    if way == "segments":
        write_table(data / "wav.scp", {"call": "rec.wav"})
        segments = {"call-A-1": "call 0.25 0.5 0", "call-B-1": "call 0.25 0.5 1"}
    else:
        write_table(data / "wav.scp", {"call-A": "rec.wav", "call-B": "rec.wav"})
        write_table(data / "reco2file_and_channel", {"call-A": "call A", "call-B": "call B"})
        segments = {"call-A-1": "call-A 0.25 0.5", "call-B-1": "call-B 0.25 0.5"}
    write_table(data / "segments", segments)
    if imported:
        import_data_dir(["--data_dir", str(data), "--out", str(tmp_path / "imported")])
        data = tmp_path / "imported"
    samples, _ = formatted(data, tmp_path / "out")
    assert np.array_equal(samples["call-A-1"], ramp(0, 16000)[4000:8000])
    assert np.array_equal(samples["call-B-1"], ramp(1, 16000)[::-1][4000:8000])


def test_whole_recordings_of_one_channel(recipe, elsewhere, tmp_path):
    data = stereo_set(recipe)
    write_table(data / "wav.scp", {"call-A-1": "rec.wav", "call-B-1": "cat rec.wav |"})
    write_table(data / "reco2file_and_channel", {"call-A-1": "call 1", "call-B-1": "call 2"})
    import_data_dir(["--data_dir", str(data), "--out", "data/calls"])
    samples, _ = formatted(elsewhere / "data/calls", tmp_path / "out")
    assert same(samples["call-A-1"], 0, 16000)
    assert np.array_equal(samples["call-B-1"], ramp(1, 16000)[::-1])


@pytest.mark.parametrize("audio_format", ["flac.ark", "flac"])
def test_what_espnet_dumps(recipe, elsewhere, tmp_path, audio_format):
    """``dump/raw/org/<set>``: audio beside the tables by names relative to the recipe, in an ark
    as its format_wav_scp.py writes them through kaldiio."""
    (recipe / "path.sh").touch()
    dump = recipe / "dump/raw/org/train"
    (dump / "data/format.1").mkdir(parents=True)
    names = {}
    if audio_format == "flac.ark":
        ark = dump / "data/format.1/data_wav.ark"
        arrays = {key: (ramp(1000 * n), RATE) for n, key in enumerate(TEXTS)}
        kaldiio.save_ark(
            str(ark),
            arrays,
            scp=str(tmp_path / "scp"),
            write_function="soundfile",
            write_kwargs={"format": "flac"},
        )
        offsets = read_table(tmp_path / "scp")
        names = {key: os.path.relpath(value, recipe) for key, value in offsets.items()}
        assert names["spk1-b"].startswith("dump/raw/org/train/data/format.1/data_wav.ark:")
    else:
        for n, key in enumerate(TEXTS):
            soundfile.write(dump / f"data/format.1/{key}.flac", ramp(1000 * n), RATE)
            names[key] = f"dump/raw/org/train/data/format.1/{key}.flac"
    write_table(dump / "wav.scp", names)
    write_table(dump / "utt2num_samples", {key: 8000 for key in TEXTS})
    (dump / "feats_type").write_text("raw\n")
    (dump / "audio_format").write_text(f"{audio_format}\n")
    write_table(dump / "text", {key: text for key, (text, _) in TEXTS.items()})
    write_table(dump / "utt2spk", {key: key.split("-")[0] for key in TEXTS})
    import_data_dir(["--data_dir", str(dump), "--out", "data/train"])
    samples, found = formatted(elsewhere / "data/train", tmp_path / "out")
    assert [same(samples[key], 1000 * n) for n, key in enumerate(TEXTS)] == [True] * 3
    assert found["text"]["spk1-a"] == "The house is red."


def test_directories_of_features_are_refused(recipe, elsewhere):
    dump = recipe / "dump/fbank_pitch/train"
    write_table(dump / "feats.scp", {"a": "x.ark:1"})
    (dump / "feats_type").write_text("fbank_pitch\n")
    with pytest.raises(SpireError, match=r"train: no wav.scp there; it holds features \(fbank_pi"):
        import_data_dir(["--data_dir", str(dump), "--out", "data/train"])


def test_an_import_reads_from_everywhere(recipe, elsewhere, tmp_path, caplog, tools):
    caplog.set_level("INFO")
    names = audio(recipe)
    kinds = ("flac", "sph2pipe", "cat")
    scp = {key: pipe(kind, names[key]) for key, kind in zip(TEXTS, kinds, strict=True)}
    data = write_st_set(recipe, "train", {**scp, "spk2-c": names["spk2-c"]})
    import_data_dir(
        ["--data_dir", str(data), "--out", "data/train", "--src_lang", "en", "--tgt_langs", "de"]
    )
    os.chdir(tmp_path)
    samples, found = formatted(elsewhere / "data/train", tmp_path / "out")
    assert [same(samples[key], 1000 * n) for n, key in enumerate(TEXTS)] == [True] * 3
    assert found["text"] == {key: text for key, (text, _) in TEXTS.items()}
    assert found["text.tc.de"] == {key: text for key, (_, text) in TEXTS.items()}
    assert "transcripts are text.tc.en" in caplog.text
    assert f"relative paths are those of {recipe}" in caplog.text
    assert "not taken: .backup, cmvn.scp, conf, feats.scp" in caplog.text


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--text", "text"], "it rains again"),
        (["--text", "text.lc.en"], "it rains, again!"),
        (["--src_lang", "de"], "Es regnet, wieder!"),
        (["--src_lang", "fr"], "it rains again"),
    ],
)
def test_which_text(recipe, elsewhere, options, expected):
    data = write_st_set(recipe, "train", audio(recipe))
    import_data_dir(["--data_dir", str(data), "--out", "data/train", *options])
    assert tables(elsewhere / "data/train")["text"]["spk2-c"] == expected


def test_which_translations(recipe, elsewhere):
    data = write_st_set(recipe, "train", audio(recipe))
    options = ["--data_dir", str(data), "--out", "data/train", "--src_lang", "en"]

    def translations(*more):
        import_data_dir([*options, *more])
        found = tables(elsewhere / "data/train")
        return {name: t["spk2-c"] for name, t in found.items() if name.startswith("text.")}

    assert translations() == {"text.tc.de": "Es regnet, wieder!"}
    assert translations("--translation", "de=text.lc.rm.de") == {"text.tc.de": "es regnet wieder"}
    assert translations("--tgt_langs") == {}
    with pytest.raises(SpireError, match="no text.tc.fr for fr there; it has text, text.lc.de"):
        translations("--tgt_langs", "fr")


def test_several_true_cased_texts_need_a_language(recipe, elsewhere):
    data = write_st_set(recipe, "train", audio(recipe))
    with pytest.raises(SpireError, match="say which language is spoken"):
        import_data_dir(["--data_dir", str(data), "--out", "data/train"])
    with pytest.raises(SpireError, match="no text.org there; it has text, text.lc.de, text.lc.en"):
        import_data_dir(["--data_dir", str(data), "--out", "data/train", "--text", "text.org"])
    assert not (elsewhere / "data/train").exists()


def test_unsorted_tables_are_sorted(recipe, elsewhere, caplog):
    caplog.set_level("INFO")
    names = audio(recipe)
    data = write_st_set(recipe, "train", dict(reversed(names.items())))
    # as a German or English locale sorts: _ and capitals as if they were not there
    write_table(data / "text", {"spk1-b": "b", "spk1-a": "a", "spk2-c": "c"})
    import_data_dir(["--data_dir", str(data), "--out", "data/train", "--text", "text"])
    found = tables(elsewhere / "data/train")
    assert list(found["wav.scp"].items()) == [(key, f"{recipe}/{names[key]}") for key in TEXTS]
    assert found["text"] == {"spk1-a": "a", "spk1-b": "b", "spk2-c": "c"}
    assert f"{data}/wav.scp: not sorted in the C locale" in caplog.text


def test_several_become_one(recipe, elsewhere, tmp_path):
    """One with segments and one without."""
    names = audio(recipe)
    first = write_st_set(recipe, "first", names)
    second = recipe / "data" / "second"
    long = recipe / "downloads" / "long.wav"
    soundfile.write(long, ramp(0, 32000), RATE, subtype="PCM_16")
    write_table(second / "wav.scp", {"spk9-long": "downloads/long.wav", "unused": "none.wav"})
    write_table(second / "segments", {"spk9-1": "spk9-long 0.5 1", "spk9-2": "spk9-long 1.5 -1"})
    write_table(second / "text", {"spk9-1": "one", "spk9-2": "two"})
    write_table(second / "utt2spk", {"spk9-1": "spk9", "spk9-2": "spk9"})
    options = ["--data_dir", str(first), "--data_dir", str(second), "--src_lang", "en"]
    import_data_dir([*options, "--out", "data/both"])
    samples, found = formatted(elsewhere / "data/both", tmp_path / "out")
    assert list(samples) == [*TEXTS, "spk9-1", "spk9-2"]
    assert same(samples["spk1-b"], 1000) and same(samples["spk9-1"], 8000)
    assert same(samples["spk9-2"], 24000)
    assert found["spk2utt"] == {"spk1": "spk1-a spk1-b", "spk2": "spk2-c", "spk9": "spk9-1 spk9-2"}
    assert list(found["text.tc.de"]) == list(TEXTS)  # the second directory has none


def test_what_is_wrong_is_listed(recipe, elsewhere):
    names = audio(recipe)
    data = write_st_set(recipe, "train", names)
    (recipe / names["spk1-b"]).unlink()
    write_table(data / "text", {"spk1-a": "a", "spk1-b": "b", "spk3-x": "x"})
    with open(data / "utt2spk", "ab") as stream:
        stream.write(b"spk2-c again\n\nspk9 \xff\n")
    options = ["--data_dir", str(data), "--out", "data/train", "--text", "text"]
    with pytest.raises(SpireError, match="6 of 7 utterances are unusable"):
        import_data_dir(options)
    import_data_dir([*options, "--max_rejected", "1"])
    assert list(tables(elsewhere / "data/train")["text"]) == ["spk1-a"]
    assert read_rejected("data/train/rejected.tsv") == {
        "spk1-b": f"{recipe}/{names['spk1-b']}: no such audio file ({data}/wav.scp, line 2)",
        "spk2-c": f"is there already: line 3 ({data}/utt2spk, line 4)",
        "spk2-c#2": f"is not in text ({data}/wav.scp, line 3)",
        "spk3-x": f"is not in wav.scp ({data}/text, line 3)",
        "utt2spk:5": f"empty line ({data}/utt2spk, line 5)",
        "utt2spk:6": f"not valid UTF-8 (invalid start byte) ({data}/utt2spk, line 6)",
    }


@pytest.mark.parametrize(
    "segment, reason",
    [
        ("rec 0", "'rec 0' is not recording, start, end"),
        ("rec 0 1 A", "'rec 0 1 A' is not recording, start, end"),
        ("other 0 1", "recording other is not in wav.scp"),
        ("rec 1 0.5", "1.0 s to 0.5 s is no part of a recording"),
    ],
)
def test_segments_that_are_none(recipe, elsewhere, segment, reason):
    data = recipe / "data/train"
    write_table(data / "wav.scp", {"rec": f"{recipe}/rec.wav"})
    soundfile.write(recipe / "rec.wav", ramp(0, 32000), RATE)
    write_table(data / "segments", {"a": "rec 0 1", "b": segment})
    write_table(data / "text", {"a": "one", "b": "two"})
    write_table(data / "utt2spk", {"a": "a", "b": "b"})
    import_data_dir(["--data_dir", str(data), "--out", "data/x", "--max_rejected", "0.5"])
    assert read_rejected("data/x/rejected.tsv") == {"b": f"{reason} ({data}/segments, line 2)"}


def test_a_test_set_is_whole(recipe, elsewhere):
    data = write_st_set(recipe, "test", audio(recipe))
    write_table(data / "text", {"spk1-a": "a", "spk1-b": "", "spk2-c": "c"})
    options = ["--data_dir", str(data), "--out", "data/test", "--text", "text", "--test_set"]
    import_data_dir([*options, "--max_rejected", "1"])
    assert tables(elsewhere / "data/test")["text"] == {"spk1-a": "a", "spk1-b": "", "spk2-c": "c"}
    write_table(data / "text", {"spk1-a": "a", "spk2-c": "c"})
    with pytest.raises(SpireError, match="1 of 3 utterances are unusable, first spk1-b: is not in"):
        import_data_dir([*options, "--max_rejected", "1"])


def test_outside_of_a_recipe_paths_are_those_of_the_current_directory(elsewhere):
    names = audio(elsewhere)
    data = elsewhere / "handmade"
    write_table(data / "wav.scp", names)
    write_table(data / "text", {key: plain(text) for key, (text, _) in TEXTS.items()})
    write_extras(data)
    import_data_dir(["--data_dir", "handmade", "--out", "data/train"])
    found = tables(elsewhere / "data/train")
    assert found["wav.scp"] == {key: f"{elsewhere}/{name}" for key, name in names.items()}
    # without utt2spk each utterance is its own speaker
    assert found["utt2spk"] == {key: key for key in TEXTS}


def test_another_recipe_directory(recipe, elsewhere):
    names = audio(recipe)
    data = elsewhere / "copied"
    write_table(data / "wav.scp", names)
    write_table(data / "text", {key: plain(text) for key, (text, _) in TEXTS.items()})
    options = ["--data_dir", "copied", "--out", "data/train"]
    with pytest.raises(SpireError, match=f"{elsewhere}/downloads/.*: no such audio file"):
        import_data_dir(options)
    import_data_dir([*options, "--recipe_dir", str(recipe)])
    assert tables(elsewhere / "data/train")["wav.scp"]["spk1-a"] == f"{recipe}/{names['spk1-a']}"


def test_a_pipe_that_cannot_run_says_why(recipe, elsewhere, tmp_path):
    data = write_st_set(recipe, "train", {key: "sph3pipe x.sph |" for key in TEXTS})
    import_data_dir(["--data_dir", str(data), "--out", "data/train", "--src_lang", "en"])
    command = [sys.executable, "-m", "espnet_spire.bin.format_data", "--data_dir", "data/train"]
    done = subprocess.run([*command, "--out", "out"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "sph3pipe: command not found" in done.stderr.splitlines()[-1]
