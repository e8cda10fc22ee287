"""Examples on disk, against counts and texts made by hand."""

import contextlib
import filecmp
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from helpers_lm import (
    GERMAN,
    SENTENCES,
    UNITS_NAME,
    make_data_dir,
    process_environment,
    write_blocks,
)

from espnet_spire.text import prompts
from espnet_spire.text.languages import LANGUAGES
from espnet_spire.train import part_files, parts, sharegpt
from espnet_spire.train.build import build_examples
from espnet_spire.train.examples import encoder_of
from espnet_spire.train.selection import sample_position
from espnet_spire.train.store import ExampleStore
from espnet_spire.utils.datadir import read_rejected
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.lock import lock


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    """Small parts would spend nearly all time in it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def mixture(*sources, **other):
    return {"format": "chatml", "max_length": 4096, "seed": 0, "sources": list(sources), **other}


def build(mix, tokenizer, out, **kwargs):
    return build_examples(mix, tokenizer, out, units_name=UNITS_NAME, **kwargs)


def rows(path):
    return load_from_disk(str(path / "dataset"))[:]


def same_files(left, right):
    compared = filecmp.dircmp(left, right)
    names = [*compared.common_files]
    inside = filecmp.cmpfiles(left, right, names, shallow=False)
    different = compared.left_only + compared.right_only + inside[1] + inside[2]
    return not different and all(
        same_files(left / name, right / name) for name in compared.common_dirs
    )


def answers(spans):
    return [place for a, b in zip(spans[::2], spans[1::2], strict=True) for place in range(a, b)]


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
    report = build(mix, lm_tokenizer, tmp_path / "out", variant="full", part_rows=7)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert not (tmp_path / "out.work").exists()
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
        assert entry["target_tokens"] == sum(len(answers(table["target_spans"][i])) for i in chosen)
        assert entry["rejected"] == 0
    assert table["length"] == [len(ids) for ids in table["input_ids"]]
    assert table["num_targets"] == [len(answers(spans)) for spans in table["target_spans"]]
    keys = [f"utt{i:03d}" for i in range(24)]
    assert table["key"] == [
        *(f"asr:{key}" for key in keys),
        *(f"st:{key}.de" for key in keys),
        *(f"mts:{key}.de" for key in keys),
        *(f"mt:{key}.en-de" for key in keys),
        *(f"mt:{key}.de-en" for key in keys),
        *["blocks:000000001"] * 3,
    ]

    def text(key):
        index = table["key"].index(key)
        ids, spans = table["input_ids"][index], table["target_spans"][index]
        decode = lm_tokenizer.decode
        return table["lang"][index], decode(ids), decode([ids[i] for i in answers(spans)])

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
    assert table["target_spans"] == [[1, length] for length in table["length"]]
    texts = [lm_tokenizer.decode(ids) for ids in table["input_ids"]]
    assert texts[24] == f"<s> English: {SENTENCES[0]}\nGerman: {GERMAN[0]}</s>"
    assert texts[-2:] == ["<s> 厨师</s>", "<s> 面包</s>"]
    assert table["lang"][-1] == "zh" and table["lang"][24] == "en-de"


def test_what_is_written_opens_memory_mapped(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data), "repeat": 2}
    build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=10)
    dataset = load_from_disk(str(tmp_path / "out" / "dataset"))
    assert len(dataset) == 48 and len(dataset.cache_files) == 6
    assert sorted({os.path.basename(file["filename"]) for file in dataset.cache_files}) == [
        *("data-00000.arrow", "data-00001.arrow", "data-00002.arrow")
    ]
    assert dataset[3]["key"] == dataset[27]["key"] == "asr:utt003"
    assert str(dataset.features["input_ids"].feature.dtype) == "int32"


def test_what_is_written_is_what_training_reads(tmp_path, lm_data, lm_tokenizer):
    data = str(lm_data)
    mix = mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "mts", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
    )
    build(mix, lm_tokenizer, tmp_path / "out", part_rows=10)
    store, table = ExampleStore(tmp_path / "out"), rows(tmp_path / "out")
    everything = np.arange(48)
    assert store.groups == [("asr", "en"), ("st_multi_turn", "en-de")]
    assert store.lengths(everything).tolist() == table["length"]
    assert store.num_targets(everything).tolist() == table["num_targets"]
    for index in (0, 9, 10, 30, 47):
        ids, spans = store.document(index)
        assert ids.tolist() == table["input_ids"][index]
        assert spans.reshape(-1).tolist() == table["target_spans"][index]
        assert store.key(index) == table["key"][index]


# What is rejected, cut, left out -------------------------------------------------------------


def test_what_is_rejected_is_listed(tmp_path, lm_data, lm_tokenizer):
    lines = (lm_data / "text").read_text().splitlines()
    lines[2] = "utt002 smuggles a unit \U000f0001"
    lines[4] = "utt004 ends early <|im_end|> here"
    lines[7] = "utt007 " + "bread " * 200
    lines[9] = "utt009"
    (lm_data / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mix = mixture({"name": "asr", "task": "asr", "data_dir": str(lm_data)}, max_length=100)
    (entry,) = build(mix, lm_tokenizer, tmp_path / "out", part_rows=3)["sources"]
    assert (entry["examples"], entry["available"], entry["rejected"]) == (20, 20, 4)
    assert entry["rejected_by"] == {"forbidden_text": 2, "too_long": 1, "empty_text": 1}
    assert entry["too_long"] == 1
    rejected = read_rejected(tmp_path / "out" / "rejected.tsv")
    assert list(rejected) == ["asr:utt002", "asr:utt004", "asr:utt007", "asr:utt009"]
    assert "private use" in rejected["asr:utt002"] and "<|im_end|>" in rejected["asr:utt004"]
    assert rejected["asr:utt007"].endswith("tokens, max_length is 100")
    assert rejected["asr:utt009"] == "an empty text"
    table = rows(tmp_path / "out")
    assert max(table["length"]) <= 100 and not set(rejected) & set(table["key"])


def test_long_texts_are_cut_where_it_is_asked_for(tmp_path, lm_data, lm_tokenizer):
    texts = {"a": "bread " * 50, "b": "bread", "c": "the cook cuts bread " * 9}
    (lm_data / "text.de").write_text("".join(f"{k} {v.strip()}\n" for k, v in texts.items()))
    source = {"name": "m", "task": "mono", "text_dir": str(lm_data), "langs": ["de"]}
    mix = mixture({**source, "too_long": "cut"}, format="plain", max_length=20)
    whole = {key: lm_tokenizer(text.strip()).input_ids + [2] for key, text in texts.items()}
    (entry,) = build(mix, lm_tokenizer, tmp_path / "cut")["sources"]
    table = rows(tmp_path / "cut")
    assert table["input_ids"] == [whole[key][:20] for key in "abc"]
    assert table["target_spans"] == [[1, len(ids)] for ids in table["input_ids"]]
    assert (entry["cut"], entry["rejected"], entry["examples"]) == (2, 0, 3)
    assert entry["cut_tokens"] == len(whole["a"]) + len(whole["c"]) - 40
    (entry,) = build({**mix, "sources": [source]}, lm_tokenizer, tmp_path / "reject")["sources"]
    assert (entry["cut"], entry["too_long"], entry["examples"]) == (0, 2, 1)


def test_utterances_without_units_are_left_out_and_counted(tmp_path, lm_data, lm_tokenizer, caplog):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    (lm_data / UNITS_NAME).write_text("\n".join(lines[:3] + lines[4:-1]) + "\n")
    listed = lm_data / f"{UNITS_NAME}.rejected.tsv"
    listed.write_text("utt003\ta.wav: no samples\nutt023\ttoo short\nutt999\tnot here\n")
    for lang in ("en", "fr"):
        (lm_data / f"text.tc.{lang}").write_text((lm_data / "text").read_text())
    data = str(lm_data)
    mix = mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "st", "task": "st", "data_dir": data, "targets": ["de", "fr"]},
        {"name": "mts", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
        {"name": "mt", "task": "mt", "text_dir": data, "pairs": ["en-de"]},
    )
    report = build(mix, lm_tokenizer, tmp_path / "out", part_rows=5)
    assert [
        (r["examples"], r["available"], r["rejected"], r["without_units"])
        for r in report["sources"]
    ] == [(22, 22, 2, 2), (44, 44, 4, 4), (22, 22, 2, 2), (24, 24, 0, 0)]
    rejected = read_rejected(tmp_path / "out" / "rejected.tsv")
    assert list(rejected) == [
        *("asr:utt003", "asr:utt023", "st:utt003.de", "st:utt023.de"),
        *("st:utt003.fr", "st:utt023.fr", "mts:utt003.de", "mts:utt023.de"),
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


def test_an_empty_line_of_units_is_no_speech(tmp_path, lm_data, lm_tokenizer, caplog):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    lines[4], lines[9] = "utt004", "utt009 \t "
    (lm_data / UNITS_NAME).write_text("\n".join(lines) + "\n")
    for form in ("plain", "chatml"):
        mix = mixture({"name": "asr", "task": "asr", "data_dir": str(lm_data)}, format=form)
        (entry,) = build(mix, lm_tokenizer, tmp_path / form, part_rows=5)["sources"]
        assert (entry["examples"], entry["without_units"], entry["rejected"]) == (22, 2, 2)
        rejected = read_rejected(tmp_path / form / "rejected.tsv")
        assert list(rejected) == ["asr:utt004", "asr:utt009"]
        assert rejected["asr:utt004"].endswith(f"{UNITS_NAME} is empty")
        texts = [lm_tokenizer.decode(ids) for ids in rows(tmp_path / form)["input_ids"]]
        assert not any("Speech:\n" in text or "Speech: \n" in text for text in texts)
    assert "2 of 24 examples are left out, their utterances have no units" in caplog.text


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


def test_a_row_that_cannot_be_used_does_not_end_the_build(tmp_path, lm_tokenizer):
    good = [("human", "Q"), ("gpt", "A")]
    conversations = [good, [*good, ("tool", "{}")], [("human", "\ud83d"), ("gpt", "A")], good]
    blocks = write_blocks(tmp_path / "b.jsonl", conversations)
    with open(blocks, "a") as stream:
        stream.write("\n")
    source = {"name": "b", "task": "chat", "file": str(blocks)}
    (entry,) = build(mixture(source), lm_tokenizer, tmp_path / "out")["sources"]
    assert (entry["examples"], entry["rejected_by"]) == (2, {"unusable": 2})
    rejected = read_rejected(tmp_path / "out" / "rejected.tsv")
    assert rejected["b:000000002"].startswith("a turn of 'tool'")
    assert "surrogate" in rejected["b:000000003"]


def test_the_limit_on_length_is_inclusive(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    build(mixture(source), lm_tokenizer, tmp_path / "all")
    lengths = rows(tmp_path / "all")["length"]
    report = build(mixture(source, max_length=max(lengths)), lm_tokenizer, tmp_path / "same")
    assert report["sources"][0]["rejected"] == 0
    report = build(mixture(source, max_length=max(lengths) - 1), lm_tokenizer, tmp_path / "less")
    assert report["sources"][0]["rejected"] == lengths.count(max(lengths))


def test_conversations_by_language_in_any_form(tmp_path, lm_tokenizer):
    entries = [
        {
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": f"A{i}"}],
            "lang": lang,
        }
        for i, lang in enumerate(["en-de", "fr", "en-de", "zh"])
    ]
    (tmp_path / "b.json").write_text(json.dumps(entries))
    source = {"name": "b", "task": "chat", "file": str(tmp_path / "b.json")}
    report = build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=2)
    assert [(g["lang"], g["examples"]) for g in report["groups"]] == [
        *(("en-de", 2), ("fr", 1), ("zh", 1))
    ]
    table = rows(tmp_path / "out")
    assert table["lang"] == ["en-de", "fr", "en-de", "zh"]
    assert table["key"] == [f"b:{n:09d}" for n in (1, 2, 3, 4)]


def test_characters_of_units_in_conversations(tmp_path, lm_tokenizer):
    said = "Speech: \U000f0003\U000f0013\nEnglish:"
    good = write_blocks(tmp_path / "b.jsonl", [[("human", said), ("gpt", "the cook")]])
    source = {"name": "b", "task": "chat", "file": str(good)}
    with pytest.raises(SpireError, match="source b: no example; all are rejected .*private use"):
        build(mixture(source), lm_tokenizer, tmp_path / "out")
    build(mixture({**source, "with_units": True}), lm_tokenizer, tmp_path / "out")
    (ids,) = rows(tmp_path / "out")["input_ids"]
    first = lm_tokenizer.convert_tokens_to_ids("\U000f0000")
    assert [i - first for i in ids if first <= i < first + 20] == [3, 19]
    write_blocks(tmp_path / "b.jsonl", [[("human", "\U000f0014"), ("gpt", "the cook")]])
    with pytest.raises(SpireError, match="b:000000001: unit 20, but the model has units 0 to 19"):
        build(mixture({**source, "with_units": True}), lm_tokenizer, tmp_path / "out")


# Budgets -------------------------------------------------------------------------------------


def test_budgets_and_seed(tmp_path, lm_data, lm_tokenizer):
    def keys(name, seed=0, **budget):
        source = {"name": "asr", "task": "asr", "data_dir": str(lm_data), **budget}
        report = build(mixture(source, seed=seed), lm_tokenizer, tmp_path / name, part_rows=5)
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
    order = sorted((f"utt{i:03d}" for i in range(24)), key=lambda k: sample_position(0, "asr", k))
    assert five == sorted(f"asr:{key}" for key in order[:5])
    some, tokens = keys("t", max_tokens=400)
    assert 0 < tokens <= 400 and len(some) < 24
    assert some == sorted(f"asr:{key}" for key in order[: len(some)])


def test_uniform_budgets_are_not_lent(tmp_path, lm_data, lm_tokenizer, caplog):
    """German has 24 texts, Chinese 3: of 20 each, Chinese gives its 3 and German 20."""
    (lm_data / "text.de").write_text("".join(f"g{i:02d} das Brot {i}\n" for i in range(24)))
    (lm_data / "text.zh").write_text("z1 厨师\nz2 面包\nz3 面\n", encoding="utf-8")
    source = {"name": "mono", "task": "mono", "text_dir": str(lm_data), "langs": ["de", "zh"]}
    mix = mixture({**source, "uniform": True, "max_examples": 41, "repeat": 2}, format="plain")
    (entry,) = build(mix, lm_tokenizer, tmp_path / "out", part_rows=7)["sources"]
    assert [(x["lang"], x["examples"], x["available"], x["reached"]) for x in entry["langs"]] == [
        *(("de", 40, 24, 1.0), ("zh", 6, 3, 0.15))
    ]
    assert (entry["examples"], entry["budget_examples"]) == (46, 80)
    assert rows(tmp_path / "out")["lang"] == (["de"] * 20 + ["zh"] * 3) * 2
    assert "source mono, zh: 6 of 40 examples (15.0 %), there is no more" in caplog.text
    assert "mono, de" not in caplog.text


def test_weights_divide_a_budget(tmp_path, lm_data, lm_tokenizer, caplog):
    data = {"data_dir": str(lm_data)}
    mix = mixture(
        {"name": "asr", "task": "asr", "weight": 1, **data},
        {"name": "st", "task": "st", "targets": ["de"], "weight": 3, **data},
        budget=2400,
    )
    asr, st = build(mix, lm_tokenizer, tmp_path / "out")["sources"]
    assert (asr["budget_tokens"], st["budget_tokens"]) == (600, 1800)
    assert 500 < asr["tokens"] <= 600 and asr["reached"] == round(asr["tokens"] / 600, 4)
    assert st["tokens"] == st["available_tokens"] < 1800
    assert f"source st: {st['tokens'] / 1000:.1f}K of 1.8K tokens" in caplog.text


def test_a_budget_is_of_all_sources_together(tmp_path, lm_data, lm_tokenizer):
    data = {"data_dir": str(lm_data)}
    mix = mixture(
        {"name": "asr", "task": "asr", "weight": 1, **data},
        {"name": "st", "task": "st", "targets": ["de"], "max_tokens": 300, "repeat": 2, **data},
        budget=1200,
    )
    asr, st = build(mix, lm_tokenizer, tmp_path / "out")["sources"]
    assert (asr["budget_tokens"], st["budget_tokens"]) == (600, 600)
    assert 1000 < sum(rows(tmp_path / "out")["length"]) == asr["tokens"] + st["tokens"] <= 1200


def test_a_budget_too_small_for_anything(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data), "max_tokens": 3}
    with pytest.raises(SpireError, match="source asr: its budget is too small for a single"):
        build(mixture(source), lm_tokenizer, tmp_path / "out")


# Many processes, kills -----------------------------------------------------------------------


def big_mixture(folder, count=300):
    data = str(make_data_dir(folder / "data", count))
    blocks = write_blocks(
        folder / "b.jsonl", [[("human", f"Q{i}"), ("gpt", f"A {i}")] for i in range(90)]
    )
    return mixture(
        {"name": "asr", "task": "asr", "data_dir": data},
        {
            "name": "st",
            "task": "st",
            "data_dir": data,
            "targets": ["de"],
            "range": [0, 0.7],
            "max_tokens": 4000,
        },
        {"name": "blocks", "task": "chat", "file": str(blocks), "repeat": 2, "max_examples": 40},
        max_length=64,
    )


def test_the_same_bytes_from_any_number_of_processes_and_sizes_of_batches(
    tmp_path, lm_tokenizer, monkeypatch
):
    mix = big_mixture(tmp_path)
    build(mix, lm_tokenizer, tmp_path / "one", part_rows=32)
    build(mix, lm_tokenizer, tmp_path / "three", part_rows=32, nj=3)
    assert same_files(tmp_path / "one", tmp_path / "three")
    table = rows(tmp_path / "one")
    monkeypatch.setattr(parts, "_BATCH_EXAMPLES", 7)
    build(mix, lm_tokenizer, tmp_path / "small", part_rows=32)
    assert same_files(tmp_path / "one", tmp_path / "small")
    build(mix, lm_tokenizer, tmp_path / "whole", part_rows=10**6)
    assert rows(tmp_path / "whole") == table


# Without transformers, whose import takes longer than all the work.
BUILD = """
import json, pickle, sys
from espnet_spire.train import build

def main():
    encoder, mixture, out, units_name = sys.argv[1:]
    build.encoder_of = lambda encoder: encoder
    with open(encoder, "rb") as stream:
        encoder = pickle.load(stream)
    build.build_examples(
        json.loads(mixture), encoder, out, units_name=units_name, nj=2, part_rows=8
    )

if __name__ == "__main__":
    try:
        main()
    except build.SpireError as error:
        sys.exit(f"error: {error}")
"""


def start(tmp_path, tokenizer, mix, out):
    (tmp_path / "build.py").write_text(BUILD)
    (tmp_path / "encoder").write_bytes(pickle.dumps(encoder_of(tokenizer)))
    command = [sys.executable, str(tmp_path / "build.py"), str(tmp_path / "encoder")]
    return subprocess.Popen(
        [*command, json.dumps(mix), str(out), UNITS_NAME],
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_parts(work, count):
    until = time.monotonic() + 60
    while len(list(work.glob("*/*.json"))) < count:
        assert time.monotonic() < until
        time.sleep(0.005)


def children(parent):
    """Its worker processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_text()
            above = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if above == parent and "spawn_main" in command:
                found.append(int(entry.name))
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killed_and_started_again_it_gives_the_same_bytes(tmp_path, lm_tokenizer):
    mix = big_mixture(tmp_path, 900)
    out, work = tmp_path / "out", tmp_path / "out.work"
    process = start(tmp_path, lm_tokenizer, mix, out)
    wait_for_parts(work, 10)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("error: a worker process was killed")
    done = {path: path.stat().st_mtime_ns for path in work.glob("*/*.json")}
    assert 10 <= len(done) < 230 and not out.exists()
    # now the whole of it: the workers must not outlive it
    process = start(tmp_path, lm_tokenizer, mix, out)
    wait_for_parts(work, len(done) + 20)
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    until = time.monotonic() + 30
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not out.exists()
    assert {path: path.stat().st_mtime_ns for path in done} == done  # not done again
    build(mix, lm_tokenizer, out, part_rows=8)
    build(mix, lm_tokenizer, tmp_path / "undisturbed", part_rows=8)
    assert same_files(out, tmp_path / "undisturbed") and not work.exists()


@pytest.fixture
def counted(monkeypatch):
    """The parts that were tokenised."""
    stems = []
    real = parts.encode_part

    def encode(encoder, job):
        stems.append(job.stem)
        return real(encoder, job)

    monkeypatch.setattr("espnet_spire.train.build.encode_part", encode)
    return stems


def test_only_what_a_change_touches_is_done_again(tmp_path, lm_data, lm_tokenizer, counted):
    other = make_data_dir(tmp_path / "other", seed=1)
    asr = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    more = {"name": "more", "task": "asr", "data_dir": str(other), "max_tokens": 1}
    out = tmp_path / "out"

    def attempt(*sources, tokenizer=lm_tokenizer, **changed):
        counted.clear()
        with pytest.raises(SpireError, match="too small"):
            build(mixture(*sources, **changed), tokenizer, out, part_rows=12)
        return [os.path.basename(os.path.dirname(stem)).split("-")[0] for stem in counted]

    assert attempt(asr, more) == ["asr", "asr", "more", "more"]
    assert attempt(asr, more) == []
    assert attempt({**asr, "max_examples": 3}, more) == []
    assert attempt(asr, {**more, "range": [0, 0.9]}) == ["more", "more"]
    assert attempt(asr, more, max_length=500) == ["asr", "asr", "more", "more"]
    assert attempt(asr, more, seed=3) == ["asr", "asr", "more", "more"]
    text = (lm_data / "text").read_text()
    (lm_data / "text").write_text(text.replace("bread", "meat!"))
    assert attempt(asr, more) == ["asr", "asr"]
    # a half-written part
    (stem,) = [stem for stem in counted if stem.endswith("000001")]
    os.unlink(f"{stem}.npy")
    assert attempt(asr, more) == ["asr"]
    counted.clear()
    build(mixture(asr, {**more, "max_tokens": 10**6}), lm_tokenizer, out, part_rows=12)
    assert counted == [] and not (tmp_path / "out.work").exists()
    assert "meat!" in lm_tokenizer.decode(sum(rows(out)["input_ids"], []))


def test_other_prompts_or_another_version_make_other_examples(
    tmp_path, lm_data, lm_tokenizer, counted, monkeypatch
):
    data = {"data_dir": str(lm_data), "max_tokens": 1}
    mix = mixture(
        {"name": "asr", "task": "asr", **data},
        {"name": "st", "task": "st", "targets": ["de"], **data},
    )

    def attempt():
        counted.clear()
        with pytest.raises(SpireError, match="too small"):
            build(mix, lm_tokenizer, tmp_path / "out", part_rows=24)
        return [os.path.basename(os.path.dirname(stem)).split("-")[0] for stem in counted]

    assert attempt() == ["asr", "st"] and attempt() == []
    monkeypatch.setitem(LANGUAGES, "de", "Deutsch")
    assert attempt() == ["st"] and attempt() == []
    real = prompts.speech_instruction
    monkeypatch.setattr(prompts, "speech_instruction", lambda *args: real(*args) + " ")
    assert attempt() == ["asr", "st"] and attempt() == []
    monkeypatch.setattr("espnet_spire.__version__", "99")
    assert attempt() == ["asr", "st"] and attempt() == []


@pytest.mark.parametrize("change", ["text", UNITS_NAME, f"{UNITS_NAME}.rejected.tsv"])
def test_inputs_that_change_in_the_middle(tmp_path, lm_data, lm_tokenizer, monkeypatch, change):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    (lm_data / f"{UNITS_NAME}.rejected.tsv").write_text("a\tb\n")
    path, real = lm_data / change, parts.encode_part
    before, stat = path.read_bytes(), path.stat()
    done = []

    def encode(encoder, job):
        if len(done) == 1:  # of three
            path.write_bytes(before[:-1] + before[-2:])
        done.append(job.stem)
        return real(encoder, job)

    monkeypatch.setattr("espnet_spire.train.build.encode_part", encode)
    with pytest.raises(SpireError, match=f"{change}: changed while it was read"):
        build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=8)
    assert not (tmp_path / "out").exists() and len(done) == 2
    # what was read of the changed file is not kept, even if it is what it was again
    path.write_bytes(before)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=8)
    assert done[2] == done[1] and len(done) == 4 and len(set(done)) == 3
    build(mixture(source), lm_tokenizer, tmp_path / "again", part_rows=8)
    assert same_files(tmp_path / "out", tmp_path / "again")


def test_conversations_that_change_while_they_are_rewritten(tmp_path, lm_tokenizer, monkeypatch):
    good = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
    path = tmp_path / "b.json"
    path.write_text(json.dumps([good]))
    real = sharegpt.write_lines

    def write(source, out):
        real(source, out)
        path.write_text(json.dumps([good, good]))

    monkeypatch.setattr(sharegpt, "write_lines", write)
    source = {"name": "b", "task": "chat", "file": str(path)}
    with pytest.raises(SpireError, match="b.json: changed while it was read"):
        build(mixture(source), lm_tokenizer, tmp_path / "out")
    assert not list((tmp_path / "out.work").glob("*/*.jsonl"))


def test_only_examples_are_replaced(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    before = sorted(path.name for path in lm_data.iterdir())
    for out in (lm_data, tmp_path):
        with pytest.raises(SpireError, match="--out .*/text is read from there"):
            build(mixture(source), lm_tokenizer, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.json").write_text("{}")
    with pytest.raises(SpireError, match=r"mine has files of something else in it \(no dataset\)"):
        build(mixture(source), lm_tokenizer, tmp_path / "mine")
    with pytest.raises(SpireError, match="report.json is a file; name a directory"):
        build(mixture(source), lm_tokenizer, tmp_path / "mine" / "report.json")
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "diary").write_text("")
    with pytest.raises(SpireError, match="out.work has files of something else"):
        build(mixture(source), lm_tokenizer, tmp_path / "out")
    assert sorted(path.name for path in lm_data.iterdir()) == before
    assert (tmp_path / "mine" / "report.json").read_text() == "{}"
    # an empty directory, and what it made itself
    (tmp_path / "new").mkdir()
    build(mixture(source), lm_tokenizer, tmp_path / "new")
    build(mixture({**source, "max_examples": 3}), lm_tokenizer, tmp_path / "new")
    assert len(rows(tmp_path / "new")["key"]) == 3


def test_a_lock_of_a_removed_directory_is_no_lock(tmp_path, lm_data, lm_tokenizer, monkeypatch):
    """Another process finishes, and removes the directory, between opening and locking."""
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    work, held = tmp_path / "out.work", []

    def late(stream, path):
        if not held:
            shutil.rmtree(work)
        held.append(stream)
        lock(stream, path)

    def encode(encoder, job):
        # a third one is refused while this one is at it
        with open(work / "lock", "ab") as other, pytest.raises(SpireError, match="at this job"):
            lock(other, work)
        return parts.encode_part(encoder, job)

    monkeypatch.setattr("espnet_spire.train.build.lock", late)
    monkeypatch.setattr("espnet_spire.train.build.encode_part", encode)
    build(mixture(source), lm_tokenizer, tmp_path / "out")
    assert len(held) == 2 and not work.exists()


def test_two_at_once_are_refused(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    (tmp_path / "out.work").mkdir()
    with open(tmp_path / "out.work" / "lock", "ab") as held:
        lock(held, tmp_path)
        with pytest.raises(SpireError, match="out.work: another process is at this job"):
            build(mixture(source), lm_tokenizer, tmp_path / "out")


def test_without_hard_links_files_are_copied(tmp_path, lm_data, lm_tokenizer, monkeypatch):
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    build(mixture(source), lm_tokenizer, tmp_path / "linked")

    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    build(mixture(source), lm_tokenizer, tmp_path / "copied")
    assert same_files(tmp_path / "linked", tmp_path / "copied")


def test_record_batches_are_bounded(tmp_path, lm_data, lm_tokenizer, monkeypatch):
    monkeypatch.setattr(parts, "_BATCH_EXAMPLES", 4)
    monkeypatch.setattr(part_files, "_RECORD_EXAMPLES", 8)
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    build(mixture(source), lm_tokenizer, tmp_path / "out")
    dataset = load_from_disk(str(tmp_path / "out" / "dataset"))
    assert [len(batch) for batch in dataset.data.table.to_batches()] == [8, 8, 8]
    monkeypatch.setattr(part_files, "_RECORD_TOKENS", 100)
    build(mixture(source), lm_tokenizer, tmp_path / "out")
    dataset = load_from_disk(str(tmp_path / "out" / "dataset"))
    assert [len(batch) for batch in dataset.data.table.to_batches()] == [4] * 6


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, words",
    [
        ({"task": "asr", "data_dir": "{t}/none"}, "none/text: no such file"),
        ({"task": "st", "data_dir": "{t}/data", "targets": ["fr"]}, "text.tc.fr: no such file"),
        ({"task": "chat", "file": "{t}/none.jsonl"}, "none.jsonl: no such file"),
        ({"task": "chat", "file": "{t}/empty.jsonl"}, "source s: no example; is its data empty?"),
        ({"task": "chat", "file": "{t}/bad.jsonl"}, "bad.jsonl, line 2: not a ShareGPT"),
        ({"task": "chat", "file": "{t}/bad.json"}, "bad.json, line 2: not a ShareGPT"),
        ({"task": "chat", "file": "{t}/null.jsonl"}, r"all are rejected \(s:000000001: .*no text"),
        ({"task": "mono", "text_dir": "{t}/data", "langs": ["en"]}, "source s: .*use plain"),
        ({"task": "mt", "text_dir": "{t}/data", "pairs": ["en-de"]}, "tc.en, line 3: key utt000"),
    ],
)
def test_errors_are_one_line_and_leave_no_output(tmp_path, lm_data, lm_tokenizer, source, words):
    (lm_data / "text.tc.en").write_text("utt000 a\nutt001 b\nutt000 c\n")
    (tmp_path / "empty.jsonl").write_text("")
    good = '{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}\n'
    (tmp_path / "bad.jsonl").write_text(good + "{\n")
    (tmp_path / "bad.json").write_text(f"[{good}, {{}}]")
    (tmp_path / "null.jsonl").write_text(good.replace('"A"', "null"))
    source = {
        key: value.format(t=tmp_path) if isinstance(value, str) else value
        for key, value in source.items()
    }
    with pytest.raises(SpireError, match=words) as caught:
        build(mixture({"name": "s", **source}), lm_tokenizer, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep" / "out").exists()


def test_tasks_without_a_plain_form(tmp_path, lm_data, lm_tokenizer):
    source = {"name": "s", "task": "st", "data_dir": str(lm_data), "targets": ["de"]}
    with pytest.raises(SpireError, match="source s: .*use chatml"):
        build(mixture(source, format="plain"), lm_tokenizer, tmp_path / "out")


def test_a_variant_without_sources(tmp_path, lm_tokenizer):
    source = {"name": "s", "task": "asr", "data_dir": "d", "not_in": ["x"]}
    with pytest.raises(SpireError, match="variant 'x' leaves out all sources"):
        build(mixture(source), lm_tokenizer, tmp_path / "out", variant="x")


@pytest.mark.parametrize(
    "line, words",
    [
        ("utt011 3 x 4", r"{u}: utt011: '3 x 4'"),
        ("utt011 3 20 4", r"{u}: utt011: unit 20, but the model has units 0 to 19"),
    ],
)
def test_bad_units_name_file_and_utterance(tmp_path, lm_data, lm_tokenizer, line, words):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    lines[11] = line
    (lm_data / UNITS_NAME).write_text("\n".join(lines) + "\n")
    for source in (
        {"name": "s", "task": "asr", "data_dir": str(lm_data)},
        {"name": "s", "task": "st", "data_dir": str(lm_data), "targets": ["de"]},
    ):
        with pytest.raises(SpireError, match=words.format(u=UNITS_NAME)):
            build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=5)


def test_a_table_out_of_order_names_its_line(tmp_path, lm_data, lm_tokenizer):
    lines = (lm_data / UNITS_NAME).read_text().splitlines()
    lines[13], lines[17] = lines[17], lines[13]
    (lm_data / UNITS_NAME).write_text("\n".join(lines) + "\n")
    source = {"name": "s", "task": "asr", "data_dir": str(lm_data)}
    for part_rows, nj in ((1, 1), (5, 2), (100, 1)):
        with pytest.raises(SpireError, match=rf"{UNITS_NAME}, line 15: key utt014 comes after"):
            build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=part_rows, nj=nj)


def test_places_of_parts_hold_all_that_is_known(tmp_path, lm_data, lm_tokenizer):
    """A part's facts are those of its examples, in their order."""
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data), "max_tokens": 1}
    with pytest.raises(SpireError):
        build(mixture(source), lm_tokenizer, tmp_path / "out", part_rows=10)
    (stem,) = (tmp_path / "out.work").glob("*/000001.npy")
    facts = part_files.read_facts(str(stem.with_suffix("")))
    keys = [f"utt{i:03d}" for i in range(10, 20)]
    positions = [sample_position(0, "asr", key) for key in keys]
    np.testing.assert_allclose(facts["place"] / 2.0**64, positions, rtol=1e-12)
    shutil.rmtree(tmp_path / "out.work")
    build(mixture({**source, "max_tokens": 10**6}), lm_tokenizer, tmp_path / "out")
    table = rows(tmp_path / "out")
    assert facts["length"].tolist() == table["length"][10:20]
    assert facts["targets"].tolist() == table["num_targets"][10:20]
