"""Conversations in every form that they come in."""

import json

import pytest

from espnet_spire.text.prompts import Turn
from espnet_spire.train.sharegpt import (
    is_lines,
    parse_entry,
    read_conversations,
    sharegpt_entry,
    write_lines,
)
from espnet_spire.utils.errors import SpireError

ENTRIES = [
    {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Frage, ]\n[ é 面"},
            {"from": "gpt", "value": "Antwort"},
        ],
        "lang": "en-de",
        "dataset": "x",
    },
    {"conversations": [{"from": "user", "value": "Q"}, {"from": "assistant", "value": ""}]},
]
EXPECTED = [
    (
        1,
        [
            *(Turn("system", "Be brief."), Turn("user", "Frage, ]\n[ é 面")),
            Turn("assistant", "Antwort"),
        ],
        "en-de",
    ),
    (2, [Turn("user", "Q"), Turn("assistant", "")], "und"),
]


def read(path):
    found = list(read_conversations(path, 0, None, 0, path))
    assert not any(fault for *_, fault in found)
    return [tuple(entry)[:3] for entry in found]


def lines_of(path, out):
    assert not is_lines(path)
    write_lines(path, out)
    return read(out)


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    assert is_lines(path) and read(path) == EXPECTED
    # from the second line on, and only the first
    middle = path.read_bytes().index(b"\n") + 1
    assert [tuple(x)[:3] for x in read_conversations(path, middle, None, 1, path)] == EXPECTED[1:]
    assert [tuple(x)[:3] for x in read_conversations(path, 0, middle, 0, path)] == EXPECTED[:1]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text("\n " + json.dumps(ENTRIES, indent=indent, ensure_ascii=False) + "\n")
    assert lines_of(path, tmp_path / "out.jsonl") == EXPECTED


def test_a_json_array_of_many_blocks(tmp_path):
    """Entries across the borders of what is read at a time, one of them longer than that."""
    sizes = [3, 700_000, 900_000, 2_500_000, 1] + [200_000] * 20
    entries = [sharegpt_entry([Turn("user", f"{n}" * size)]) for n, size in enumerate(sizes)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(entries))
    found = lines_of(path, tmp_path / "out.jsonl")
    assert [len(turns[0].content) for _, turns, _ in found] == [
        size * len(str(number)) for number, size in enumerate(sizes)
    ]


def test_an_empty_array(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    assert lines_of(path, tmp_path / "out.jsonl") == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("[{}, {", "a.json, entry 2: not valid JSON"),
        ("[{}", "a.json, entry 2: not valid JSON"),
        ("[{} x]", "a.json, entry 2: not valid JSON"),
        (b'["na\xefve"]', "a.json: not valid UTF-8; convert the file"),
    ],
)
def test_a_broken_array(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpireError, match=words):
        write_lines(path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_parquet_and_directories(tmp_path):
    from datasets import Dataset

    (tmp_path / "hub" / "data").mkdir(parents=True)
    dataset = Dataset.from_list(ENTRIES)
    dataset.to_parquet(tmp_path / "hub" / "data" / "train-0.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    for path in ("hub", "hub/data/train-0.parquet", "saved"):
        out = tmp_path / "out.jsonl"
        assert lines_of(tmp_path / path, out) == EXPECTED


def parquet(path, *said):
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list([sharegpt_entry([Turn("user", text)]) for text in said]).to_parquet(path)


@pytest.mark.parametrize(
    "train, others",
    [
        (["data/train-00000-of-00002", "data/train-00001-of-00002"], ["data/test-00000-of-00001"]),
        (["a/train/0000", "b/train/0000"], ["a/validation/0000", "b/test/0000"]),
        (["train"], ["dev", "extra"]),
        (["one", "training_of_testers"], []),  # no splits
    ],
)
def test_of_a_directory_with_splits_train_is_read(tmp_path, train, others):
    for name in (*train, *others):
        parquet(tmp_path / "hub" / f"{name}.parquet", name)
    found = lines_of(tmp_path / "hub", tmp_path / "out.jsonl")
    assert [turns[0].content for _, turns, _ in found] == train


def test_directories_of_several_sets(tmp_path):
    from datasets import Dataset, DatasetDict

    for name in ("test", "validation"):
        parquet(tmp_path / "hub" / f"{name}.parquet", name)
    with pytest.raises(SpireError, match="hub: Parquet files of test, validation and none of tra"):
        write_lines(tmp_path / "hub", tmp_path / "out")
    DatasetDict(train=Dataset.from_list(ENTRIES)).save_to_disk(tmp_path / "saved")
    with pytest.raises(SpireError, match="saved: several data sets; name the directory of one"):
        write_lines(tmp_path / "saved", tmp_path / "out")
    assert lines_of(tmp_path / "saved" / "train", tmp_path / "out.jsonl") == EXPECTED
    (tmp_path / "saved" / "train" / "state.json").write_text("{}")
    with pytest.raises(SpireError, match="train: not readable as a directory of datasets"):
        write_lines(tmp_path / "saved" / "train", tmp_path / "out")


def said(*turns, **more):
    return {"conversations": [{"from": who, "value": text} for who, text in turns], **more}


@pytest.mark.parametrize(
    "entry, reason",
    [
        (said(("human", "Q"), ("tool", "{}"), ("gpt", "A")), "a turn of 'tool', who is none of hu"),
        (said(("human", "Q"), (None, "A")), "a turn of None, who"),
        (said(("human", "Q"), (["gpt"], "A")), r"a turn of ['gpt'], who"),
        (said(("human", "Q"), ("gpt", None)), "a turn of gpt whose value is no text"),
        (said(("human", 3), ("gpt", "A")), "a turn of human whose value is no text"),
        (said(("human", "Q"), ("gpt", "A \ud83d B")), "a turn of gpt with half a surrogate pair"),
        (said(("system", "\udc00"), ("gpt", "A")), "a turn of system with half a surrogate pair"),
        (said(("human", "Q"), ("gpt", "A"), lang="\ud800"), "lang is not valid Unicode"),
    ],
)
def test_what_cannot_be_learned_says_why(tmp_path, entry, reason):
    found = parse_entry(entry, "x")
    assert found.turns == [] and found.fault.startswith(reason)
    # so does it through each form: nothing ends for a single row
    (tmp_path / "a.json").write_text(json.dumps([ENTRIES[0], entry]))
    write_lines(tmp_path / "a.json", tmp_path / "out.jsonl")
    out = tmp_path / "out.jsonl"
    _, (number, _, _, fault) = read_conversations(out, 0, None, 0, "x")
    assert (number, fault) == (2, found.fault)


def test_empty_system_turns_are_left_out():
    for empty in (None, "", " \n"):
        entry = said(("system", empty), ("human", "Q"), ("gpt", "A"))
        assert parse_entry(entry, "x").turns == [Turn("user", "Q"), Turn("assistant", "A")]


def test_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    first, second = (json.dumps(entry) for entry in ENTRIES)
    path.write_text(f"\n{first}\n \n{second}\n\n")
    numbers = [2, 4]
    assert read(path) == [(n, *rest[1:]) for n, rest in zip(numbers, EXPECTED, strict=True)]


@pytest.mark.parametrize(
    "text, kept", [("\nA\n", "A\n"), ("\r\n\n A", " A"), (" \t\n A", " A"), (" A\nB", " A\nB")]
)
def test_an_answer_does_not_begin_with_a_newline(text, kept):
    turns = parse_entry(said(("human", text), ("gpt", text)), "x").turns
    assert turns == [Turn("user", text), Turn("assistant", kept)]


def test_what_is_neither(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpireError, match="empty: neither a directory of datasets nor one with"):
        write_lines(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(SpireError, match="x.parquet: not Parquet"):
        write_lines(tmp_path / "x.parquet", tmp_path / "out")
    with pytest.raises(SpireError, match="none.jsonl: no such file"):
        is_lines(tmp_path / "none.jsonl")


def test_messages_by_role_and_content():
    entry = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    turns = [Turn("user", "Q"), Turn("assistant", "A")]
    assert parse_entry(entry, "x") == (0, turns, "und", None)


@pytest.mark.parametrize(
    "entry",
    [
        *([], "text", 3, None, {}, {"conversations": 3}, {"conversations": [3]}),
        {"conversations": [{"from": "gpt"}]},
    ],
)
def test_what_is_no_conversation(entry):
    with pytest.raises(SpireError, match="^f, line 3: not a ShareGPT conversation"):
        parse_entry(entry, "f, line 3")


@pytest.mark.parametrize("line", ["{", "\\xff", '{"conversations": [{"from": "gpt"}]}'])
def test_lines_are_counted_from_the_files_beginning(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line.encode().replace(b"\\xff", b"\xff") + b"\n")
    with pytest.raises(SpireError, match="given.json, line 8: not a ShareGPT conversation"):
        list(read_conversations(path, 0, None, 7, "given.json"))


def test_writing_is_the_inverse_of_reading():
    turns = EXPECTED[0][1]
    assert parse_entry(sharegpt_entry(turns), "x").turns == turns
