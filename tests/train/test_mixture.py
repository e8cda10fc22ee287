"""Mixture files: what they may say, and what they are told when they say something else."""

from pathlib import Path

import pytest
import yaml

import espnet_spire
from espnet_spire.train.mixture import budget_of, check_mixture, load_mixture, sources_of
from espnet_spire.train.selection import Limits, uniform_limits
from espnet_spire.utils.errors import SpireError

ASR = {"name": "asr", "task": "asr", "data_dir": "d"}
ST = {"name": "st", "task": "st", "data_dir": "d", "targets": ["de"]}
MONO = {"name": "mono", "task": "mono", "text_dir": "d", "langs": ["de", "xx"]}
MT = {"name": "mt", "task": "mt", "text_dir": "d", "pairs": ["en-de"]}
CHAT = {"name": "chat", "task": "chat", "file": "f"}


def mixture(*sources, **other):
    return {"format": "chatml", "max_length": 4096, "seed": 0, "sources": list(sources), **other}


def plain(*sources, **other):
    return mixture(*sources, **{"format": "plain", **other})


def load(tmp_path, value, **options):
    path = tmp_path / "mix.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return load_mixture(path, **options)


def test_a_mixture_file_gets_its_defaults(tmp_path):
    loaded = load(tmp_path, {"format": "plain", "sources": [ASR]})
    assert loaded == {"format": "plain", "sources": [ASR], "seed": 0, "max_length": 4096}


def test_checking_leaves_its_argument_alone_and_can_be_repeated():
    given = mixture({**ASR, "data_dir": "{dumpdir}/raw"})
    checked = check_mixture(given, "m", "elsewhere")
    assert given["sources"][0]["data_dir"] == "{dumpdir}/raw"
    assert checked["sources"][0]["data_dir"] == "elsewhere/raw"
    assert check_mixture(checked, "m") == checked


def test_dumpdir_stands_in_every_path(tmp_path):
    st = {**ST, "data_dir": "{dumpdir}/raw/a", "translations": "{dumpdir}/pseudo/a.{lang}"}
    chat = {**CHAT, "file": "{dumpdir}/b.jsonl"}
    assert load(tmp_path, mixture(st, chat))["sources"] == [
        {**st, "data_dir": "dump/raw/a", "translations": "dump/pseudo/a.{lang}"},
        {**chat, "file": "dump/b.jsonl"},
    ]
    loaded = load(tmp_path, plain({**MT, "text_dir": "{dumpdir}/t"}), dumpdir="/big/dump")
    assert loaded["sources"][0]["text_dir"] == "/big/dump/t"


@pytest.mark.parametrize(
    "value, words",
    [
        ("format: [", ["not valid YAML"]),
        ("", ["needs a list 'sources'"]),
        ({"format": "plain", "sources": []}, ["needs a list 'sources'"]),
        ({"format": "plain", "sources": "asr"}, ["needs a list 'sources'"]),
        (plain(ASR, sead=1), ["unknown key 'sead'; did you mean 'seed'?"]),
        (plain(ASR, zzz=1), ["unknown key 'zzz'; known are format, max_length, seed"]),
        (plain(ASR, seed="x"), ["seed: 'x' cannot be used"]),
        (plain(ASR, max_length=1), ["max_length: 1 cannot be used"]),
        (plain(ASR, budget=-1), ["budget: -1 cannot be used"]),
        ({"format": "chat", "sources": [ASR]}, ["'format' must be plain or chatml"]),
        ({"sources": [ASR]}, ["'format'"]),
        (mixture({**ASR, "max_token": 3}), ["source asr", "'max_token'", "mean 'max_tokens'?"]),
        (mixture({**ASR, "max_tokens": True}), ["source asr", "max_tokens: True"]),
        (mixture({**ASR, "max_tokens": "5e9"}), ["source asr", "max_tokens: '5e9'"]),
        (mixture({**ASR, "repeat": 0}), ["source asr", "repeat: 0"]),
        (mixture({**ASR, "range": [0.5, 0.5]}), ["source asr", "range: [0.5, 0.5]"]),
        (mixture({**ASR, "task": "tts"}), ["source asr", "'task' must be one of asr, st"]),
        (mixture({"name": "x", "task": "st", "data_dir": "d"}), ["source x", "'targets'"]),
        (mixture({**ST, "targets": []}), ["source st", "targets: []"]),
        (mixture({**ST, "targets": ["de", "de"]}), ["source st", "targets: ['de', 'de']"]),
        (mixture({**ST, "targets": ["de", "xx"]}), ["source st", "language 'xx' is unknown"]),
        (mixture({**ASR, "speech_lang": "xx"}), ["source asr", "language 'xx' is unknown"]),
        (mixture({**MT, "pairs": ["en_de"]}), ["source mt", "pairs: ['en_de']"]),
        (mixture({**MT, "pairs": ["en-xx"]}), ["source mt", "language 'xx' is unknown"]),
        (mixture({"name": "x", "task": "mt", "pairs": ["en-de"]}), ["source x", "'text_dir'"]),
        (mixture({"name": "x", "task": "chat"}), ["source x", "'file'"]),
        (plain({"name": "x", "task": "mono", "text_dir": "d"}), ["source x", "'langs'"]),
        (mixture(MONO), ["source mono: task mono has no chatml form; use plain"]),
        (plain(ST), ["source st: task st has no plain form; use chatml"]),
        (plain(CHAT), ["source chat: task chat has no plain form; use chatml"]),
        (plain({**ASR, "too_long": "cut"}), ["source asr", "'too_long' is not for task asr"]),
        (plain({**MONO, "too_long": "split"}), ["source mono", "too_long: 'split'"]),
        (plain({**ASR, "with_units": True}), ["source asr", "task asr but for chat"]),
        (plain({**ASR, "uniform": True}), ["source asr", "for st, st_multi_turn, st_kd, mt, mono"]),
        (mixture({**CHAT, "data_dir": "d"}), ["source chat", "'data_dir' is not for task chat"]),
        (plain({**MONO, "data_dir": "d"}), ["source mono", "'data_dir' is not for task mono"]),
        (plain({**MT, "data_dir": "d"}), ["source mt", "task mt but for asr, st, st_multi_turn"]),
        (mixture({**ASR, "targets": ["de"]}), ["source asr", "'targets' is not for task asr"]),
        (mixture({**ASR, "translations": "t"}), ["source asr", "'translations' is not for"]),
        (mixture({**ASR, "file": "f"}), ["source asr", "'file' is not for task asr"]),
        (plain({**MONO, "speech_lang": "de"}), ["source mono", "'speech_lang' is not for"]),
        (mixture({**ST, "targets": ["de", "en"]}), ["source st", "'en' is the language of the"]),
        (mixture({**ST, "speech_lang": "de"}), ["source st", "'de' is the language of the spee"]),
        (mixture({**MT, "pairs": ["en-de", "de-de"]}), ["source mt", "'de-de' is no translation"]),
        (mixture({**ASR, "range": [-0.5, 0.5]}), ["source asr", "range: [-0.5, 0.5]"]),
        (mixture({**ASR, "range": [0, 60]}), ["source asr", "range: [0, 60]"]),
        (mixture({**ASR, "range": [False, True]}), ["source asr", "range: [False, True]"]),
        (mixture({**ASR, "range": [0, float("nan")]}), ["source asr", "range: [0, nan]"]),
        (plain({**ASR, "weight": float("inf")}, budget=9), ["source asr", "weight: inf"]),
        ({"format": ["chatml"], "sources": [ASR]}, ["'format' must be plain or chatml"]),
        (mixture({**ASR, "task": ["asr"]}), ["source asr", "'task' must be one of"]),
        (mixture({**ASR, "not_in": ["b"]}, variants=["a", "c"]), ["not_in: 'b' is none", "a, c"]),
        (mixture(ASR, variants="a"), ["variants: 'a' cannot be used"]),
        (
            plain({**ASR, "max_tokens": 5, "repeat": 2}, {**MT, "weight": 1}, budget=10),
            ["budget: 10 tokens, but the sources with max_tokens take 10"],
        ),
        (plain({**ASR, "max_tokens": 11}, budget=10), ["budget: 10 tokens", "take 11"]),
        (plain({**MONO, "uniform": True}), ["source mono", "'uniform' needs max_tokens"]),
        (plain({**ASR, "weight": 1}), ["source asr", "'weight' needs a 'budget'"]),
        (plain(ASR, budget=10), ["source asr", "give it 'weight' or 'max_tokens'"]),
        (
            plain({**ASR, "weight": 1, "max_tokens": 3}, budget=10),
            ["source asr", "give it 'weight' or 'max_tokens'"],
        ),
        (mixture({**ASR, "data_dir": "{dump}/raw"}), ["source asr", "data_dir: '{dump}/raw'"]),
        (mixture({**CHAT, "file": "b.{lang}"}), ["source chat", "only {dumpdir}, and in"]),
        (mixture("asr"), ["'asr' has not"]),
        (mixture(ASR, ASR), ["'name' of its own", "'asr'"]),
        (mixture({"task": "asr", "data_dir": "d"}), ["'name' of its own"]),
        (mixture({**ASR, "name": "a b"}), ["name: 'a b' cannot be used"]),
    ],
)
def test_mixture_errors_name_file_source_and_key(tmp_path, value, words):
    with pytest.raises(SpireError) as caught:
        load(tmp_path, value)
    for word in [str(tmp_path / "mix.yaml"), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_mixture_file(tmp_path):
    with pytest.raises(SpireError, match="none.yaml: no such file"):
        load_mixture(tmp_path / "none.yaml")


def test_a_directory_is_no_mixture_file(tmp_path):
    with pytest.raises(SpireError, match="is a directory, a mixture file was expected"):
        load_mixture(tmp_path)


def test_listed_variants_are_all_there_are():
    mix = check_mixture(mixture(ASR, {**ST, "not_in": ["b"]}, variants=["a", "b"]), "m")
    assert [len(sources_of(mix, variant)) for variant in ("", "a", "b")] == [2, 2, 1]
    with pytest.raises(SpireError, match="--variant: 'B' is none of the mixture's variants: a, b"):
        sources_of(mix, "B")


def test_variants_leave_out_sources():
    mix = mixture(ASR, {**ASR, "name": "b", "not_in": ["noblocks", "other"]})
    assert [s["name"] for s in sources_of(mix, "full")] == ["asr", "b"]
    assert [s["name"] for s in sources_of(mix, "noblocks")] == ["asr"]


def test_budgets_of_sources():
    def budgets(*sources, **top):
        mix = check_mixture(plain(*sources, **top), "m")
        return [budget_of(mix, source) for source in mix["sources"]]

    assert budgets(ASR, {**MONO, "max_tokens": 5}, {**MT, "max_examples": 3}) == [
        Limits(None, None),
        Limits(5, None),
        Limits(None, 3),
    ]
    # 5B of speech and 1B of text, half of it parallel, which is taken twice
    shares = budgets(
        {**ASR, "weight": 5},
        {**MONO, "weight": 0.5, "uniform": True},
        {**MT, "weight": 0.5, "repeat": 2},
        # and a little that has its own, taken three times
        {**ASR, "name": "more", "max_tokens": 7, "repeat": 3},
        budget=6_000_000_021,
    )
    assert [share.max_tokens for share in shares] == [5_000_000_000, 500_000_000, 250_000_000, 7]
    assert budgets({**ASR, "max_tokens": 5}, budget=5) == [Limits(5, None)]


def test_a_variant_does_not_change_the_others_shares():
    mix = check_mixture(
        plain({**ASR, "weight": 1}, {**MT, "weight": 3, "not_in": ["nomt"]}, budget=100), "m"
    )
    (left,) = sources_of(mix, "nomt")
    assert budget_of(mix, left).max_tokens == 25


# The recipes' own ----------------------------------------------------------------------------

CONF = Path(espnet_spire.__file__).parents[1] / "conf"


@pytest.mark.parametrize("path", sorted(CONF.glob("*mixture*.yaml")), ids=lambda path: path.name)
def test_every_mixture_of_the_recipes_is_valid(path):
    words = {"speech_lang": "bem", "target_lang": "en"} if "lowres" in path.name else {}
    mix = load_mixture(path, "/somewhere/else", words)
    for source in mix["sources"]:
        assert source.get("data_dir", "/somewhere/else/").startswith("/somewhere/else/")
        assert source.get("translations", "/somewhere/else/").startswith("/somewhere/else/")


@pytest.mark.parametrize("name", ["lowres_mixture_it.yaml", "lowres_mini_mixture_it.yaml"])
def test_distilled_or_not_low_resource_it_has_the_same_examples(name):
    mix = load_mixture(CONF / name, words={"speech_lang": "aeb", "target_lang": "en"})
    for start in ("spirefull", "towerfull"):
        plain = {s["task"]: s for s in sources_of(mix, start)}
        distilled = {s["task"]: s for s in sources_of(mix, f"{start}_kd")}
        assert set(plain) == {"asr", "st", "mt"} and set(distilled) == {"asr", "st_kd"}
        pair, st, mt = distilled["st_kd"], plain["st"], plain["mt"]
        assert pair["data_dir"] == st["data_dir"] == mt["text_dir"]
        assert pair["targets"] == st["targets"] == ["en"] and mt["pairs"] == ["aeb-en"]
        assert {s["speech_lang"] for s in (pair, st, mt)} == {"aeb"}


def test_the_papers_cpt_is_five_billion_of_speech_and_one_of_text():
    mix = load_mixture(CONF / "mixture_cpt.yaml")
    tokens = {"asr": 0, "mono": 0, "mt": 0}
    pairs = []
    for source in mix["sources"]:
        tokens[source["task"]] += budget_of(mix, source).max_tokens
        pairs += source.get("pairs", [])
    assert abs(tokens["asr"] - 5e9) < 1e6
    assert abs(tokens["mono"] + tokens["mt"] - 1e9) < 1e6
    assert len(set(pairs)) == 18


def test_the_papers_pseudo_labels_are_180k_and_180k_a_pair():
    mix = load_mixture(CONF / "mixture_it.yaml")
    number = {"st": 0, "st_multi_turn": 0}
    for source in sources_of(mix, "spirefull"):
        if "max_examples" in source:
            each = uniform_limits(budget_of(mix, source), len(source["targets"]))
            assert len(source["targets"]) == 9 and each.max_examples == 60_000
            number[source["task"]] += each.max_examples
            assert source["range"] == ([0, 0.5] if source["task"] == "st" else [0.5, 1])
    assert number == {"st": 180_000, "st_multi_turn": 180_000}
    names = [source["name"] for source in sources_of(mix, "spirenopseudo")]
    assert names == ["commonvoice", "europarl_st", "covost2", "towerblocks"]
    left = {source["name"] for source in sources_of(mix, "spirenoblocks")}
    assert {source["name"] for source in mix["sources"]} - left == {"towerblocks"}


def test_languages_beyond_the_ten():
    source = {**ST, "speech_lang": "aeb", "targets": ["en"]}
    assert check_mixture(mixture(source), "m")["sources"] == [source]
    for targets in (["en", "ga"], ["gle"]):
        with pytest.raises(SpireError, match="targets: .*is the language of the speech"):
            check_mixture(mixture({**source, "speech_lang": "gle", "targets": targets}), "m")
    with pytest.raises(SpireError, match="'mt-mlt' is no translation"):
        check_mixture(mixture({**MT, "pairs": ["mt-mlt"]}), "m")


def test_words_in_braces(tmp_path):
    st = {**ST, "speech_lang": "{speech_lang}", "targets": ["{target_lang}"]}
    mt = {**MT, "pairs": ["{speech_lang}-{target_lang}"], "text_dir": "{dumpdir}/{speech_lang}"}
    words = {"speech_lang": "aeb", "target_lang": "en"}
    assert load(tmp_path, mixture(st, mt), words=words)["sources"] == [
        {**ST, "speech_lang": "aeb", "targets": ["en"]},
        {**MT, "pairs": ["aeb-en"], "text_dir": "dump/aeb"},
    ]
    with pytest.raises(SpireError, match="language '{speech_lang}' is unknown"):
        load(tmp_path, mixture(st), words={"target_lang": "en"})
