import itertools
import os
import subprocess

import pytest

from espnet_spire.utils.datadir import (
    check_table,
    find_key,
    iter_rejected,
    iter_table,
    language_file,
    match_table,
    read_rejected,
    read_table,
    shard_of,
    speakers_to_utterances,
    text_tables,
    translation_file,
    translation_tables,
    utterance_keys,
    validate_data_dir,
    write_data_dir,
    write_rejected,
    write_table,
)
from espnet_spire.utils.errors import SpireError

# What a locale would mix: case, punctuation, accents, a full-width letter, beyond the BMP.
KEYS = [
    "utt",
    "Utt",
    "utt-1",
    "utt_1",
    "utt1",
    "utt10",
    "utt2",
    "ärger",
    "z",
    "ｚ",
    "\U00010000",
    "語",
]


def put(tmp_path, content):
    path = tmp_path / "text"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_order_is_that_of_sort_in_the_c_locale(tmp_path):
    path = tmp_path / "text"
    write_table(path, {key: "x" for key in KEYS})
    written = path.read_bytes()
    result = subprocess.run(
        ["sort"], input=written, capture_output=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    assert written == result
    assert list(read_table(path)) == [line.split()[0].decode() for line in result.splitlines()]


def test_values_stay_as_they_are(tmp_path):
    table = {
        "a": "two  spaces",
        "b": "今天\u3000天气",  # an ideographic space belongs to the text
        "c": "no-break\u00a0space",
        "d": "line\u2028separator\x85and\x0cform feed",
        "e": "",
    }
    write_table(tmp_path / "text", table)
    assert read_table(tmp_path / "text", allow_empty_value=True) == table


def test_lenient_about_white_space_between(tmp_path):
    path = put(tmp_path, "a \t one two \r\nb\tthree\n  c four")
    assert read_table(path) == {"a": "one two", "b": "three", "c": "four"}


def test_one_line_at_a_time(tmp_path):
    path = put(tmp_path, "a 1\nb 2\nb 3\n")
    lines = iter_table(path)
    assert [next(lines), next(lines)] == [("a", "1"), ("b", "2")]
    with pytest.raises(SpireError):
        next(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1\nb\n", "text, line 2: key b has no value"),
        ("a 1\n\nb 2\n", "text, line 2: empty line"),
        ("a 1\n   \nb 2\n", "text, line 2: empty line"),
        ("a 1\na 2\n", "text, line 2: key a is there twice"),
        ("a 1\nc 2\nb 3\n", r"text, line 3: key b comes after c; .*LC_ALL=C sort"),
        ("a 1\nB 2\n", "text, line 2: key B comes after a"),
        (b"a 1\nb \xff\n", "text, line 2: not valid UTF-8"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, content, message):
    with pytest.raises(SpireError, match=message):
        read_table(put(tmp_path, content))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(SpireError, match="text: no such file"):
        read_table(tmp_path / "text")
    with pytest.raises(SpireError, match="is a directory"):
        read_table(tmp_path)


def test_empty_values_where_allowed(tmp_path):
    path = put(tmp_path, "a\nb \nc x\n")
    assert read_table(path, allow_empty_value=True) == {"a": "", "b": "", "c": "x"}
    assert read_table(put(tmp_path, "")) == {}


@pytest.mark.parametrize("table", [{"a b": "x"}, {"a\tb": "x"}, {"": "x"}, {"a": "x\ny"}])
def test_what_cannot_stand_in_a_table(tmp_path, table):
    with pytest.raises(SpireError, match="cannot stand in a table"):
        write_table(tmp_path / "text", {"0": "fine", **table})
    assert list(tmp_path.iterdir()) == []


def test_rejected(tmp_path):
    path = tmp_path / "rejected.tsv"
    write_rejected(path, {"b": "0.1 s is\n short", "a": "no  samples"})
    assert path.read_text() == "a\tno samples\nb\t0.1 s is short\n"
    assert read_rejected(path) == {"a": "no samples", "b": "0.1 s is short"}
    write_rejected(path, {})
    assert read_rejected(path) == {}
    with pytest.raises(SpireError, match="gone: no such file"):
        read_rejected(tmp_path / "gone")
    path.write_text("a\tno samples\nb no tab\n")
    with pytest.raises(SpireError, match="rejected.tsv, line 2: 'b no tab' is not 'key, tab"):
        read_rejected(path)


def test_speakers():
    utt2spk = {"u3": "s1", "u1": "s2", "u2": "s1"}
    assert speakers_to_utterances(utt2spk) == {"s1": "u2 u3", "s2": "u1"}
    assert translation_file("de") == "text.tc.de"


def directory(tmp_path, **files):
    tables = {
        "wav.scp": {"a": "a.wav", "b": "b.wav"},
        "text": {"a": "x", "b": ""},
        "utt2spk": {"a": "s", "b": "s"},
    }
    tables.update({name.replace("__", "."): table for name, table in files.items()})
    write_data_dir(tmp_path / "d", {name: table for name, table in tables.items() if table})
    return tmp_path / "d"


def test_valid_directory(tmp_path):
    data = directory(tmp_path)
    assert validate_data_dir(data) == 2
    assert (data / "spk2utt").read_text() == "s a b\n"
    assert utterance_keys(data) == ["a", "b"]
    assert list(match_table(data, "text", ["a", "b"], "wav.scp")) == [("a", "x"), ("b", "")]


def test_not_each_utterance_needs_a_translation(tmp_path):
    data = directory(tmp_path, text__tc__de={"a": "x", "b": ""}, text__tc__fr={"b": "y"})
    assert validate_data_dir(data) == 2
    assert translation_tables(data) == ["text.tc.de", "text.tc.fr"]
    found = match_table(data, "text.tc.fr", ["a", "b"], "wav.scp", partial=True)
    assert list(found) == [("a", None), ("b", "y")]
    with pytest.raises(SpireError, match="text.tc.fr: utterance a of wav.scp is missing"):
        check_table(data, "text.tc.fr", ["a", "b"], "wav.scp")


@pytest.mark.parametrize("partial", [False, True])
def test_tables_in_step_against_sets(tmp_path, partial):
    """Each pair of subsets of four keys: right where sets say so, and the first that is wrong."""
    every = [list(keys) for size in range(5) for keys in itertools.combinations("abcd", size)]
    for keys, rows in itertools.product(every, every):
        write_table(tmp_path / "text", {key: f"{key}." for key in rows})
        extra, missing = sorted(set(rows) - set(keys)), sorted(set(keys) - set(rows))
        wrong = sorted(extra + ([] if partial else missing))
        if not wrong:
            found = dict(match_table(tmp_path, "text", keys, "it", partial=partial))
            assert found == {key: f"{key}." if key in rows else None for key in keys}
            assert check_table(tmp_path, "text", keys, "it", partial=partial) == len(keys)
            continue
        words = "is not in it" if wrong[0] in extra else "of it is missing"
        with pytest.raises(SpireError, match=f"text: utterance {wrong[0]} {words}"):
            check_table(tmp_path, "text", keys, "it", partial=partial)


def test_segments_rule_where_there_are_some(tmp_path):
    data = directory(
        tmp_path, wav__scp={"rec": "rec.wav"}, segments={"a": "rec 0 1", "b": "rec 1 2"}
    )
    assert utterance_keys(data) == ["a", "b"]
    assert validate_data_dir(data) == 2
    write_table(data / "segments", {"a": "rec 0 1", "b": "tape 1 2"})
    with pytest.raises(SpireError, match="segments: recording tape of b is not in wav.scp"):
        validate_data_dir(data)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"text": {"a": "x"}}, "d/text: utterance b of d/wav.scp is missing"),
        ({"text": {"a": "x", "b": "y", "c": "z"}}, "d/text: utterance c is not in d/wav.scp"),
        ({"utt2spk": {"a": "s"}}, "d/utt2spk: utterance b of d/wav.scp is missing"),
        ({"utt2spk": None}, "d/utt2spk: no such file"),
        ({"text": None}, "d/text: no such file"),
        ({"text__tc__de": {"a": "x", "c": "z"}}, "d/text.tc.de: utterance c is not in d/wav.scp"),
        ({"utt2num_samples": {"b": "7"}}, "d/utt2num_samples: utterance a of"),
    ],
)
def test_invalid_directories(tmp_path, files, message):
    with pytest.raises(SpireError, match=message):
        validate_data_dir(directory(tmp_path, **files))


def test_text_is_optional_where_it_is_not_needed(tmp_path):
    assert validate_data_dir(directory(tmp_path, text=None), need_text=False) == 2


def test_no_directory_and_no_utterances(tmp_path):
    with pytest.raises(SpireError, match="gone: no such data directory"):
        validate_data_dir(tmp_path / "gone")
    (tmp_path / "wav.scp").write_text("")
    with pytest.raises(SpireError, match="wav.scp: the data set is empty"):
        utterance_keys(tmp_path)


def test_shards_by_hand():
    assert [shard_of(list("abcdefg"), 3, shard) for shard in (1, 2, 3)] == [
        ["a", "d", "g"], ["b", "e"], ["c", "f"],
    ]  # fmt: skip
    assert shard_of(["a"], 2, 2) == []


KEYS = ["a", "b", "ba", "bb", "c", "d", "é", "面"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_key_is_found_where_it_begins(tmp_path, ending):
    path = tmp_path / "table"
    lines = [f"{key} {'x' * (7 * number % 13)}{ending}" for number, key in enumerate(KEYS)]
    path.write_bytes("".join(lines).encode())
    starts = [len("".join(lines[:number]).encode()) for number in range(len(lines) + 1)]
    with open(path, "rb") as handle:
        for low in starts:
            for number, key in enumerate(KEYS):
                if starts[number] >= low:
                    assert find_key(handle, key.encode(), low, starts[-1]) == starts[number]
        assert find_key(handle, b"", 0, starts[-1]) == 0
        assert find_key(handle, b"bab", 0, starts[-1]) == starts[3]
        assert find_key(handle, "龜".encode(), 0, starts[-1]) == starts[-1]
        assert find_key(handle, b"a", 0, 0) == 0


def test_keys_are_found_as_tables_are_read(tmp_path):
    """Tabs, blanks before a key, no value, no newline at the end."""
    path = tmp_path / "table"
    path.write_bytes(b"a\tx y\n  b z\nc\nd")
    with open(path, "rb") as handle:
        assert [find_key(handle, key, 0, 15) for key in (b"a", b"b", b"c", b"d", b"e")] == [
            *(0, 6, 12, 14, 15)
        ]


def test_a_list_of_what_was_rejected_from_a_key_on(tmp_path):
    path = tmp_path / "rejected.tsv"
    path.write_text("a\tone\nb c\nd\ttwo  2\ne\tthree\n")
    assert list(iter_rejected(path, "c")) == [("d", "two  2"), ("e", "three")]
    assert list(iter_rejected(path, "f")) == []
    with pytest.raises(SpireError, match="rejected.tsv, line 2: 'b c'"):
        list(iter_rejected(path))


def text_alone(tmp_path, **tables):
    write_data_dir(tmp_path / "d", {f"text.tc.{lang}": table for lang, table in tables.items()})
    return tmp_path / "d"


def test_a_set_of_text_alone(tmp_path):
    data = text_alone(tmp_path, de={"s1": "Haus", "s2": ""}, en={"s1": "house", "s2": "x"})
    assert text_tables(data) == ["text.tc.de", "text.tc.en"]
    assert utterance_keys(data) == ["s1", "s2"]  # an empty text is one
    assert validate_data_dir(data) == 2
    assert language_file(data, "en", "en") == data / "text.tc.en"
    write_table(data / "text.tc.fr", {"s1": "maison", "s3": "y"})
    with pytest.raises(SpireError, match="text.tc.fr: utterance s2 of d/text.tc.de is missing"):
        validate_data_dir(data)


@pytest.mark.parametrize("name", ["wav.scp", "segments", "text", "utt2spk"])
def test_a_set_with_anything_of_speech_is_not_of_text_alone(tmp_path, name):
    data = text_alone(tmp_path, de={"s1": "Haus"})
    (data / name).write_text("")
    assert text_tables(data) == []
    assert language_file(data, "en", "en") == data / "text"
    assert language_file(data, "de", "en") == data / "text.tc.de"
    with pytest.raises(SpireError, match="wav.scp: no such file|the data set is empty"):
        utterance_keys(data)
