"""TowerBlocks: every form of it, its counts, and entries that cannot be learned from."""

import json

import pytest
from corpora import towerblocks
from corpora.text_checks import error_of, listed, prepare_text

from espnet_spire.bin.prepare_text import main
from espnet_spire.train.sources import read_stream, streams_of
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.errors import SpireError

COUNT = 40


@pytest.fixture
def root(tmp_path):
    return towerblocks.build(tmp_path / "Tower Blocks", COUNT)


def entries(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prepare(out, root, *options):
    prepare_text("towerblocks", out, "--root", root, *options)
    return entries(out), read_json(out.with_name(f"{out.name}.preparation.json"))


def test_all_columns_of_all_entries_in_their_order(root, tmp_path):
    out = tmp_path / "data/towerblocks"
    found, report = prepare(out, root)
    assert found == [towerblocks.entry(number) for number in range(COUNT)]
    # multiples of 4: 10; multiples of 5 that are none of 4: 5, 15, 25, 35 and 10, 30
    assert report["task"] == {
        "automatic_post_edition": 6,
        "general_mt_clean": 24,
        "named_entity_recognition": 10,
    }
    assert report["dataset"] == {"multiconer2023": 10, "qt21": 6, "wmt14-21": 24}
    # entities of MultiCoNER's dev are training data
    assert report["split"] == {"dev": 10, "train": 30}
    assert sum(report["lang"].values()) == COUNT and report["lang"]["es"] == 10
    assert (report["read"], report["kept"], report["rejected"]) == (COUNT, COUNT, 0)
    assert listed(tmp_path / "data/towerblocks.rejected.tsv") == {}


def test_the_examples_stage_reads_it(root, tmp_path):
    prepare(tmp_path / "towerblocks", root)
    source = {"name": "tb", "task": "chat", "file": str(tmp_path / "towerblocks")}
    raw = list(read_stream(streams_of(source, "none")[0], 0))
    assert [one.key for one in raw] == [f"{number:09d}" for number in range(1, COUNT + 1)]
    assert raw[0].lang == "es" and raw[0].turns[0].content == towerblocks.NER
    assert not any(one.unusable for one in raw)


@pytest.mark.parametrize("form", ["save_to_disk", "dict", "array", "lines", "other splits"])
def test_other_forms(root, tmp_path, form):
    from datasets import Dataset, DatasetDict

    expected, _ = prepare(tmp_path / "expected", root)
    other = tmp_path / "other"
    if form == "save_to_disk":
        Dataset.from_list(expected).save_to_disk(other)
    elif form == "dict":
        held_out = Dataset.from_list(expected[:1])
        DatasetDict(train=Dataset.from_list(expected), test=held_out).save_to_disk(other)
    elif form == "array":
        other.mkdir()
        (other / "towerblocks.json").write_text(json.dumps(expected))
    elif form == "lines":
        other = tmp_path / "other.jsonl"
        other.write_text("".join(f"{json.dumps(e, ensure_ascii=False)}\n\n" for e in expected))
    else:
        other = root
        (root / "data/test-00000-of-00001.parquet").write_bytes(b"not read")
    assert prepare(tmp_path / "found", other)[0] == expected


def test_some_splits_alone(root, tmp_path):
    found, report = prepare(tmp_path / "blocks", root, "--splits", "train")
    assert {entry["split"] for entry in found} == {"train"} and len(found) == 30
    assert (report["left_out"], report["kept"]) == (10, 30)
    left = listed(tmp_path / "blocks.left_out.tsv")
    assert left["000000001"] == f"made of split dev ({root}/data, entry 1)" and len(left) == 10


def test_entries_that_cannot_be_learned_from(tmp_path):
    good = towerblocks.entry(1)
    talk = good["conversations"]
    path = tmp_path / "blocks.jsonl"
    lines = [
        json.dumps(good).encode(),
        b"{\xff}",
        b"{",
        b"[1]",
        json.dumps({**good, "conversations": talk[:1]}).encode(),
        json.dumps({**good, "conversations": [{"from": "tool", "value": "x"}, *talk]}).encode(),
        json.dumps({**good, "conversations": [talk[0], {"from": "gpt", "value": None}]}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    error = error_of("--corpus", "towerblocks", "--root", path, "--out", tmp_path / "out")
    assert error.startswith("towerblocks: 6 of 7 texts are unusable, first 000000002: not valid UT")
    assert not (tmp_path / "out").exists()
    found, report = prepare(tmp_path / "out", path, "--max_rejected", 0.9)
    assert found == [good] and report["rejected"] == 6
    reasons = listed(tmp_path / "out.rejected.tsv")
    assert [f"({path}, line {line})" in reasons[f"{line:09d}"] for line in range(2, 8)] == [
        True
    ] * 6
    assert reasons["000000005"] == f"nobody answers ({path}, line 5)"
    assert reasons["000000006"].startswith("a turn of 'tool', who is none of human, user")
    assert reasons["000000007"].startswith("a turn of gpt whose value is no text")


def test_index(root, capsys, tmp_path):
    main(["--corpus", "towerblocks", "--root", str(root), "--print_index"])
    names = [f"{root}/data/train-0000{part}-of-00002.parquet" for part in (0, 1)]
    assert capsys.readouterr().out.splitlines() == names


def test_what_is_no_towerblocks(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpireError, match="empty: neither a directory of datasets nor one with Par"):
        main(
            [
                "--corpus",
                "towerblocks",
                "--root",
                str(tmp_path / "empty"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
    with pytest.raises(SpireError, match="towerblocks has no split 'dev'; it has train"):
        main(
            [
                "--corpus",
                "towerblocks",
                "--root",
                ".",
                "--split",
                "dev",
                "--out",
                str(tmp_path / "out"),
            ]
        )
