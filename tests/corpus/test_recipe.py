"""A recipe's sets: checked, chosen, and what follows from a choice."""

from pathlib import Path

import pytest
import yaml

from espnet_spire.corpus.recipe import (
    choose,
    load_recipe,
    select_mixture,
    settings,
    write_mixture,
)
from espnet_spire.train.mixture import budget_of, load_mixture, sources_of
from espnet_spire.utils.errors import SpireError

CONF = Path(__file__).parents[2] / "conf"
FULL = CONF / "full_corpora.yaml"


@pytest.fixture(scope="module")
def full():
    return load_recipe(FULL)


def test_the_paper_s_sets(full):
    found = settings(choose(full, "all"))
    # spire-facts: SPGISpeech, GigaSpeech, MLS, VoxPopuli in CPT; the others in IT (Table 1)
    assert set(found["train_set"].split()) == {
        *("spgispeech_train", "gigaspeech_xl", "mls_train", "voxpopuli_train"),
        *("commonvoice_train", "europarl_st_train", "fleurs_train", "covost2_train"),
    }
    assert found["pseudo_set"].split() == ["spgispeech_train", "gigaspeech_xl", "commonvoice_train"]
    # 3.1: CoVoST-2 at most 8 a speaker, VoxPopuli 250, MLS without a cap
    caps = dict(
        zip(found["kmeans_set"].split(), found["kmeans_max_per_speaker"].split(), strict=True)
    )
    assert caps == {"covost2_train": "8", "voxpopuli_train": "250", "mls_train": "0"}
    assert {"librispeech_test-clean", "fleurs_test", "voxpopuli_test"} <= set(
        found["test_sets"].split()
    )
    assert "flores200_devtest" in found["text_test_sets"].split()


def test_the_paper_s_rules(full):
    rules = {one.set: list(one.rules) for one in full if one.rules}
    assert rules == {
        "mls_train": ["max_per_speaker=13"],
        "commonvoice_train": ["min_seconds=3", "max_speakers_per_transcript=4"],
        "fleurs_train": ["without_overlap=data/flores200_devtest/text.tc.en"],
        "covost2_train": ["max_per_speaker=8"],
    }


def test_every_source_of_the_mixtures_is_made(full):
    made = {one.set for one in full}
    for name in ("mixture_cpt", "mixture_it", "mixture_cpt_valid", "mixture_it_valid"):
        for source in load_mixture(CONF / f"{name}.yaml")["sources"]:
            place = source.get("data_dir") or source.get("text_dir") or source["file"]
            assert Path(place).name in made, source["name"]
            if "translations" in source:
                pseudo = Path(source["translations"]).name.removesuffix(".{lang}")
                assert "pseudo" in next(one for one in full if one.set == pseudo).use


def test_a_subset_has_its_own_sets(full):
    found = settings(choose(full, "gigaspeech fleurs"))
    assert found["train_set"] == "gigaspeech_xl fleurs_train"
    assert found["kmeans_set"] == "gigaspeech_xl fleurs_train"
    assert found["kmeans_max_per_speaker"] == ""
    assert found["text_test_sets"] == ""


@pytest.mark.parametrize("corpora", ["", "gigaspeech ted"])
def test_unknown_corpora(full, corpora):
    with pytest.raises(SpireError, match="is none of flores200"):
        choose(full, corpora)


def test_corpora_without_speech_to_train_on(full):
    with pytest.raises(SpireError, match="no training set of speech"):
        settings(choose(full, "librispeech mc4"))


def test_a_subset_keeps_the_tokens_of_its_sources(full, tmp_path):
    path = CONF / "mixture_cpt.yaml"
    whole = load_mixture(path)
    chosen = choose(full, "gigaspeech mc4")
    part = select_mixture(path, full, chosen)
    write_mixture(tmp_path / "part.yaml", part, path)
    part = load_mixture(tmp_path / "part.yaml", "elsewhere")
    assert [source["name"] for source in part["sources"]] == ["gigaspeech", "mc4"]
    # by hand: 1.391 and 0.666 of the 6.000 billion that the weights add up to
    assert part["budget"] == 2_057_000_000
    for source in part["sources"]:
        before = next(s for s in whole["sources"] if s["name"] == source["name"])
        assert budget_of(part, source).max_tokens == pytest.approx(
            budget_of(whole, before).max_tokens, abs=1
        )
    assert part["sources"][0]["data_dir"] == "elsewhere/raw/gigaspeech_xl"


def test_fixed_tokens_stay_fixed(full, tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text(
        "format: plain\nbudget: 1000\nsources:\n"
        "- {name: a, task: asr, data_dir: x/mls_train, max_tokens: 100, repeat: 2}\n"
        "- {name: b, task: asr, data_dir: x/gigaspeech_xl, weight: 3}\n"
        "- {name: c, task: asr, data_dir: x/mine, weight: 1}\n"
    )
    part = select_mixture(path, full, choose(full, "gigaspeech"))
    assert [source["name"] for source in part["sources"]] == ["b", "c"]
    assert part["budget"] == 800
    part = select_mixture(path, full, choose(full, "mls"))
    # 200 of the 1000 are fixed; of the 800 that are shared a quarter is left
    assert [source["name"] for source in part["sources"]] == ["a", "c"]
    assert part["budget"] == 400


def test_variants_survive(full, tmp_path):
    part = select_mixture(CONF / "mixture_it.yaml", full, choose(full, "fleurs towerblocks"))
    assert [s["name"] for s in sources_of(part, "spirefull")] == ["fleurs", "towerblocks"]
    assert [s["name"] for s in sources_of(part, "spirenopseudo")] == ["towerblocks"]
    assert select_mixture(CONF / "mixture_it_valid.yaml", full, choose(full, "mls")) is None


@pytest.mark.parametrize(
    "change, said",
    [
        ({"corpus": "ted"}, "corpus 'ted' is unknown"),
        ({"use": ["dev"]}, "known are cpt, it"),
        ({"rules": ["shortest=1"]}, "rule 'shortest=1' is unknown"),
        ({"hour": 3}, "unknown key 'hour'"),
    ],
)
def test_mistakes_in_the_file(tmp_path, change, said):
    entry = {"set": "s", "corpus": "mls", "split": "train", "use": ["cpt"], **change}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"sets": [entry]}))
    with pytest.raises(SpireError, match=f"recipe.yaml: set s: .*{said}|{said}"):
        load_recipe(path)


def test_a_set_twice_and_no_sets(tmp_path):
    entry = {"set": "s", "corpus": "mls", "split": "train", "use": ["cpt"]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"sets": [entry, entry]}))
    with pytest.raises(SpireError, match="set s: is there twice"):
        load_recipe(path)
    path.write_text("sets: []\n")
    with pytest.raises(SpireError, match="a list 'sets'"):
        load_recipe(path)
