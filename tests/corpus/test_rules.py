"""The paper's rules: what each leaves out, worked out by hand, and that draws are fair."""

import collections
import itertools
import random

import numpy as np
import pytest
import soundfile

from espnet_spire.corpus.records import TO_THE_END, LeftOut, Utterance
from espnet_spire.corpus.rules import Setting, gigaspeech_text, parse_rule
from espnet_spire.utils.errors import SpireError


def utterance(key, *, speaker="s", text="words", **more):
    return Utterance(key, f"{key}.wav", text, speaker, f"{key} of a file", **more)


def applied(rule, utterances, tmp_path, seed=0):
    """What is taken, and why the rest is not: in the order of keys, nothing twice, none lost."""
    work = tmp_path / "work"
    work.mkdir()
    utterances = sorted(utterances)
    results = list(parse_rule(rule).apply(iter(utterances), Setting(seed, work, 2)))
    assert [result.key for result in results] == [utt.key for utt in utterances]
    for path in work.iterdir():
        path.rmdir()  # empty
    work.rmdir()
    taken = [result for result in results if not isinstance(result, LeftOut)]
    reasons = {result.key: result.reason for result in results if isinstance(result, LeftOut)}
    return taken, reasons


# GigaSpeech


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AS THEY SAY <COMMA> WHO KNOWS <QUESTIONMARK>", "as they say, who knows?"),
        ("I'M HERE <PERIOD> STOP <EXCLAMATIONPOINT>", "i'm here. stop!"),
        ("<COMMA> SO <PERIOD>", "so."),
        ("OH <EXCLAMATIONPOINT> <QUESTIONMARK>", "oh!?"),
        ("LESS < MORE <UNKNOWN>", "less < more <unknown>"),
        ("ÉCOLE  TWO\u3000THREE", "école two three"),
        ("<PERIOD>", ""),
        ("", ""),
    ],
)
def test_gigaspeech_text(text, expected):
    assert gigaspeech_text(text) == expected


# Caps


def test_so_many_a_speaker(tmp_path):
    """Speakers with fewer keep all, the others exactly so many; nothing of those taken changes."""
    sizes = {"a": 1, "b": 3, "c": 4, "d": 50}
    utterances = [
        utterance(f"{speaker}-{number:02d}", speaker=speaker, translations={"de": "ein Wort"})
        for speaker, size in sizes.items()
        for number in range(size)
    ]
    taken, reasons = applied("max_per_speaker=3", utterances, tmp_path)
    assert collections.Counter(utt.speaker for utt in taken) == {"a": 1, "b": 3, "c": 3, "d": 3}
    assert all(utt in utterances for utt in taken)
    assert len(reasons) == 48
    for key, reason in reasons.items():
        assert reason == f"speaker {key[0]} has 3 already"


def chi_square(counts, expected):
    return sum((count - expected) ** 2 / expected for count in counts)


def test_each_utterance_of_a_speaker_is_as_likely(tmp_path):
    """4 of 10 over 300 seeds: χ² with 9 degrees of freedom exceeds 27.9 once in 1,000 times.

    Utterances of one draw are not independent, which makes χ² smaller still: by 1 - 4/10.
    """
    utterances = [utterance(f"s-{number}") for number in range(10)]
    counts = collections.Counter()
    for seed in range(300):
        taken, _ = applied("max_per_speaker=4", utterances, tmp_path, seed)
        counts.update(utt.key for utt in taken)
    assert sum(counts.values()) == 1200 and len(counts) == 10
    assert chi_square(counts.values(), 120) < 27.9
    assert len(set(counts.values())) > 1  # drawn, not dealt


def test_each_pair_of_speakers_is_as_likely(tmp_path):
    """2 of 5 speakers of a transcript over 300 seeds: ten pairs, 9 degrees of freedom."""
    utterances = [utterance(f"{speaker}-1", speaker=speaker) for speaker in "abcde"]
    counts = collections.Counter()
    for seed in range(300):
        taken, _ = applied("max_speakers_per_transcript=2", utterances, tmp_path, seed)
        counts[tuple(utt.speaker for utt in taken)] += 1
    assert set(counts) == set(itertools.combinations("abcde", 2))
    assert chi_square(counts.values(), 30) < 27.9


def test_so_many_speakers_a_transcript(tmp_path):
    """A speaker that reads it twice is one speaker; case makes another transcript."""
    utterances = [
        *(utterance(f"{speaker}-1", speaker=speaker, text="Read by six.") for speaker in "abcdef"),
        *(utterance(f"{speaker}-2", speaker=speaker, text="Read by four.") for speaker in "abcd"),
        *(utterance(f"a-{number}", speaker="a", text="Six times.") for number in range(3, 9)),
        *(utterance(f"{speaker}-9", speaker=speaker, text="read by six.") for speaker in "ab"),
    ]
    taken, reasons = applied("max_speakers_per_transcript=4", utterances, tmp_path)
    counts = collections.Counter(utt.text for utt in taken)
    assert counts == {"Read by six.": 4, "Read by four.": 4, "Six times.": 6, "read by six.": 2}
    assert len(reasons) == 2 and all(key.endswith("-1") for key in reasons)
    assert set(reasons.values()) == {"4 other speakers read this transcript"}


def test_a_speaker_that_is_not_taken_stays_so(tmp_path):
    """Of 6 speakers with 5 readings each 4 keep all of theirs, whatever the order."""
    utterances = [
        utterance(f"{speaker}-{number}", speaker=speaker)
        for speaker in "abcdef"
        for number in range(5)
    ]
    for seed in range(20):
        taken, _ = applied("max_speakers_per_transcript=4", utterances, tmp_path, seed)
        counts = collections.Counter(utt.speaker for utt in taken)
        assert len(counts) == 4 and set(counts.values()) == {5}


@pytest.mark.parametrize("rule", ["max_per_speaker=2", "max_speakers_per_transcript=2"])
def test_draws_depend_on_seed_and_keys_alone(tmp_path, rule):
    """Not on what else there is, nor on the order in which a corpus gives it."""
    utterances = [
        utterance(f"{speaker}-{number}", speaker=speaker, text=f"sentence {number}")
        for speaker in "abcdefgh"
        for number in range(6)
    ]
    first = applied(rule, utterances, tmp_path)
    random.Random(0).shuffle(utterances)
    assert applied(rule, utterances, tmp_path) == first
    assert applied(rule, utterances, tmp_path, seed=1) != first
    others = [utterance("z-1", speaker="z", text="another"), *utterances]
    taken, reasons = applied(rule, others, tmp_path)
    assert ([utt for utt in taken if utt.key != "z-1"], reasons) == first


def test_more_utterances_than_are_in_memory_at_a_time(tmp_path, monkeypatch):
    utterances = [
        utterance(f"s{number % 7}-{number:03d}", speaker=f"s{number % 7}") for number in range(200)
    ]
    expected = applied("max_per_speaker=5", utterances, tmp_path)
    from espnet_spire.corpus import rules

    sort = rules.external_sort
    small = lambda rows, directory: sort(rows, directory, rows_in_memory=9)  # noqa: E731
    monkeypatch.setattr(rules, "external_sort", small)
    assert applied("max_per_speaker=5", utterances, tmp_path) == expected


# Length


def test_lengths_that_the_corpus_tells(tmp_path):
    """No audio is there; three seconds are long enough."""
    utterances = [
        utterance("a", seconds=2.999),
        utterance("b", seconds=3.0),
        utterance("c", recording="r", start=1.0, end=4.0),
        utterance("d", recording="r", start=1.5, end=4.0),
    ]
    taken, reasons = applied("min_seconds=3", utterances, tmp_path)
    assert [(utt.key, utt.seconds) for utt in taken] == [("b", 3.0), ("c", 3.0)]
    assert reasons == {"a": "2.999 s is shorter than 3 s", "d": "2.500 s is shorter than 3 s"}


def write(path, samples, rate=16000):
    soundfile.write(path, np.zeros(samples, np.float32), rate)
    return str(path)


def test_lengths_by_headers(tmp_path):
    files = {
        "a": write(tmp_path / "a.wav", 47999),
        "b": write(tmp_path / "b.flac", 48000),
        "c": write(tmp_path / "c.wav", 24000, rate=8000),
        "d": str(tmp_path / "gone.wav"),
    }
    utterances = [Utterance(key, path, "", "s", "x") for key, path in files.items()]
    whole = Utterance("e", files["b"], "", "s", "x", recording="r", end=TO_THE_END)
    late = whole._replace(key="f", start=0.5)
    taken, reasons = applied("min_seconds=3", [*utterances, whole, late], tmp_path)
    assert [(utt.key, utt.seconds) for utt in taken] == [("b", 3.0), ("c", 3.0), ("e", 3.0)]
    assert reasons == {
        "a": "3.000 s is shorter than 3 s",
        "d": f"its length is not known: {files['d']}: no such audio file",
        "f": "2.500 s is shorter than 3 s",
    }


def test_length_of_mp3_that_does_not_tell(tmp_path):
    """As of CommonVoice's first releases: without the tag it has to be decoded."""
    path = tmp_path / "a.mp3"
    write(path, 4 * 16000)
    content = path.read_bytes()
    tag = max(content.find(name) for name in (b"Info", b"Xing"))
    assert tag > 0
    path.write_bytes(content.replace(b"Info", b"\0\0\0\0").replace(b"Xing", b"\0\0\0\0"))
    (found,), _ = applied("min_seconds=3", [Utterance("a", str(path), "", "s", "x")], tmp_path)
    assert found.seconds == pytest.approx(4.0, abs=0.2)  # with the encoder's padding


# Overlap


def test_no_sentence_of_a_test_set(tmp_path):
    """Compared as Whisper normalises: case, punctuation, spelling of numbers and contractions."""
    table = tmp_path / "text.tc.en"
    table.write_text("s1 He won't come on Monday.\ns2 Twenty-one colours, please!\ns3 A dog.\n")
    utterances = [
        utterance("a", text="he will not come, on monday"),
        utterance("b", text="21 COLORS please"),
        utterance("c", text="He will come on Monday."),
        utterance("d", text="A dog. And more."),
    ]
    taken, reasons = applied(f"without_overlap={table}", utterances, tmp_path)
    assert [utt.key for utt in taken] == ["c", "d"]
    assert reasons == {
        "a": f"is sentence s1 of {table}: he will not come, on monday",
        "b": f"is sentence s2 of {table}: 21 COLORS please",
    }


def test_a_test_set_that_is_not_there(tmp_path):
    with pytest.raises(SpireError, match="gone: no such file"):
        applied(f"without_overlap={tmp_path}/gone", [utterance("a")], tmp_path)


# Names


def test_names_for_people():
    rules = ["max_per_speaker=13", "max_speakers_per_transcript=4", "min_seconds=3"]
    assert [parse_rule(rule).name for rule in rules] == [
        "at most 13 utterances a speaker",
        "at most 4 speakers a transcript",
        "at least 3 s",
    ]
    assert parse_rule("min_seconds=0.25").name == "at least 0.25 s"
    assert parse_rule("without_overlap=a=b").name == "no sentence of a=b"


@pytest.mark.parametrize(
    "text", ["max_per_speaker", "max_per_speakers=3", "=3", "", "min_seconds 3", "__class__=3"]
)
def test_unknown_rules(text):
    message = "rule .* is unknown; known are max_per_speaker=…, max_speakers_per_transcript=…,"
    with pytest.raises(SpireError, match=message):
        parse_rule(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_per_speaker=0",
        "max_per_speaker=-1",
        "max_per_speaker=1.5",
        "max_per_speaker=",
        "max_speakers_per_transcript=four",
        "min_seconds=0",
        "min_seconds=nan",
    ],
)
def test_values_that_are_no_positive_number(text):
    value = text.partition("=")[2]
    with pytest.raises(SpireError, match=f"{text}': '{value}' is no positive number"):
        parse_rule(text)
