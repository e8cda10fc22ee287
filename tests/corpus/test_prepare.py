"""Preparing a split: counts, faults, rules, all or nothing, kills."""

import json
import re
import signal
import subprocess
import sys

import pytest

from espnet_spire.corpus import prepare, registry
from espnet_spire.corpus.prepare import Request, prepare_split
from espnet_spire.corpus.records import Corpus, Fault, LeftOut, Split, Utterance
from espnet_spire.corpus.rules import parse_rule
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError


def corpus(items):
    return Corpus(
        name="tiny",
        variable="TINY",
        source="https://example.org",
        splits=[Split("train"), Split("test", whole=True)],
        read=lambda root, split, targets: iter(items),
        index=lambda root, split, targets: [],
        targets=["de", "fr"],
    )


def request(tmp_path, split="train", rules=(), max_rejected=1.0, targets=("de",)):
    rules = [parse_rule(rule) for rule in rules]
    return Request(tmp_path, split, list(targets), rules, 0, 1, max_rejected)


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    return str(tmp_path / "a.wav")


def utterance(key, clip, **more):
    return Utterance(key, clip, more.pop("text", "words"), key[0], f"f, line {key}", **more)


def content(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_counts_before_and_after_each_rule(tmp_path, clip, caplog):
    caplog.set_level("INFO")
    items = [utterance(f"{s}-{n}", clip, seconds=1800.0 * n) for s in "ab" for n in range(1, 5)]
    items.append(LeftOut("noise", "is no speech"))
    rules = ["min_seconds=1801", "max_per_speaker=2"]
    report = prepare_split(corpus(items), request(tmp_path, rules=rules), tmp_path / "out")
    assert [(s["step"], s["utterances"]) for s in report["steps"]] == [
        ("read", 8),
        ("at least 1801 s", 6),
        ("at most 2 utterances a speaker", 4),
    ]
    assert [s["hours"] for s in report["steps"][:2]] == [10.0, 9.0]
    assert report["read"] == 8 and report["rejected"] == 0 and report["marked_by_corpus"] == 1
    assert report == json.loads((tmp_path / "out/preparation.json").read_text())
    for line in (
        "tiny train: 8 utterances read",
        "tiny train: usable: 8 → 8 (10.00 h)",
        "tiny train: at least 1801 s: 8 (10.00 h) → 6 (9.00 h)",
        f"tiny train: at most 2 utterances a speaker: 6 (9.00 h) → 4 ({report['steps'][2]['hours']:.2f} h)",  # noqa: E501
    ):
        assert line in caplog.text
    left_out = dict(
        line.split("\t") for line in (tmp_path / "out/left_out.tsv").read_text().splitlines()
    )
    assert left_out["noise"] == "is no speech"
    assert left_out["a-1"] == "1800.000 s is shorter than 1801 s"
    assert set(left_out) | set(read_table(tmp_path / "out/text")) == {
        "noise", *(item.key for item in items)
    }  # fmt: skip


def test_no_hours_where_a_length_is_not_known(tmp_path, clip):
    items = [utterance("a-1", clip, seconds=9.0), utterance("a-2", clip)]
    report = prepare_split(corpus(items), request(tmp_path), tmp_path / "out")
    assert report["steps"] == [{"step": "read", "utterances": 2, "hours": None}]


def test_what_is_rejected_and_why(tmp_path, clip):
    items = [
        utterance("a-2", clip, text="second"),
        Fault("f:1", "not valid UTF-8", "f, line 1"),
        utterance("a-2", clip, text="again"),
        utterance("a-1", clip, text=""),
        utterance("a-3", "/gone.wav"),
        utterance("a/4", clip),
        utterance("a 5", clip),
        utterance("a-6", clip)._replace(speaker="Jo Do"),
        utterance("a-7", clip, recording="r", start=2.0, end=2.0),
        utterance("a-8", "cat gone.wav |"),
    ]
    report = prepare_split(corpus(items), request(tmp_path), tmp_path / "out")
    assert read_table(tmp_path / "out/text") == {"a-2": "second", "a-8": "words"}
    lines = (tmp_path / "out/rejected.tsv").read_text().splitlines()
    assert dict(line.split("\t") for line in lines) == {
        "f:1": "not valid UTF-8 (f, line 1)",
        "a-2": "is there already: f, line a-2 (f, line a-2)",
        "a-1": "empty transcript (f, line a-1)",
        "a-3": "/gone.wav: no such audio file (f, line a-3)",
        "a/4": "key 'a/4' has white space or a slash, or is empty (f, line a/4)",
        "a 5": "key 'a 5' has white space or a slash, or is empty (f, line a 5)",
        "a-6": "speaker 'Jo Do' is no single word (f, line a-6)",
        "a-7": "2.0 s to 2.0 s is no part of a recording (f, line a-7)",
    }
    assert (report["read"], report["rejected"], report["steps"][0]["utterances"]) == (10, 8, 2)


def test_translations(tmp_path, clip, caplog):
    """Some lack one, and one that is empty is none."""
    caplog.set_level("INFO")
    items = [
        utterance("a-1", clip, translations={"de": "eins", "fr": "un"}),
        utterance("a-2", clip, translations={"de": "", "fr": "deux"}),
        utterance("a-3", clip, translations={"de": "", "fr": "trois"}),
        utterance("a-4", clip),
    ]
    wanted = request(tmp_path, targets=("de", "fr"))
    report = prepare_split(corpus(items), wanted, tmp_path / "out")
    assert report["translations"] == {"de": 1, "fr": 3} and report["rejected"] == 0
    assert (tmp_path / "out/text.tc.de").read_text() == "a-1 eins\n"
    assert (tmp_path / "out/text.tc.fr").read_text() == "a-1 un\na-2 deux\na-3 trois\n"
    assert "2 translations into de are empty and left out, first that of a-2 (f, line a-2)" in (
        caplog.text
    )
    assert "tiny train: translations into de: 3 lack one" in caplog.text
    assert "tiny train: translations into fr: 1 lack one" in caplog.text


def test_the_share_that_may_be_rejected(tmp_path, clip):
    items = [utterance(f"a-{n}", clip) for n in range(9)] + [Fault("f:1", "bad", "f, line 1")]
    with pytest.raises(SpireError, match="train: 1 of 10 .* first f:1: bad .f, line 1. .all in"):
        prepare_split(corpus(items), request(tmp_path, max_rejected=0.09), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.rejected.tsv").read_text() == "f:1\tbad (f, line 1)\n"
    prepare_split(corpus(items), request(tmp_path, max_rejected=0.1), tmp_path / "out")
    assert not (tmp_path / "out.rejected.tsv").exists()
    # of a test set none, whatever is asked for; what was there before stays
    before = content(tmp_path / "out")
    with pytest.raises(SpireError, match="tiny test: 1 of 10 utterances are unusable"):
        prepare_split(corpus(items), request(tmp_path, "test"), tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_test_sets_stay_as_they_are(tmp_path, clip):
    """With empty transcripts, and without rules."""
    items = [utterance("a-1", clip, text="")]
    prepare_split(corpus(items), request(tmp_path, "test"), tmp_path / "out")
    assert (tmp_path / "out/text").read_text() == "a-1\n"
    with pytest.raises(SpireError, match="tiny test: rules are not for test sets"):
        prepare_split(corpus(items), request(tmp_path, "test", ["min_seconds=1"]), tmp_path / "out")


def test_nothing_is_left(tmp_path, clip):
    with pytest.raises(SpireError, match="tiny train: no utterance is left"):
        prepare_split(corpus([]), request(tmp_path), tmp_path / "out")
    rule = request(tmp_path, rules=["min_seconds=9"])
    with pytest.raises(SpireError, match="tiny train: no utterance is left"):
        prepare_split(corpus([utterance("a-1", clip, seconds=1.0)]), rule, tmp_path / "out")
    with pytest.raises(SpireError, match="tiny has no split 'dev'; it has train, test"):
        prepare_split(corpus([]), request(tmp_path, "dev"), tmp_path / "out")


def test_the_order_of_a_corpus_does_not_matter(tmp_path, clip):
    items = [utterance(f"{s}-{n}", clip, text=f"{n}") for s in "abcdef" for n in range(5)]
    rules = ["max_per_speaker=3", "max_speakers_per_transcript=2", "max_per_speaker=1"]
    found = []
    for order in (items, items[::-1]):
        prepare_split(corpus(order), request(tmp_path, rules=rules), tmp_path / "out")
        found.append(content(tmp_path / "out"))
    for tables in found:
        # the corpus's own order of what is wrong or left out may differ, not what it is
        tables["left_out.tsv"] = sorted(tables["left_out.tsv"].splitlines())
    assert found[0] == found[1]
    assert sorted(found[0]) == sorted(
        "left_out.tsv preparation.json rejected.tsv spk2utt text utt2spk wav.scp".split()
    )


def test_more_than_is_in_memory_at_a_time(tmp_path, clip, monkeypatch):
    items = [utterance(f"{n % 7}-{n:04d}", clip) for n in range(500)]
    prepare_split(corpus(items), request(tmp_path), tmp_path / "one")
    sort = prepare.external_sort
    small = lambda rows, directory: sort(rows, directory, rows_in_memory=11)  # noqa: E731
    monkeypatch.setattr(prepare, "external_sort", small)
    prepare_split(corpus(items), request(tmp_path), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


_SLOW = """
import sys, time
from pathlib import Path
from espnet_spire.corpus.prepare import Request, prepare_split
from espnet_spire.corpus.records import Corpus, Split, Utterance

def read(root, split, targets):
    for number in range(200):
        yield Utterance(f"a-{number:03d}", "true |", "words", "a", "f")
        if number == int(sys.argv[2]):
            print("here", flush=True)
            time.sleep(60)

corpus = Corpus("slow", "SLOW", "", [Split("train")], read, lambda *_: [])
prepare_split(corpus, Request(Path("."), "train", [], [], 0, 1, 0.0), sys.argv[1])
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle(tmp_path, sent):
    """Nothing is at ``out``; the next start leaves no trace of it and the same directory."""

    def run(out, stop):
        argv = [sys.executable, "-c", _SLOW, str(out), str(stop)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)

    assert run(tmp_path / "whole" / "out", -1).wait() == 0
    out = tmp_path / "killed" / "out"
    process = run(out, 150)
    assert process.stdout.readline() == "here\n"
    process.send_signal(sent)
    assert process.wait() != 0
    assert not out.exists()
    assert run(out, -1).wait() == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert content(out) == content(tmp_path / "whole" / "out")


def test_each_corpus_says_what_it_is():
    """Names, variables and splits of all readers, of which those for tests are whole."""
    found = registry.speech_corpora()
    assert [entry.name for entry in found] == list(registry.SPEECH)
    assert len({entry.variable for entry in found}) == len(found)
    for entry in found:
        assert entry.variable.isupper() and entry.source.startswith("https://")
        names = [split.name for split in entry.splits]
        assert len(set(names)) == len(names)
        for split in entry.splits:
            held_out = re.match("(dev|val|test)(-|$)", split.name.lower())
            assert split.whole == bool(held_out)
