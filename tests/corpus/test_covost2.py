"""CoVoST-2: CommonVoice's clips with translations, as its own script joins them."""

import csv
import shutil
import subprocess

import pandas
import pytest
from corpora import covost2
from corpora.checks import error_of, prepare, rejected
from corpora.commonvoice import client, clip, sentence
from corpora.covost2 import CLIPS
from corpora.material import say

PAIRS = ["--targets", "de", "zh"]


@pytest.fixture
def root(tmp_path):
    return covost2.build(tmp_path / "Co VoST")


def key(speaker, number):
    return f"{client(speaker)}-common_voice_en_{number}"


def rows(*splits):
    return {key(s, n): (s, n, text) for s, n, text, split in CLIPS if split in splits}


def test_tables(root, tmp_path):
    tables = prepare("covost2", root, "train", tmp_path / "out", *PAIRS)
    expected = rows("train", "train_covost")
    assert len(expected) == 3
    audio = {k: f"{root}/en/clips/{clip(n)}" for k, (_, n, _) in expected.items()}
    assert tables.pop("wav.scp") == audio
    assert tables.pop("text") == {k: sentence(text) for k, (_, _, text) in expected.items()}
    assert tables.pop("utt2spk") == {k: client(s) for k, (s, _, _) in expected.items()}
    assert tables.pop("spk2utt")[client(2)] == f"{key(2, 501)} {key(2, 502)}"
    for lang in ("de", "zh"):
        texts = {k: say(text)[lang] for k, (_, _, text) in expected.items()}
        texts[key(2, 502)] = "C:\\" + say(22)[lang]
        assert tables.pop(f"text.tc.{lang}") == texts
    assert not tables


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_as_the_corpus_own_script_joins_it(root, tmp_path, split):
    """get_covost_splits.py of its repository: pandas, inner join on ``path``."""

    def load(name):
        options = {"sep": "\t", "escapechar": "\\", "quoting": csv.QUOTE_NONE, "na_filter": False}
        return pandas.read_csv(root / "en" / name, **options)

    joined = pandas.merge(
        load("validated.tsv")[["path", "sentence", "client_id"]],
        load("covost_v2.en_zh-CN.tsv")[["path", "translation", "split"]],
        how="inner",
        on="path",
    )
    wanted = [split, "train_covost"] if split == "train" else [split]
    joined = joined[joined["split"].isin(wanted)]
    keys = joined["client_id"] + "-" + joined["path"].str.removesuffix(".mp3")
    tables = prepare("covost2", root, split, tmp_path / "out", *PAIRS)
    assert tables["text"] == dict(zip(keys, joined["sentence"], strict=True))
    assert tables["text.tc.zh"] == dict(zip(keys, joined["translation"], strict=True))
    assert tables["utt2spk"] == dict(zip(keys, joined["client_id"], strict=True))


def test_archives_and_clips_elsewhere(root, tmp_path, monkeypatch):
    whole = prepare("covost2", root, "test", tmp_path / "whole", *PAIRS)
    for lang in ("de", "zh-CN"):
        name = f"covost_v2.en_{lang}.tsv"
        (root / "en" / name).rename(root / name)
        archive = root / f"{name}.tar.gz"
        subprocess.run(["tar", "-czf", archive, "-C", root, name], check=True)
        (root / name).unlink()
    release = tmp_path / "cv-corpus-4-2019-12-10"
    shutil.move(root / "en", release / "en")
    error = error_of("covost2", root, "test", tmp_path / "out", *PAIRS)
    assert "validated.tsv" in error and "set COMMONVOICE_COVOST to its directory" in error
    monkeypatch.setenv("COMMONVOICE_COVOST", str(release))
    tables = prepare("covost2", root, "test", tmp_path / "out", *PAIRS)
    audio = tables.pop("wav.scp")
    assert {k: v.replace(str(release), str(root)) for k, v in audio.items()} == whole.pop("wav.scp")
    assert tables == whole
    archive = root / "covost_v2.en_de.tsv.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-40])
    error = error_of("covost2", root, "test", tmp_path / "cut", *PAIRS)
    assert error.startswith(f"{archive}: cut off or damaged")


def test_a_training_set_goes_on_and_lists_what_is_wrong(root, tmp_path):
    german, chinese = (root / "en" / f"covost_v2.en_{lang}.tsv" for lang in ("de", "zh-CN"))
    text = german.read_text().replace(f"{clip(500)}\t{say(20)['de']}", f"{clip(500)}\t")
    german.write_text(text)
    with open(german, "ab") as stream:
        stream.write(f"{clip(501)}\tAnders.\ttrain\n".encode())
        stream.write(f"{clip(600)}\tNiemand sagt es.\ttrain\n".encode())
        stream.write(f"{clip(500)}\tEin\tTab\ttrain\n".encode())
        stream.write(f"{clip(500)}\tS\u00e4tze\ttrain\n".encode("latin-1"))
    validated = root / "en/validated.tsv"
    lines = validated.read_text().splitlines(keepends=True)
    with open(validated, "a") as stream:
        stream.write(lines[1].replace(client(1), client(9)))
        stream.write("no table\n")
    (root / "en/clips" / clip(502)).unlink()
    options = [*PAIRS, "--max_rejected", "1"]
    tables = prepare("covost2", root, "train", tmp_path / "out", *options)
    assert list(tables["text"]) == sorted([key(1, 500), key(2, 501)])
    # without its German, which is empty
    assert tables["text.tc.de"] == {key(2, 501): say(21)["de"]}
    assert list(tables["text.tc.zh"]) == list(tables["text"])
    assert rejected(tmp_path / "out") == {
        clip(501): f"has a translation into de already ({german}, line 8)",
        clip(600): f"is not in {validated} ({german}, line 9)",
        f"{german.name}:10": f"4 columns where 3 were expected ({german}, line 10)",
        f"{german.name}:11": f"not valid UTF-8 (invalid continuation byte) ({german}, line 11)",
        "validated.tsv:10": f"1 columns where 10 were expected ({validated}, line 10)",
        key(2, 502): f"{root}/en/clips/{clip(502)}: no such audio file ({german}, line 5)",
    }


def test_what_is_said(root, tmp_path, caplog):
    caplog.set_level("INFO")
    prepare("covost2", root, "dev", tmp_path / "out", "--targets", "de")
    said = "rows: 1 of 'dev', 2 of 'test', 2 of 'train', 1 of 'train_covost'"
    assert said in caplog.text


def test_a_test_set_is_whole_or_not_at_all(root, tmp_path):
    path = root / "en/validated.tsv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if clip(504) not in line))
    error = error_of("covost2", root, "test", tmp_path / "out", *PAIRS)
    assert error.startswith("covost2 test: 1 of 2 utterances are unusable")
    assert f"is not in {path} ({root}/en/covost_v2.en_de.tsv, line 3)" in error


def test_a_language_that_is_not_there(root, tmp_path):
    error = error_of("covost2", root, "test", tmp_path / "out", "--targets", "ca")
    assert "neither en/covost_v2.en_ca.tsv nor covost_v2.en_ca.tsv is there" in error
    assert "or leave ca out of --targets" in error
    error = error_of("covost2", root, "test", tmp_path / "out", "--targets")
    assert "covost2: --targets is empty" in error
