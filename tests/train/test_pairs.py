"""Pairs for distillation on disk, against the ST and MT examples that they are made of."""

import json

import numpy as np
import pytest
from datasets import load_from_disk
from helpers_lm import GERMAN, UNITS_NAME

from espnet_spire.train import parts
from espnet_spire.train.build import build_examples
from espnet_spire.train.examples import Ragged, Tokens
from espnet_spire.train.export_examples import export_examples
from espnet_spire.train.losses import Group, GroupLosses, loss_groups
from espnet_spire.train.pairs import KdWeights, answer_of, join_pairs, split_pair
from espnet_spire.train.store import ExampleStore, documents_of, students_of
from espnet_spire.utils.datadir import read_rejected
from espnet_spire.utils.errors import SpireError


def mixture(data, *tasks, **other):
    sources = {
        "asr": {"data_dir": str(data)},
        "st": {"data_dir": str(data), "targets": ["de"]},
        "st_kd": {"data_dir": str(data), "targets": ["de"]},
        "mt": {"text_dir": str(data), "pairs": ["en-de"]},
    }
    sources = [{"name": task, "task": task, **sources[task]} for task in tasks]
    return {"format": "chatml", "max_length": 256, "seed": 0, "sources": sources, **other}


@pytest.fixture
def data(lm_data):
    (lm_data / "text.tc.en").write_text((lm_data / "text").read_text())
    return lm_data


def build(mix, tokenizer, out, **options):
    return build_examples(mix, tokenizer, out, units_name=UNITS_NAME, **options)


def ragged(*rows):
    return Ragged(
        np.array(sum(rows, []), np.int32), np.cumsum([0, *map(len, rows)]).astype(np.int32)
    )


def lists(rows):
    return [part.tolist() for part in np.split(rows.values, rows.offsets[1:-1])]


def test_joining_by_hand():
    ids, spans = join_pairs(
        (ragged([1, 2, 3], [4, 5]), ragged([1, 2, 2, 3], [1, 2])),
        (ragged([6, 7], [8, 9, 10]), ragged([0, 1, 1, 2], [2, 3])),
    )
    assert lists(ids) == [[1, 2, 3, 6, 7], [4, 5, 8, 9, 10]]
    assert lists(spans) == [[1, 2, 2, 3, 3, 3, 3, 4, 4, 5], [1, 2, 2, 2, 4, 5]]
    assert ids.values.dtype == spans.values.dtype == ids.offsets.dtype == np.int32


def test_the_answer_of_tokens():
    assert answer_of(Tokens([7, 8, 9, 10], -1, [1, 2, 3, 4], None)) == [8, 10]


def test_a_pair_holds_the_examples_of_both_tasks(tmp_path, data, lm_tokenizer):
    report = build(mixture(data, "st", "st_kd", "mt", "asr"), lm_tokenizer, tmp_path / "all")
    store = ExampleStore(tmp_path / "all")
    assert store.has_pairs and ("st_kd", "en-de") in store.groups
    number = {store.key(index): index for index in range(len(store))}
    for utterance in range(24):
        key = f"utt{utterance:03d}"
        index = number[f"st_kd:{key}.de"]
        student, teacher = store.documents(index)
        (st,) = store.documents(number[f"st:{key}.de"])
        (mt,) = store.documents(number[f"mt:{key}.en-de"])
        for found, expected in ((student, st), (teacher, mt)):
            assert found.input_ids.tolist() == expected.input_ids.tolist()
            assert found.target_spans.tolist() == expected.target_spans.tolist()
        assert store.lengths([index]) == len(st.input_ids) + len(mt.input_ids)
        ((start, end),) = st.target_spans
        assert store.num_targets([index]) == end - start
        said = lm_tokenizer.decode(student.input_ids[start:end])
        assert said == GERMAN[utterance % len(GERMAN)] + "<|im_end|>"
        (start, end) = teacher.target_spans[0]
        assert lm_tokenizer.decode(teacher.input_ids[start:end]) == said
    entries = {entry["source"]: entry for entry in report["sources"]}
    assert entries["st_kd"]["tokens"] == entries["st"]["tokens"] + entries["mt"]["tokens"]
    assert entries["st_kd"]["target_tokens"] == entries["st"]["target_tokens"]


def test_other_examples_are_what_they_are_without(tmp_path, data, lm_tokenizer):
    build(mixture(data, "st", "asr"), lm_tokenizer, tmp_path / "without")
    build(mixture(data, "st", "asr", "st_kd"), lm_tokenizer, tmp_path / "with")
    for number in range(2):
        name = f"dataset/data-{number:05d}.arrow"
        assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "with" / name).read_bytes()


def test_the_number_of_processes_and_parts_does_not_matter(tmp_path, data, lm_tokenizer):
    whole = build(mixture(data, "st_kd"), lm_tokenizer, tmp_path / "a")
    other = build(mixture(data, "st_kd"), lm_tokenizer, tmp_path / "b", nj=2, part_rows=5)
    assert whole == other
    tables = [load_from_disk(str(tmp_path / name / "dataset"))[:] for name in "ab"]
    assert tables[0] == tables[1]


def test_a_pair_is_too_long_by_both_documents(tmp_path, data, lm_tokenizer):
    build(mixture(data, "st_kd"), lm_tokenizer, tmp_path / "all")
    lengths = ExampleStore(tmp_path / "all").lengths(range(24))
    limit = int(np.median(lengths))
    report = build(mixture(data, "st_kd", max_length=limit), lm_tokenizer, tmp_path / "short")
    (entry,) = report["sources"]
    assert entry["too_long"] == (lengths > limit).sum() > 0
    assert entry["examples"] == (lengths <= limit).sum()


def test_a_pair_whose_answers_are_not_the_same_tokens(tmp_path, data, lm_tokenizer, monkeypatch):
    real = parts.tokenize

    def twisted(encoder, rendered):
        """A tokenizer that splits one answer in another way after its transcript."""
        result = real(encoder, rendered)
        if all(item.units is None for item in rendered):
            spans = result[3].spans
            ids = list(result[3].ids)
            ids[spans[0]] += 1
            result[3] = result[3]._replace(ids=ids)
        return result

    monkeypatch.setattr(parts, "tokenize", twisted)
    report = build(mixture(data, "st_kd"), lm_tokenizer, tmp_path / "all")
    assert read_rejected(tmp_path / "all/rejected.tsv") == {
        "st_kd:utt003.de": "the translation's tokens after speech and text differ"
    }
    assert report["sources"][0]["rejected_by"] == {"not_aligned": 1}
    assert len(ExampleStore(tmp_path / "all")) == 23


def test_it_is_exported_as_both(tmp_path, data, lm_tokenizer, caplog):
    mix = mixture(data, "st_kd")
    build(mix, lm_tokenizer, tmp_path / "ex")
    assert export_examples(mix, UNITS_NAME, tmp_path / "ex", tmp_path / "out.jsonl") == 24
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["st", "mt"] * 24
    assert lines[0]["key"] == lines[1]["key"] == "st_kd:utt000.de"
    asked = [line["conversations"][0]["value"] for line in lines[:2]]
    assert asked[0].startswith("Speech: ") and asked[1].startswith("Translate the following")
    assert "source st_kd: exported as st and mt, an example each; distillation" in caplog.text


def test_plain_prompts_have_no_pairs(data, lm_tokenizer, tmp_path):
    with pytest.raises(SpireError, match="task st_kd has no plain form; use chatml"):
        build({**mixture(data, "st_kd"), "format": "plain"}, lm_tokenizer, tmp_path / "x")


def test_which_documents_are_students(tmp_path, data, lm_tokenizer):
    build(mixture(data, "asr", "st_kd"), lm_tokenizer, tmp_path / "ex")
    store = ExampleStore(tmp_path / "ex")
    # 0 … 23 are asr, 24 … 47 are pairs
    indices = [0, 30, 31, 5, 47]
    rows = documents_of(store, [np.array(indices[:2]), np.array(indices[2:])])
    assert [len(row) for row in rows] == [3, 5]
    assert students_of(store, indices).tolist() == [1, 3, 6]
    assert students_of(store, []).tolist() == []
    flat = [one for row in rows for one in row]
    for student in (1, 3, 6):
        learned = [one.input_ids[slice(*one.target_spans[0])] for one in flat[student:][:2]]
        assert learned[0].tolist() == learned[1].tolist()


@pytest.mark.parametrize(
    "spans",
    [
        [[1, 3], [5, 7]],  # no second document
        [[1, 3], [3, 3], [3, 3], [5, 7]],  # three
        [[1, 3], [3, 3], [5, 6]],  # answers of other lengths
        [[1, 3], [3, 3], [4, 6]],  # of other ids
        [[3, 3], [5, 7]],  # no answer
    ],
)
def test_what_is_no_pair(spans):
    ids = np.array([0, 8, 9, 0, 7, 8, 9])
    assert split_pair(ids, np.array(spans)) is None
    assert split_pair(ids, np.array([[1, 3], [3, 3], [5, 7]])) is not None


def test_losses_of_pairs_by_hand():
    pairs = [("asr", "en"), ("mt", "en-de"), ("st", "en-de"), ("st_kd", "en-de")]
    groups, first = loss_groups(pairs, KdWeights(1, 2, 0.5))
    assert first == dict(zip(pairs, range(4), strict=True))
    assert groups[3:] == [
        Group("st", "en-de", 1, True),
        Group("mt", "en-de", 2, False),
        Group("kd", "en-de", 0.5, False),
    ]
    losses = GroupLosses(groups)
    losses.add(
        [0, 2, 3, 4, 5],
        np.array([3.0, 8.0, 4.0, 6.0, 10.0]),
        np.array([3, 4, 2, 2, 2]),
        keys=str,
    )
    assert losses.report() == pytest.approx(
        {
            "loss": (3 + 8 + 1 * 4 + 2 * 6 + 0.5 * 10) / (3 + 4 + 2),
            "loss_asr": 1.0,
            "loss_kd": 5.0,
            "loss_mt": 3.0,
            "loss_st": 2.0,  # ordinary ones and students together
            "loss_asr.en": 1.0,
            "loss_mt.en-de": 3.0,
            "loss_st.en-de": 2.0,
            "loss_kd.en-de": 5.0,
        }
    )
