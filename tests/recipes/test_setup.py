"""``egs2/spire/setup.sh``: recipe directories anywhere, and in a checkout of ESPnet."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import espnet, librispeech
from corpora.kaldi import TEXTS, audio, ramp

from espnet_spire.train.mixture import load_mixture
from espnet_spire.utils.datadir import read_table

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "egs2/spire/setup.sh"
MADE = {
    "cmd.sh",
    "conf",
    "db.sh",
    "local",
    "mixture_cpt.yaml",
    "mixture_it.yaml",
    "path.sh",
    "run.sh",
    "spire.sh",
}


def run(command, cwd, **environment):
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def setup(directory, cwd, script=SETUP):
    done = run([script, directory], cwd)
    assert done.returncode == 0, done.stderr
    return done


def refused(directory, cwd):
    done = run([SETUP, directory], cwd)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.removeprefix("error: ").rstrip("\n")


def links(recipe):
    """Where the links of a recipe lead, by name."""
    found = {}
    for path in [*recipe.iterdir(), *(recipe / "local").iterdir()]:
        if path.is_symlink():
            assert path.exists(), f"{path} leads nowhere"
            found[str(path.relative_to(recipe))] = path.resolve()
    return found


OURS = {
    "spire.sh": ROOT / "egs2/spire/spire.sh",
    "path.sh": ROOT / "egs2/spire/path.sh",
    "db.sh": ROOT / "egs2/spire/db.sh",
    "conf": ROOT / "conf",
    "cmd.sh": ROOT / "egs2/spire/cmd.sh",
    "local/espnet_data.sh": ROOT / "local/espnet_data.sh",
}


@pytest.mark.parametrize("spelled", ["absolute", "relative", "dots", "slash", "empty"])
def test_a_recipe_directory_anywhere(tmp_path, spelled):
    place = tmp_path / "my work"
    (place / "deep").mkdir(parents=True)
    recipe = place / "new corpus" / "spire1"
    if spelled == "empty":
        recipe.mkdir(parents=True)
    name = {
        "relative": "../new corpus/spire1",
        "dots": "./../new corpus/../new corpus/spire1",
        "slash": f"{recipe}/",
    }.get(spelled, recipe)
    done = setup(name, place / "deep")
    assert {path.name for path in recipe.iterdir()} == MADE
    assert OURS.items() <= links(recipe).items()
    for copied in ("run.sh", "local/data.sh"):
        assert os.access(recipe / copied, os.X_OK) and not (recipe / copied).is_symlink()
    assert f"{name} is made" in done.stdout
    assert not list(recipe.parent.glob(".setup*"))


def test_links_in_the_project_move_with_it(tmp_path):
    """A copy of the project; its recipe is made there through a link to setup.sh."""
    project = tmp_path / "the project"
    shutil.copytree(ROOT / "egs2/spire/template", project / "egs2/spire/template")
    for script in (ROOT / "egs2/spire").glob("*.sh"):
        shutil.copy(script, project / "egs2/spire")
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copytree(ROOT / "local", project / "local")
    (tmp_path / "setup").symlink_to(project / "egs2/spire/setup.sh")
    setup("egs2/mine/spire1", project, tmp_path / "setup")
    moved = project.rename(tmp_path / "moved")
    recipe = moved / "egs2/mine/spire1"
    assert os.readlink(recipe / "spire.sh") == "../../spire/spire.sh"
    assert links(recipe)["conf"] == moved / "conf"


def test_nothing_is_overwritten(tmp_path):
    setup("spire1", tmp_path)
    (tmp_path / "spire1/run.sh").write_text("mine")
    assert refused("spire1", tmp_path) == (
        "spire1 is there already and has files in it; name another directory, or remove it yourself"
    )
    assert (tmp_path / "spire1/run.sh").read_text() == "mine"
    assert "is a file; name a directory" in refused("spire1/run.sh", tmp_path)


def test_usage(tmp_path):
    for words, status in ((["--help"], 0), ([], 2), (["a", "b"], 2), (["--force"], 2), ([""], 2)):
        done = run([SETUP, *words], tmp_path)
        assert (done.returncode, done.stderr) == (status, "")
        assert done.stdout.startswith("Usage: ")
    assert list(tmp_path.iterdir()) == []


def test_mixtures_of_the_template_are_valid():
    template = ROOT / "egs2/spire/template"
    for name in ("mixture_cpt.yaml", "mixture_it.yaml"):
        text = (template / name).read_text()
        assert [s["name"] for s in load_mixture(template / name, "{dumpdir}")["sources"]] == ["asr"]
        # and what is commented out is, once it is not
        assert text.count("  # - {") >= 2


@pytest.mark.parametrize("name", ["mixture_cpt.yaml", "mixture_it.yaml"])
def test_what_mixtures_show_can_be_switched_on(tmp_path, name):
    lines, inside = [], False
    for line in (ROOT / "egs2/spire/template" / name).read_text().splitlines():
        inside = line.startswith("  # - {") or (inside and line.startswith("  #    "))
        lines.append(line.replace("  # ", "  ", 1) if inside else line)
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    names = [source["name"] for source in load_mixture(tmp_path / name, "{dumpdir}")["sources"]]
    expected = (
        ["mono", "parallel"] if "cpt" in name else ["gold_st", "pseudo_st", "multi_turn", "blocks"]
    )
    assert names == ["asr", *expected]


def way(recipe, name):
    """Choose one of the ways that local/data.sh shows."""
    script = recipe / "local/data.sh"
    text = script.read_text()
    assert text.endswith("\nown_tables\n")
    script.write_text(text.removesuffix("own_tables\n") + f"{name}\n")
    return script


def prepared(recipe, *options):
    """Run stages 1 and 2; samples of each utterance by set."""
    command = ["./run.sh", "--ngpu", "0", "--nj", "1", "--stop_stage", "2"]
    done = run([*command, *options], recipe)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return {
        name: {
            key: soundfile.read(recipe / path, dtype="int16")[0]
            for key, path in read_table(recipe / "dump/raw" / name / "wav.scp").items()
        }
        for name in ("train", "dev", "test")
    }


def test_own_tables(tmp_path):
    recipe = tmp_path / "a recipe"
    setup(recipe, tmp_path)
    corpus = tmp_path / "my corpus"
    names = audio(corpus)
    for name in ("train", "dev", "test"):
        lines = []
        for key in reversed(names):
            speaker, utterance = key.split("-")
            lines.append("\t".join([utterance, speaker, names[key], *TEXTS[key]]))
        (corpus / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    failed = run(["./run.sh", "--stop_stage", "1"], recipe)
    assert failed.returncode != 0
    assert "downloads/train.tsv: no such file; write own_tables" in failed.stderr
    (recipe / "downloads").symlink_to(corpus)
    found = prepared(recipe)
    for samples in found.values():
        assert all(np.array_equal(samples[key], ramp(1000 * n)) for n, key in enumerate(TEXTS))
    raw = recipe / "dump/raw/train"
    assert read_table(raw / "text") == {key: text for key, (text, _) in TEXTS.items()}
    assert read_table(raw / "text.tc.de") == {key: text for key, (_, text) in TEXTS.items()}
    again = run(["./run.sh", "--ngpu", "0", "--stop_stage", "2", "--nj", "2"], recipe)
    assert again.stdout.count("up to date") == 2


def test_lhotse_recipe(tmp_path):
    recipe = tmp_path / "spire1"
    setup(recipe, tmp_path)
    librispeech.build(recipe / "downloads")
    way(recipe, "from_lhotse")
    done = run(["./run.sh", "--stop_stage", "1"], recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    texts = [read_table(recipe / "data" / name / "text") for name in ("train", "dev", "test")]
    assert [len(text) for text in texts] == [2, 1, 3]


@pytest.fixture
def checkout(tmp_path):
    return espnet.build(tmp_path / "esp net")


def test_inside_an_espnet_checkout(checkout, tmp_path):
    """Its Kaldi scripts are linked, its own recipe is run, and ours runs inside of it."""
    recipe = checkout / "egs2/xyz/spire1"
    setup("xyz/spire1", checkout / "egs2")
    expected = {**OURS, "db.sh": ROOT / "egs2/spire/espnet_db.sh"}
    kaldi = checkout / "tools/kaldi/egs/wsj/s5"
    expected |= {"utils": kaldi / "utils", "steps": kaldi / "steps"}
    assert expected.items() <= links(recipe).items()
    script = way(recipe, "from_espnet")
    text = script.read_text()
    asked = (
        "--recipe must_c/st1",
        '"train.en-de:train dev.en-de:dev tst-COMMON.en-de:test"',
        "-- de\n",
    )
    wanted = "--recipe xyz/st1", '"train.en-de:train dev test"', "-- --tgt_lang de\n"
    for before, after in zip(asked, wanted, strict=True):
        assert before in text
        text = text.replace(before, after)
    script.write_text(text)
    found = prepared(recipe)
    for samples in found.values():
        assert all(np.array_equal(samples[key], ramp(1000 * n)) for n, key in enumerate(TEXTS))
    assert read_table(recipe / "dump/raw/train/text")["spk2-c"] == "It rains, again!"
    # units of it: the checkout changes nothing in the stages that follow
    done = run(
        ["./run.sh", "--ngpu", "0", "--nj", "1", "--stage", "3", "--stop_stage", "4"]
        + ["--encoder", "mfcc", "--encoder_layer", "0", "--num_clusters", "2"],
        recipe,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    units = read_table(recipe / "dump/raw/test/text.rm.mfcc_0_km2")
    assert list(units) == list(TEXTS)


def test_without_kaldi(checkout):
    shutil.rmtree(checkout / "tools/kaldi")
    setup("abc/spire1", checkout / "egs2")
    recipe = checkout / "egs2/abc/spire1"
    assert {path.name for path in recipe.iterdir()} == MADE
    assert "error: local/data.sh: downloads/train.tsv" in run(["./run.sh"], recipe).stderr


@pytest.mark.parametrize("name", ["abc", "abc/def/spire1"])
def test_only_where_recipes_are_in_a_checkout(checkout, name):
    reason = refused(name, checkout / "egs2")
    assert reason == f"{name}: in an ESPnet checkout a recipe is {checkout}/egs2/<corpus>/<name>"
    assert not (checkout / "egs2/abc").exists()


def test_the_checkouts_db_sh_is_honoured(checkout):
    setup("xyz/spire1", checkout / "egs2")
    recipe = checkout / "egs2/xyz/spire1"
    (checkout / "egs2/TEMPLATE/asr1/db.sh").write_text(
        espnet.DB_SH.replace("LIBRISPEECH=", "LIBRISPEECH=/data/libri\nCOVOST2=/data/covost")
    )
    show = 'set -eu; . ./db.sh; echo "$LIBRISPEECH|$COVOST2|$FLEURS|$MADE_UP|$MLS"'
    environment = {"COVOST2": "/mine"}
    done = run(["bash", "-c", show], recipe, **environment)
    # the environment goes first; FLEURS=downloads is for downloads, of which there are none
    assert done.stdout == "/data/libri|/mine||/data/made up|\n", done.stderr
    (recipe / "downloads").mkdir()
    assert run(["bash", "-c", show], recipe).stdout.split("|")[1:3] == ["/data/covost", "downloads"]
