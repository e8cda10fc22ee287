"""mC4 and other monolingual text: tables, draws, shards that are left unread, what is wrong."""

import gzip
import json
import lzma
import os
import subprocess
import sys

import pytest
from corpora import mc4
from corpora.text_checks import error_of, listed, prepare_text, run_prepare_text

from espnet_spire.bin.prepare_text import main
from espnet_spire.train.sources import read_stream, streams_of
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def root(tmp_path):
    return mc4.build(tmp_path / "m c4", ("de", "zh"))


def key(lang, number, line):
    return f"c4-{lang}.tfrecord-{number:05d}-of-02048#{line:09d}"


def test_documents_stay_whole_and_keep_their_line_breaks(root, tmp_path):
    tables = prepare_text("mc4", tmp_path / "out", "--root", root, "--langs", "zh", "de")
    assert list(tables) == ["text.de", "text.zh"]  # without the validation split
    german = tables["text.de"]
    assert len(german) == 40 + 3 + 30 + 30 and list(german) == sorted(german)
    assert german[key("de", 1, 2)] == mc4.documents("de", 1)[1].replace("\n", "\u2028")
    odd = [german[key("de", 0, line)] for line in (41, 42, 43)]
    assert odd == [
        "First line.\u2028Second line.\u2028\u2028A paragraph.",
        "tab in it\u2028and a Windows line\u2028and a separator\u2028next",
        "unit \U000f0003\U000f0013 here",
    ]
    chinese = tables["text.zh"][key("zh", 0, 1)]
    assert " " not in chinese and chinese.endswith("\u3000完")
    where = f"{mc4.shard(root, 'de', 0)}, line 44"
    left = listed(tmp_path / "out/left_out.tsv")
    assert left[f"de:{key('de', 0, 44)}"] == f"it is empty ({where})" and len(left) == 2
    report = read_json(tmp_path / "out/preparation.json")
    assert report["languages"][1]["lang"] == "de"
    assert [report["languages"][1][name] for name in ("read", "kept", "left_out")] == [104, 103, 1]


def test_training_reads_line_breaks_again(root, tmp_path):
    prepare_text("mc4", tmp_path / "out", "--root", root, "--langs", "de")
    source = {"name": "m", "task": "mono", "text_dir": str(tmp_path / "out"), "langs": ["de"]}
    (stream,) = streams_of(source, "none")
    read = {raw.key: raw.texts[0] for raw in read_stream(stream, 0)}
    assert read[f"{key('de', 0, 41)}.de"] == mc4.ODD[0]
    assert read[f"{key('de', 1, 1)}.de"] == mc4.documents("de", 1)[0]


def test_the_validation_split(root, tmp_path):
    tables = prepare_text(
        "mc4", tmp_path / "out", "--root", root, "--split", "validation", "--langs", "de"
    )
    assert list(tables["text.de"].values()) == ["held out"]


def test_a_draw_does_not_depend_on_jobs_and_fits(root, tmp_path):
    options = ["--root", root, "--langs", "de", "zh", "--max_bytes", 3000, "--seed", 3]
    one = prepare_text("mc4", tmp_path / "one", *options)
    two = prepare_text("mc4", tmp_path / "two", *options, "--nj", 2)
    assert one == two
    for table in one.values():
        assert 2500 < sum(len(text.encode()) for text in table.values()) <= 3000
        assert len({name.split("#")[0] for name in table}) == 3  # of all shards
    fewer = prepare_text("mc4", tmp_path / "few", *options[:5], "--max_documents", 7)
    assert [len(table) for table in fewer.values()] == [7, 7]


def test_shards_that_are_not_drawn_are_not_read(root, tmp_path, capsys):
    options = ["--root", str(root), "--langs", "de", "--max_files", "2"]
    main(["--corpus", "mc4", "--print_index", *options])
    drawn = capsys.readouterr().out.splitlines()
    shards = [str(mc4.shard(root, "de", number)) for number in mc4.SHARDS]
    assert len(drawn) == 2 and set(drawn) < set(shards)
    (left,) = set(shards) - set(drawn)
    with open(left, "wb") as stream:
        stream.write(b"this is no gzip")
    tables = prepare_text("mc4", tmp_path / "out", *options)
    files = {name.split("#")[0] for name in tables["text.de"]}
    assert files == {path.rsplit("/", 1)[1].removesuffix(".json.gz") for path in drawn}


def test_a_shard_that_was_cut_off(root, tmp_path):
    path = mc4.shard(root, "de", 1)
    path.write_bytes(path.read_bytes()[:-20])
    options = ["--corpus", "mc4", "--root", root, "--langs", "de", "--out", tmp_path / "out"]
    error = error_of(*options)
    assert error.startswith(f"{path}: cut off or damaged") and "--max_rejected" in error
    assert not (tmp_path / "out").exists()
    tables = prepare_text("mc4", tmp_path / "out", *options[2:6], "--max_rejected", 0.02)
    # what came before is there, and so are the other shards
    before = [name for name in tables["text.de"] if "-00001-" in name]
    assert 0 < len(before) <= 30 and key("de", 2, 30) in tables["text.de"]
    rejected = listed(tmp_path / "out/rejected.tsv")
    assert list(rejected) == ["de:c4-de.tfrecord-00001-of-02048#end"]
    assert "cut off or damaged" in rejected["de:c4-de.tfrecord-00001-of-02048#end"]


def test_lines_that_are_no_documents_are_listed(root, tmp_path):
    path = mc4.shard(root, "de", 1)
    lines = [b'{"text": "\xff"}', b"{}", b'["text"]', b'{"text": 3}', b'{"text": "\\ud800"}', b"{"]
    with gzip.open(path, "wb") as stream:
        stream.write(b"\n".join([b'\xef\xbb\xbf{"text": "with a mark"}', *lines]) + b"\n")
    options = ["--root", root, "--langs", "de"]
    error = error_of("--corpus", "mc4", *options, "--out", tmp_path / "out")
    assert error.startswith("text.de: 6 of 81 texts are unusable, first c4-de.tfrecord-00001-of-")
    assert "mend them and start again)" in error
    tables = prepare_text("mc4", tmp_path / "out", *options, "--max_rejected", 0.1)
    assert tables["text.de"][key("de", 1, 1)] == "with a mark"
    reasons = listed(tmp_path / "out/rejected.tsv")
    assert list(reasons) == [f"de:{key('de', 1, line)}" for line in range(2, 8)]
    where = [f" ({path}, line {line})" for line in range(2, 8)]
    kinds = [r.removesuffix(w) for r, w in zip(reasons.values(), where, strict=True)]
    assert kinds[0] == "not valid UTF-8 (invalid start byte)"
    assert kinds[1] == "no JSON object with a text (KeyError: 'text')"
    assert kinds[3] == kinds[4] == "its text is no valid Unicode string"
    assert all(kinds[n].startswith("no JSON object with a text (") for n in (2, 5))


def test_files_of_ones_own(tmp_path):
    (tmp_path / "de").mkdir()
    (tmp_path / "de/a b.txt").write_bytes("\ufeffeins\r\n\r\nzwei \n".encode())
    with lzma.open(tmp_path / "de/c.jsonl.xz", "wt") as stream:
        stream.write(json.dumps({"text": "drei\nvier"}) + "\n\n")
    tables = prepare_text(
        *("mono", tmp_path / "out", "--langs", "de", "--files"),
        *(tmp_path / "{lang}/*.txt", tmp_path / "{lang}/c.jsonl.xz"),
    )
    assert tables["text.de"] == {
        "a_b#000000001": "eins",
        "a_b#000000003": "zwei",
        "c#000000001": "drei\u2028vier",
    }
    left = listed(tmp_path / "out/left_out.tsv")  # blank lines of plain text are no documents
    assert list(left) == ["de:c#000000002"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mono", "--langs", "de"], "--files is missing"),
        (["mono", "--files", "x.txt"], "--files x.txt: {lang} must be in it, or --langs be one"),
        (["mono", "--files", "{lang}.txt", "--langs", "de"], "de.txt: no such file"),
        (["mono", "--files", "{lang}", "--langs", "de", "de"], "--langs de de: one of them is the"),
        (["mc4", "--root", ".", "--langs", "qq"], "language 'qq'"),
        (["mc4", "--root", ".", "--split", "test"], "mc4 has no split 'test'; it has train, valid"),
        (["mc4", "--root", "gone"], "gone: no such directory; in db.sh, set MC4 to that of mc4"),
        (["mc4"], "MC4 is not set: in db.sh, set it to the directory of mc4 .*allenai/c4"),
        (["mc4", "--columns", "1", "2"], "--columns is no option of --corpus mc4"),
        (["mc4", "--max_bytes", "0"], "--max_bytes 0: must be at least 1"),
        (["wmt23", "--nj", "2"], "--nj is no option of --corpus wmt23"),
    ],
)
def test_what_cannot_be_asked(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MC4", raising=False)
    with pytest.raises(SpireError, match=message):
        main(["--corpus", *options, "--out", "out"])


def test_after_a_kill_the_same_command_gives_the_same(tmp_path):
    text = "".join(f"Zeile {number}\n" for number in range(20_000))
    first, last = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text(text)
    os.mkfifo(last)
    options = ["--langs", "de", "--files", tmp_path / "*.txt", "--max_documents", 300]
    command = [sys.executable, "-m", "espnet_spire.bin.prepare_text", "--corpus", "mono"]
    out = tmp_path / "data/out"
    running = subprocess.Popen([*command, *map(str, options), "--out", str(out)])
    with open(last, "w") as stream:  # waits for the reader
        stream.write(text[:70_000])
        stream.flush()
        running.kill()
        running.wait()
    assert not out.exists() and any(out.parent.iterdir())
    last.unlink()
    last.write_text(text)
    found = prepare_text("mono", out, *options)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert found == prepare_text("mono", tmp_path / "whole", *options)
    assert len(found["text.de"]) == 300


def test_as_a_user_sees_it(root, tmp_path):
    options = ["--corpus", "mc4", "--root", root, "--langs", "de", "--max_documents", 5]
    done = run_prepare_text(*options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "error: --out is missing: the directory to write\n"
    done = run_prepare_text(*options, "--out", tmp_path / "out")
    assert done.returncode == 0 and done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert "INFO: de: 104 documents in 3 files, 5 kept (" in said
    assert said.endswith("0 rejected, 1 empty")
