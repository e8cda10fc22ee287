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
    return [tuple(found) for found in read_conversations(path, 0, None, 0, path)]


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
    assert [tuple(x) for x in read_conversations(path, middle, None, 1, path)] == EXPECTED[1:]
    assert [tuple(x) for x in read_conversations(path, 0, middle, 0, path)] == EXPECTED[:1]


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
    ],
)
def test_a_broken_array(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
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
    assert parse_entry(entry, "x")[1:] == ([Turn("user", "Q"), Turn("assistant", "A")], "und")


@pytest.mark.parametrize(
    "entry",
    [
        *([], "text", 3, None, {}, {"conversations": 3}, {"conversations": [3]}),
        {"conversations": [{"from": "robot", "value": "x"}]},
        {"conversations": [{"from": "gpt", "value": None}]},
        {"conversations": [{"from": "gpt"}]},
    ],
)
def test_what_is_no_conversation(entry):
    with pytest.raises(SpireError, match="^f, line 3: not a ShareGPT conversation"):
        parse_entry(entry, "f, line 3")


@pytest.mark.parametrize("line", ["{", "", "\\xff", '{"conversations": [{"from": "gpt"}]}'])
def test_lines_are_counted_from_the_files_beginning(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line.encode().replace(b"\\xff", b"\xff") + b"\n")
    with pytest.raises(SpireError, match="given.json, line 8: not a ShareGPT conversation"):
        list(read_conversations(path, 0, None, 7, "given.json"))


def test_writing_is_the_inverse_of_reading():
    turns = EXPECTED[0][1]
    assert parse_entry(sharegpt_entry(turns), "x").turns == turns
