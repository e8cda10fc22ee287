"""ESPnet's own data preparation, run in place in a small checkout, and imported."""

import os
import shutil
import subprocess
import sys
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import soundfile
from corpora import espnet
from corpora.kaldi import TEXTS, ramp

from espnet_spire.bin.import_espnet import main
from espnet_spire.corpus.espnet_recipe import WantedSet, parse_sets
from espnet_spire.corpus.format import Limits, format_data_dir
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError

SETS = ["--sets", "train.en-de:train dev test"]
ST = ["--src_lang", "en", "--tgt_langs", "de"]


@pytest.fixture
def checkout(tmp_path):
    return espnet.build(tmp_path / "esp net")


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Our recipe's directory, the current one."""
    path = tmp_path / "spire1"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def options(checkout, *more):
    return ["--espnet_root", str(checkout), "--recipe", "xyz/st1", *ST, *SETS, *more]


def runs(checkout):
    return (checkout / "egs2/xyz/st1/runs").read_text().count("run")


def test_run_and_imported(checkout, ours, tmp_path):
    main(options(checkout, "--test_sets", "test", "--recipe_opts", "--tgt_lang de"))
    for name in ("train", "dev", "test"):
        with ThreadPool(1) as pool:
            out = tmp_path / "out" / name
            format_data_dir(f"data/{name}", out, limits=Limits(), pool=pool)
        for number, (key, path) in enumerate(read_table(out / "wav.scp").items()):
            samples, _ = soundfile.read(path, dtype="int16")
            assert np.array_equal(samples, ramp(1000 * number)), key
        assert read_table(out / "text") == {key: text for key, (text, _) in TEXTS.items()}
        assert read_table(out / "text.tc.de") == {key: text for key, (_, text) in TEXTS.items()}
    log = next((ours / "exp/log").glob("espnet_xyz_st1_*.log")).read_text()
    assert log.splitlines()[0] == "(data.sh) stage 0: Data Downloading, by run.pl"
    assert os.path.isabs(read_table("data/train/wav.scp")["spk1-a"])


def test_it_is_run_once_for_the_same_options(checkout, ours):
    given = options(checkout, "--", "--tgt_lang", "de")
    main(given)
    main(given)
    assert runs(checkout) == 1
    shutil.rmtree(checkout / "egs2/xyz/st1/data/dev")  # gone: made again
    main(given)
    assert runs(checkout) == 2
    script = checkout / "egs2/xyz/st1/local/data.sh"
    script.write_text(script.read_text() + "# changed\n")
    main(given)
    assert runs(checkout) == 3
    main([*given[: given.index("--")], "--skip_recipe"])
    assert runs(checkout) == 3


def test_what_it_says_when_it_fails(checkout, ours):
    command = [sys.executable, "-m", "espnet_spire.bin.import_espnet"]
    done = subprocess.run(
        [*command, *options(checkout, "--recipe_opts", "--tgt_lang de --fail true")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    log = next((ours / "exp/log").glob("*.log"))
    assert done.stderr.splitlines()[-1] == (
        f"error: {checkout}/egs2/xyz/st1/local/data.sh ended with status 3: Error: it seems that"
        f" moses is not installed. (log: {log})"
    )
    assert not (ours / "data").exists()
    # and it is run again
    main(options(checkout, "--recipe_opts", "--tgt_lang de"))
    assert runs(checkout) == 2


def test_a_set_that_is_not_there(checkout, ours):
    given = ["--espnet_root", str(checkout), "--recipe", "xyz/st1", "--sets", "train:train"]
    with pytest.raises(SpireError) as error:
        main([*given, *ST, "--", "--tgt_lang", "de"])
    assert str(error.value) == (
        f"{checkout}/egs2/xyz/st1: no data/train nor dump/raw/train nor dump/raw/org/train there;"
        " there are data/dev, data/test, data/train.en-de"
    )


@pytest.mark.parametrize("where, expected", [("auto", "of data"), ("dump", "of dump")])
def test_what_was_dumped(checkout, ours, where, expected):
    recipe = checkout / "egs2/xyz/st1"
    for folder, text in (("data", "of data"), ("dump/raw/org", "of dump")):
        directory = recipe / folder / "train"
        directory.mkdir(parents=True)
        (directory / "wav.scp").write_text("a downloads/my audio/spk1-a.wav\n")
        (directory / "text").write_text(f"a {text}\n")
        (directory / "utt2spk").write_text("a a\n")
    given = ["--espnet_root", str(checkout), "--recipe", "xyz/st1", "--sets", "train"]
    main([*given, "--skip_recipe", "--where", where])
    assert read_table("data/train/text") == {"a": expected}
    shutil.rmtree(recipe / "data")
    main([*given, "--skip_recipe", "--where", where])
    assert read_table("data/train/text") == {"a": "of dump"}


def test_two_sets_become_one(checkout, ours):
    recipe = checkout / "egs2/xyz/st1/data"
    for name in ("one", "two"):
        (recipe / name).mkdir(parents=True)
        (recipe / name / "wav.scp").write_text(f"{name} downloads/my audio/spk1-a.wav\n")
        (recipe / name / "text").write_text(f"{name} hello\n")
        (recipe / name / "utt2spk").write_text(f"{name} {name}\n")
    given = ["--espnet_root", str(checkout), "--recipe", "xyz/st1", "--skip_recipe"]
    main([*given, "--sets", "one+two:train", "two:dev"])
    assert list(read_table("data/train/text")) == ["one", "two"]
    assert list(read_table("data/dev/text")) == ["two"]


def test_a_recipe_that_is_not_there(checkout, ours, tmp_path, monkeypatch):
    given = options(checkout)
    with pytest.raises(SpireError, match="asr1: no local/data.sh there; there is xyz/st1"):
        main([*given, "--recipe", "xyz/asr1"])
    with pytest.raises(SpireError, match="egs2 has no abc with one either"):
        main([*given, "--recipe", "abc/asr1"])
    with pytest.raises(SpireError, match="no egs2 there; --espnet_root is ESPnet's checkout"):
        main([*given, "--espnet_root", str(tmp_path)])
    monkeypatch.delenv("ESPNET_ROOT", raising=False)
    with pytest.raises(SpireError, match="--espnet_root is missing"):
        main(given[2:])
    with pytest.raises(SpireError, match="--test_sets eval: not among the sets"):
        main([*given, "--test_sets", "eval", "--", "--tgt_lang", "de"])


@pytest.mark.parametrize(
    "words, reason",
    [
        (["a:"], "a:: THEIRS, THEIRS:OURS"),
        ([":b"], "THEIRS, THEIRS:OURS or ONE"),
        (["a+b"], "THEIRS, THEIRS:OURS or ONE"),
        (["a:train", "b:train"], "train is there twice; ONE[+]TWO:train joins"),
        ([""], "--sets is empty"),
    ],
)
def test_sets_that_cannot_be_read(words, reason):
    with pytest.raises(SpireError, match=reason):
        parse_sets(words)


def test_sets_in_one_word_or_several():
    expected = [WantedSet(["a"], "x"), WantedSet(["b", "c"], "y"), WantedSet(["d"], "d")]
    assert parse_sets(["a:x b+c:y", "d"]) == parse_sets(["a:x", "b+c:y", "d"]) == expected
