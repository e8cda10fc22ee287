"""Utterances to tables: what a data directory holds, line by line."""

import tracemalloc

import pytest

from espnet_spire.corpus.records import TO_THE_END, Utterance
from espnet_spire.corpus.tables import write_utterances
from espnet_spire.utils.datadir import validate_data_dir
from espnet_spire.utils.errors import SpireError


def written(tmp_path, utterances):
    """Name → content of the tables."""
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    assert write_utterances(iter(utterances), out, work) == len(utterances)
    assert not [path for path in work.rglob("*") if path.is_file()]
    assert validate_data_dir(out) == len(utterances)
    return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}


def test_files(tmp_path):
    """In C order, where capitals come first and a prefix before what it begins."""
    utterances = [
        Utterance("B-1", "/x y/1.wav", "Ein Wort.", "B", "", {"de": "a", "fr": "b"}),
        Utterance("a-1", "cat 2.wav |", "zwei  Wörter", "a", "", {"fr": "c"}),
        Utterance("a-10", "/3.wav", "", "a", ""),
    ]
    assert written(tmp_path, utterances) == {
        "wav.scp": "B-1 /x y/1.wav\na-1 cat 2.wav |\na-10 /3.wav\n",
        "text": "B-1 Ein Wort.\na-1 zwei  Wörter\na-10\n",
        "utt2spk": "B-1 B\na-1 a\na-10 a\n",
        "spk2utt": "B B-1\na a-1 a-10\n",
        "text.tc.de": "B-1 a\n",
        "text.tc.fr": "B-1 b\na-1 c\n",
    }


def test_parts_of_recordings(tmp_path):
    """Each recording once, in its own order, with times of three decimals."""
    utterances = [
        Utterance("s-1", "b.wav", "x", "s", "", recording="r2", start=0.0004, end=1.9996),
        Utterance("s-2", "a.wav", "x", "s", "", recording="r1", start=1 / 3, end=2),
        Utterance("t-1", "b.wav", "x", "t", "", recording="r2", start=2, end=TO_THE_END),
    ]
    tables = written(tmp_path, utterances)
    assert tables["wav.scp"] == "r1 a.wav\nr2 b.wav\n"
    assert tables["segments"] == "s-1 r2 0.000 2.000\ns-2 r1 0.333 2.000\nt-1 r2 2.000 -1\n"
    assert tables["spk2utt"] == "s s-1 s-2\nt t-1\n"


def test_speakers_whose_utterances_do_not_follow_each_other(tmp_path):
    utterances = [
        Utterance(f"k{number}", "x.wav", "x", f"s{number % 3}", "") for number in range(7)
    ]
    spk2utt = written(tmp_path, utterances)["spk2utt"]
    assert spk2utt == "s0 k0 k3 k6\ns1 k1 k4\ns2 k2 k5\n"


def test_a_recording_that_is_two_files(tmp_path):
    utterances = [
        Utterance("s-1", "a.wav", "x", "s", "", recording="r", end=1),
        Utterance("s-2", "b.wav", "x", "s", "", recording="r", end=1),
    ]
    with pytest.raises(SpireError, match="recording r is a.wav and b.wav"):
        written(tmp_path, utterances)


def test_what_cannot_stand_in_a_table(tmp_path):
    with pytest.raises(SpireError, match="'a b' or its value cannot stand in a table"):
        written(tmp_path, [Utterance("a b", "a.wav", "x", "s", "")])


def test_memory_does_not_grow(tmp_path):
    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "out").mkdir()
        (folder / "work").mkdir()
        utterances = (
            Utterance(f"s-{number:07d}", f"/{number}.wav", "words " * 20, f"s{number % 9}", "")
            for number in range(count)
        )
        tracemalloc.start()
        write_utterances(utterances, folder / "out", folder / "work")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # spk2utt: one speaker's keys and the pairs of a run of the sort, not the utterances' texts
    assert peak(20_000) - peak(10_000) < 300 * 10_000
