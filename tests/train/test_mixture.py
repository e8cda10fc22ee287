"""Mixture files, joining, budgets, and examples on disk, against counts made by hand."""

import json

import numpy as np
import pytest
import yaml
from helpers_lm import GERMAN, SENTENCES, UNITS_NAME, make_data_dir, write_blocks

from espnet_spire.train.mixture import (
    build_examples,
    choose,
    join_tables,
    load_examples,
    load_mixture,
    read_source,
    report_table,
    sample_position,
    source_files,
    sources_of,
)
from espnet_spire.utils.datadir import read_rejected
from espnet_spire.utils.errors import SpireError

ASR = {"name": "asr", "task": "asr", "data_dir": "d"}


def mixture(*sources, **other):
    return {"format": "chatml", "max_length": 4096, "seed": 0, "sources": list(sources), **other}


def build(mix, tokenizer, out, **kwargs):
    return build_examples(mix, tokenizer, out, units_name=UNITS_NAME, **kwargs)


# Mixture files ------------------------------------------------------------------------------


def load(tmp_path, value):
    path = tmp_path / "mix.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return load_mixture(path)


def test_a_mixture_file_gets_its_defaults(tmp_path):
    loaded = load(tmp_path, {"format": "plain", "sources": [ASR]})
    assert loaded == {"format": "plain", "sources": [ASR], "seed": 0, "max_length": 4096}


@pytest.mark.parametrize(
    "value, words",
    [
        ("format: [", ["not valid YAML"]),
        ("", ["needs a list 'sources'"]),
        ({"format": "plain", "sources": []}, ["needs a list 'sources'"]),
        ({"format": "plain", "sources": [ASR], "sead": 1}, ["unknown key 'sead'"]),
        ({"format": "chat", "sources": [ASR]}, ["'format' must be plain or chatml"]),
        ({"sources": [ASR]}, ["'format'"]),
        (mixture({**ASR, "max_token": 3}), ["source asr", "unknown key 'max_token'"]),
        (mixture({**ASR, "task": "tts"}), ["source asr", "'task' must be one of asr, st"]),
        (mixture({"name": "x", "task": "st", "data_dir": "d"}), ["source x", "'targets'"]),
        (mixture({"name": "x", "task": "mt", "pairs": ["en-de"]}), ["source x", "'text_dir'"]),
        (mixture({"name": "x", "task": "chat"}), ["source x", "'file'"]),
        (mixture({"name": "x", "task": "mono", "text_dir": "d"}), ["source x", "'langs'"]),
        (mixture("asr"), ["'asr' has not"]),
        (mixture(ASR, ASR), ["'name' of its own", "'asr'"]),
        (mixture({"task": "asr", "data_dir": "d"}), ["'name' of its own"]),
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


def test_variants_leave_out_sources():
    mix = mixture(ASR, {**ASR, "name": "b", "not_in": ["noblocks", "other"]})
    assert [s["name"] for s in sources_of(mix, "full")] == ["asr", "b"]
    assert [s["name"] for s in sources_of(mix, "noblocks")] == ["asr"]


def test_files_of_sources():
    def files(**source):
        return [str(path) for path in source_files(source, "u")]

    assert files(task="asr", data_dir="d") == ["d/text", "d/u"]
    assert files(task="st", data_dir="d", targets=["de", "fr"], translations="p/{lang}") == [
        *("d/text", "d/u", "p/de/text.tc.de", "p/fr/text.tc.fr")
    ]
    assert files(task="mt", text_dir="t", pairs=["en-de", "de-en"]) == [
        *("t/text.tc.de", "t/text.tc.en")
    ]
    assert files(task="mono", text_dir="t", langs=["zh"]) == ["t/text.zh"]
    assert files(task="chat", file="b.jsonl") == ["b.jsonl"]


# Joining ------------------------------------------------------------------------------------


def tables(tmp_path, *contents):
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"t{number}")
        paths[-1].write_text(content, encoding="utf-8")
    return paths


def test_join_keeps_the_keys_of_the_driving_table(tmp_path):
    paths = tables(tmp_path, "b 1\nd 2\n", "a x\nb y\nc z\nd w w\ne v\n", "b\nd q\n")
    assert list(join_tables(paths)) == [("b", ["1", "y", ""]), ("d", ["2", "w w", "q"])]
    assert [key for key, _ in join_tables(paths[:2] + paths[:1], drive=2)] == ["b", "d"]
    assert next(join_tables(tables(tmp_path, "a 1\n", "a 2\nbroken")))[0] == "a"  # streams


@pytest.mark.parametrize("second", ["a 1\nc 1\n", "a 1\n", "", "c 1\n"])
def test_join_names_the_missing_key(tmp_path, second):
    with pytest.raises(SpireError, match=r"t1: key [ab] of .*t0 is missing"):
        list(join_tables(tables(tmp_path, "a 1\nb 1\n", second)))


def test_join_refuses_unsorted_tables(tmp_path):
    with pytest.raises(SpireError, match=r"t1, line 3: key a comes after b"):
        list(join_tables(tables(tmp_path, "a 1\nc 1\n", "a 1\nb 1\na 1\n")))
    with pytest.raises(SpireError, match=r"t0, line 2: key a is there twice"):
        list(join_tables(tables(tmp_path, "a 1\na 1\n", "a 1\n")))


# Budgets ------------------------------------------------------------------------------------


def test_choose_by_hand():
    positions = np.array([0.5, 0.1, 0.9, 0.3])  # sample order: 1, 3, 0, 2
    lengths = np.array([10, 20, 30, 40])

    def kept(examples, tokens):
        return choose(positions, lengths, max_examples=examples, max_tokens=tokens).tolist()

    assert kept(None, None) == [0, 1, 2, 3]
    assert kept(2, None) == [1, 3]
    assert kept(0, None) == []
    assert kept(None, 60) == [1, 3]
    assert kept(None, 59) == [1]
    assert kept(None, 19) == []
    assert kept(None, 70) == [0, 1, 3]
    assert kept(3, 60) == [1, 3]
    assert kept(1, 10**9) == [1]


@pytest.mark.parametrize("kind", ["max_examples", "max_tokens"])
def test_a_larger_budget_keeps_what_a_smaller_one_kept(kind):
    draw = np.random.default_rng(0)
    positions, lengths = draw.random(300), draw.integers(1, 50, 300)
    other = {"max_examples": None, "max_tokens": None}
    before = set()
    for budget in range(0, 5000, 37):
        kept = set(choose(positions, lengths, **{**other, kind: budget}).tolist())
        assert before <= kept
        if kind == "max_tokens":
            assert lengths[sorted(kept)].sum() <= budget
        before = kept


def test_sample_positions_are_uniform_and_depend_on_all_three():
    positions = np.array([sample_position(0, "a", f"utt{i}") for i in range(4000)])
    assert 0 <= positions.min() and positions.max() < 1
    # Each tenth expects 400 ± 19 (binomial); five deviations are never seen.
    assert np.abs(np.histogram(positions, 10, (0, 1))[0] - 400).max() < 95
    assert sample_position(0, "a", "utt0") == positions[0]
    assert sample_position(1, "a", "utt0") != positions[0] != sample_position(0, "b", "utt0")


def test_ranges_are_disjoint_and_complete(tmp_path):
    data = str(make_data_dir(tmp_path / "data", 60))
    base = {"task": "st", "data_dir": data, "targets": ["de"]}

    def keys(name, span=None):
        source = {**base, "name": name, **({"range": span} if span else {})}
        return [raw.key for raw in read_source(source, UNITS_NAME, 7)]

    first, second, third = keys("a", [0, 0.3]), keys("b", [0.3, 0.5]), keys("c", [0.5, 1])
    assert all(0 < len(part) < 60 for part in (first, second, third))
    assert sorted(first + second + third) == keys("all") == [f"utt{i:03d}.de" for i in range(60)]
    assert set(first) <= set(keys("b", [0, 0.5]))


# Examples on disk ---------------------------------------------------------------------------


def rows(path):
    return load_examples(path)[:]


def test_all_tasks_with_their_texts_and_counts(tmp_path, lm_data, lm_tokenizer):
    (lm_data / "text.tc.en").write_text((lm_data / "text").read_text())
    blocks = write_blocks(
        tmp_path / "b.jsonl",
        [[("system", "S"), ("human", "Q"), ("gpt", "A"), ("human", "R"), ("gpt", "B")]],
    )
    data = str(lm_data)
    mix = mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "st", "task": "st", "data_dir": data, "targets": ["de"]},
        {"name": "mts", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
        {"name": "mt", "task": "mt", "text_dir": data, "pairs": ["en-de", "de-en"]},
        {"name": "blocks", "task": "chat", "file": str(blocks), "repeat": 3},
    )
    report = build(mix, lm_tokenizer, tmp_path / "out", variant="full")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["variant"] == "full" and report["format"] == "chatml"
    table = rows(tmp_path / "out")
    assert [r["examples"] for r in report["sources"]] == [24, 24, 24, 48, 3]
    by_task = {}
    for index, task in enumerate(table["task"]):
        by_task.setdefault(task, []).append(index)
    for entry in report["sources"]:
        chosen = by_task[entry["task"]]
        assert entry["examples"] == len(chosen)
        assert entry["tokens"] == sum(len(table["input_ids"][i]) for i in chosen)
        assert entry["target_tokens"] == sum(sum(table["loss_mask"][i]) for i in chosen)
        assert entry["rejected"] == 0
    assert table["length"] == [len(ids) for ids in table["input_ids"]]

    def text(key):
        index = table["key"].index(key)
        ids, mask = table["input_ids"][index], table["loss_mask"][index]
        answers = [i for i, m in zip(ids, mask, strict=True) if m]
        decode = lm_tokenizer.decode
        return table["lang"][index], decode(ids), decode(answers)

    first = [int(u) for u in (lm_data / UNITS_NAME).read_text().split("\n")[0].split()[1:]]
    chars = "".join(chr(0xF0000 + unit) for unit in first)
    ask = "<s><|im_start|>user\n"
    end, say = "<|im_end|>\n", "<|im_start|>assistant\n"
    en, de = SENTENCES[0], GERMAN[0]
    assert text("asr:utt000") == (
        "en",
        f"{ask}Speech: {chars}\nEnglish:{end}{say}{en}{end}",
        f"{en}<|im_end|>",
    )
    assert text("st:utt000.de")[:2] == (
        "en-de",
        f"{ask}Speech: {chars}\nGerman:{end}{say}{de}{end}",
    )
    assert text("mts:utt000.de")[2] == f"{en}<|im_end|>{de}<|im_end|>"
    assert text("mt:utt000.de-en") == (
        "de-en",
        f"{ask}Translate the following text from German to English.\nGerman: {de}\nEnglish:{end}"
        f"{say}{en}{end}",
        f"{en}<|im_end|>",
    )
    assert text("blocks:000000001") == (
        "und",
        f"<s><|im_start|>system\nS{end}<|im_start|>user\nQ{end}{say}A{end}"
        f"<|im_start|>user\nR{end}{say}B{end}",
        "A<|im_end|>B<|im_end|>",
    )
    assert table["key"].count("blocks:000000001") == 3
    # By hand: the first sentence in the table of the report.
    assert report_table(report).splitlines()[0].split() == [
        *("source", "task", "examples", "tokens", "target_tokens", "rejected")
    ]
    assert report_table(report).splitlines()[-1].split()[:2] == ["total", "123"]


def test_plain_mixture(tmp_path, lm_data, lm_tokenizer):
    (lm_data / "text.tc.en").write_text((lm_data / "text").read_text())
    (lm_data / "text.zh").write_text("z1 厨师\nz2 面包\n", encoding="utf-8")
    data = str(lm_data)
    mix = mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "mt", "task": "mt", "text_dir": data, "pairs": ["en-de"]},
        {"name": "mono", "task": "mono", "text_dir": data, "langs": ["zh"]},
        format="plain",
    )
    report = build(mix, lm_tokenizer, tmp_path / "out")
    table = rows(tmp_path / "out")
    # Loss on everything but <s>.
    for entry in report["sources"]:
        assert entry["target_tokens"] == entry["tokens"] - entry["examples"]
    texts = [lm_tokenizer.decode(ids) for ids in table["input_ids"]]
    assert texts[24] == f"<s> English: {SENTENCES[0]}\nGerman: {GERMAN[0]}</s>"
    assert texts[-2:] == ["<s> 厨师</s>", "<s> 面包</s>"]
    assert table["lang"][-1] == "zh" and table["lang"][24] == "en-de"


def test_what_is_rejected_is_listed(tmp_path, lm_data, lm_tokenizer):
    lines = (lm_data / "text").read_text().splitlines()
    lines[2] = "utt002 smuggles a unit \U000f0001"
    lines[4] = "utt004 ends early <|im_end|> here"
    lines[7] = "utt007 " + "bread " * 200
    (lm_data / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mix = mixture({"name": "asr", "task": "asr", "data_dir": str(lm_data)}, max_length=100)
    (entry,) = build(mix, lm_tokenizer, tmp_path / "out")["sources"]
    assert (entry["examples"], entry["available"], entry["rejected"]) == (21, 21, 3)
    rejected = read_rejected(tmp_path / "out" / "rejected.tsv")
    assert list(rejected) == ["asr:utt002", "asr:utt004", "asr:utt007"]
    assert "private use" in rejected["asr:utt002"] and "<|im_end|>" in rejected["asr:utt004"]
    assert rejected["asr:utt007"].endswith("tokens, max_length is 100")
    table = rows(tmp_path / "out")
    assert max(table["length"]) <= 100 and not set(rejected) & set(table["key"])


def test_utterances_without_units_are_left_out_and_counted(tmp_path, lm_data, lm_tokenizer, caplog):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    (lm_data / UNITS_NAME).write_text("\n".join(lines[:3] + lines[4:-1]) + "\n")
    listed = lm_data / f"{UNITS_NAME}.rejected.tsv"
    listed.write_text("utt003\ta.wav: no samples\nutt023\ttoo short\nutt999\tnot here\n")
    (lm_data / "text.tc.en").write_text((lm_data / "text").read_text())
    data = str(lm_data)
    mix = mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "st", "task": "st", "data_dir": data, "targets": ["de", "en"]},
        {"name": "mts", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
        {"name": "mt", "task": "mt", "text_dir": data, "pairs": ["en-de"]},
    )
    report = build(mix, lm_tokenizer, tmp_path / "out")
    assert [
        (r["examples"], r["available"], r["rejected"], r["without_units"])
        for r in report["sources"]
    ] == [(22, 22, 2, 2), (44, 44, 4, 4), (22, 22, 2, 2), (24, 24, 0, 0)]
    rejected = read_rejected(tmp_path / "out" / "rejected.tsv")
    assert sorted(rejected) == [
        *("asr:utt003", "asr:utt023", "mts:utt003.de", "mts:utt023.de"),
        *("st:utt003.de", "st:utt003.en", "st:utt023.de", "st:utt023.en"),
    ]
    assert rejected["asr:utt003"] == "no units: a.wav: no samples"
    assert "source st: 4 of 48 examples are left out, their utterances have no units" in caplog.text
    assert "source mt:" not in caplog.text
    listed.write_text("utt003\ta.wav: no samples\n")
    with pytest.raises(SpireError, match=rf"{UNITS_NAME}: utterance utt023 of .*/text is missing"):
        build(mix, lm_tokenizer, tmp_path / "out")
    listed.unlink()
    with pytest.raises(SpireError, match=rf"{UNITS_NAME}: utterance utt003 of .*/text is missing"):
        build(mix, lm_tokenizer, tmp_path / "out")


def test_a_range_without_an_utterance_does_not_count_it(tmp_path, lm_data, lm_tokenizer):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    (lm_data / UNITS_NAME).write_text("\n".join(lines[1:]) + "\n")
    (lm_data / f"{UNITS_NAME}.rejected.tsv").write_text("utt000\tno samples\n")
    source = {"task": "asr", "data_dir": str(lm_data)}
    mix = mixture(
        {**source, "name": "low", "range": [0, 0.5]}, {**source, "name": "high", "range": [0.5, 1]}
    )
    low, high = build(mix, lm_tokenizer, tmp_path / "out")["sources"]
    here = sample_position(0, "range", "utt000") < 0.5
    assert (low["without_units"], high["without_units"]) == (int(here), int(not here))
    assert low["available"] + high["available"] == 23


def test_a_conversation_without_an_answer_is_rejected(tmp_path, lm_tokenizer):
    conversations = [[("human", "Q")], [("human", "Q"), ("gpt", "A")], []]
    blocks = write_blocks(tmp_path / "b.jsonl", conversations)
    source = {"name": "b", "task": "chat", "file": str(blocks)}
    report = build(mixture(source), lm_tokenizer, tmp_path / "out")
    assert report["sources"][0]["examples"] == 1
    assert read_rejected(tmp_path / "out" / "rejected.tsv") == {
        "b:000000001": "there is no answer in it to learn",
        "b:000000003": "there is no answer in it to learn",
    }


def test_the_limit_on_length_is_inclusive(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    build(mixture(source), lm_tokenizer, tmp_path / "all")
    lengths = rows(tmp_path / "all")["length"]
    report = build(mixture(source, max_length=max(lengths)), lm_tokenizer, tmp_path / "same")
    assert report["sources"][0]["rejected"] == 0
    report = build(mixture(source, max_length=max(lengths) - 1), lm_tokenizer, tmp_path / "less")
    assert report["sources"][0]["rejected"] == lengths.count(max(lengths))


def test_budgets_and_seed(tmp_path, lm_data, lm_tokenizer):
    def keys(name, seed=0, **budget):
        source = {"name": "asr", "task": "asr", "data_dir": str(lm_data), **budget}
        report = build(mixture(source, seed=seed), lm_tokenizer, tmp_path / name)
        table = rows(tmp_path / name)
        assert report["sources"][0]["examples"] == len(table["key"])
        assert report["sources"][0]["tokens"] == sum(table["length"])
        assert report["sources"][0]["available"] == 24
        return table["key"], sum(table["length"])

    five, _ = keys("5", max_examples=5)
    nine, _ = keys("9", max_examples=9)
    assert len(five) == 5 and len(nine) == 9 and set(five) < set(nine)
    assert five == sorted(five)
    assert keys("5b", max_examples=5)[0] == five != keys("5c", seed=1, max_examples=5)[0]
    some, tokens = keys("t", max_tokens=400)
    assert 0 < tokens <= 400 and len(some) < 24


@pytest.mark.parametrize(
    "source, words",
    [
        ({"task": "asr", "data_dir": "{t}/none"}, "none/text: no such file"),
        ({"task": "st", "data_dir": "{t}/data", "targets": ["fr"]}, "text.tc.fr: no such file"),
        ({"task": "mono", "text_dir": "{t}/data", "langs": ["de"]}, "text.de: no such file"),
        ({"task": "chat", "file": "{t}/none.jsonl"}, "none.jsonl: no such file"),
        ({"task": "chat", "file": "{t}/empty.jsonl"}, "source s: no example; is its data empty?"),
        ({"task": "chat", "file": "{t}/bad.jsonl"}, "bad.jsonl, line 2: not a ShareGPT"),
        ({"task": "chat", "file": "{t}/null.jsonl"}, "null.jsonl, line 1: .*no text"),
        ({"task": "chat", "file": "{t}/role.jsonl"}, "role.jsonl, line 1: not a ShareGPT"),
        ({"task": "mono", "text_dir": "{t}/data", "langs": ["en"]}, "source s: .*format: plain"),
    ],
)
def test_errors_leave_nothing_behind(tmp_path, lm_data, lm_tokenizer, source, words):
    (lm_data / "text.en").write_text("a bread\n")
    (tmp_path / "empty.jsonl").write_text("")
    good = '{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}\n'
    (tmp_path / "bad.jsonl").write_text(good + "{\n")
    (tmp_path / "null.jsonl").write_text(good.replace('"A"', "null"))
    (tmp_path / "role.jsonl").write_text(good.replace("gpt", "robot"))
    source = {
        key: value.format(t=tmp_path) if isinstance(value, str) else value
        for key, value in source.items()
    }
    with pytest.raises(SpireError, match=words):
        build(mixture({"name": "s", **source}), lm_tokenizer, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


def test_tasks_without_a_plain_form(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "s", "task": "st", "data_dir": str(lm_data), "targets": ["de"]}
    with pytest.raises(SpireError, match="source s: .*format: chatml"):
        build(mixture(source, format="plain"), lm_tokenizer, tmp_path / "out")


def test_bad_units_name_file_and_utterance(tmp_path, lm_data, lm_tokenizer):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    lines[1] = "utt001 3 x 4"
    (lm_data / UNITS_NAME).write_text("\n".join(lines) + "\n")
    source = {"name": "s", "task": "asr", "data_dir": str(lm_data)}
    with pytest.raises(SpireError, match=rf"{UNITS_NAME}: utt001: '3 x 4'"):
        build(mixture(source), lm_tokenizer, tmp_path / "out")


def test_examples_that_are_not_there(tmp_path):
    with pytest.raises(SpireError, match="make_examples"):
        load_examples(tmp_path)
