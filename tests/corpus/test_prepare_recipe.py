"""All corpora of a recipe: each set a step of its own, and what is missing said at once."""

import json
from pathlib import Path

import pytest
import yaml
from corpora import flores200, librispeech, moses

from espnet_spire.corpus.prepare_recipe import (
    Options,
    check_places,
    parse_set_rules,
    prepare_recipe,
)
from espnet_spire.corpus.recipe import load_recipe
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError

SETS = [
    {"set": "flores", "corpus": "flores200", "split": "devtest", "use": ["test"]},
    {
        "set": "train",
        "corpus": "librispeech",
        "split": "train-clean-100",
        "use": ["cpt"],
        "rules": ["max_per_speaker=1"],
    },
    {"set": "clean", "corpus": "librispeech", "split": "test-clean", "use": ["test"]},
    {
        "set": "parallel_en-de",
        "corpus": "parallel",
        "split": "en-de",
        "use": ["cpt"],
        "options": {"max_documents": 5},
    },
]


@pytest.fixture
def sets(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"sets": SETS}))
    return load_recipe(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora")
    return {
        "LIBRISPEECH": str(librispeech.build(root / "librispeech")),
        "FLORES200": str(flores200.build(root / "flores200")),
        "PARALLEL": str(moses.build(root / "moses")),
    }


def options(tmp_path, **changes):
    values = {
        "out": tmp_path / "data",
        "expdir": tmp_path / "exp",
        "nj": 1,
        "seed": 0,
        "max_rejected": 0.001,
        "rules": {},
    }
    return Options(**{**values, **changes})


def test_every_set_is_made_and_then_up_to_date(sets, places, tmp_path, capfd):
    prepare_recipe(sets, options(tmp_path), places)
    data = tmp_path / "data"
    assert len(read_table(data / "train/text")) == 1  # of two, by the rule
    assert len(read_table(data / "clean/text")) == 3
    assert len(read_table(data / "parallel_en-de/text.tc.de")) == 5
    assert (
        read_table(data / "flores/text.tc.zh").keys()
        == read_table(data / "flores/text.tc.en").keys()
    )
    report = json.loads((data / "train/preparation.json").read_text())
    assert [step["utterances"] for step in report["steps"]] == [2, 1]
    capfd.readouterr()
    prepare_recipe(sets, options(tmp_path), places)
    assert capfd.readouterr().out.count(": up to date") == len(sets)


def test_other_rules_make_a_set_anew(sets, places, tmp_path, capfd):
    prepare_recipe(sets[1:2], options(tmp_path), places)
    rules = parse_set_rules(["train="], sets)
    prepare_recipe(sets[1:2], options(tmp_path, rules=rules), places)
    assert len(read_table(tmp_path / "data/train/text")) == 2
    assert "moved to" in capfd.readouterr().out
    prepare_recipe(sets[1:2], options(tmp_path), places)
    assert len(read_table(tmp_path / "data/train/text")) == 1
    assert "moved back" in capfd.readouterr().out


def test_all_unset_variables_are_named(sets):
    with pytest.raises(SpireError) as error:
        check_places(sets, {"PARALLEL": "somewhere"})
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[1].strip().startswith("FLORES200 (where flores200 lies; get it from https://")
    assert "LIBRISPEECH (where librispeech lies" in lines[2]


def test_a_set_that_fails_does_not_keep_the_others(sets, places, tmp_path, caplog):
    broken = {**places, "LIBRISPEECH": str(tmp_path / "nowhere")}
    with pytest.raises(SpireError, match="^train, clean could not be made"):
        prepare_recipe(sets, options(tmp_path), broken)
    assert "nowhere: no such directory; in db.sh, set LIBRISPEECH" in caplog.text
    assert (tmp_path / "data/parallel_en-de/text.tc.de").exists()


def test_a_rule_that_reads_what_is_not_there(sets, places, tmp_path, caplog):
    rules = parse_set_rules([f"train=without_overlap={tmp_path}/no"], sets)
    with pytest.raises(SpireError, match="^train could not be made"):
        prepare_recipe(sets[1:2], options(tmp_path, rules=rules), places)
    assert f"{tmp_path}/no is not there, which the rule" in caplog.text


@pytest.mark.parametrize("entry", ["train", "other=min_seconds=3"])
def test_rules_for_no_set(sets, entry):
    with pytest.raises(SpireError, match="not SET=RULE"):
        parse_set_rules([entry], sets)


def test_several_rules():
    sets = load_recipe(Path(__file__).parents[2] / "conf/full_corpora.yaml")
    found = parse_set_rules(["mls_train=", "covost2_train=min_seconds=1,max_per_speaker=2"], sets)
    assert found == {"mls_train": [], "covost2_train": ["min_seconds=1", "max_per_speaker=2"]}
