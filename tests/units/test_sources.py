import itertools

import pytest

from espnet_spire.units.sources import Expected, Source, iter_sources, utterance_sources
from espnet_spire.utils.errors import SpireError


def put(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_text(content)
    return tmp_path


def test_recordings(tmp_path):
    put(tmp_path, wav__scp="a a b.wav\nb sox b.mp3 -t wav - |\nc x.ark:12\n")
    assert utterance_sources(tmp_path) == {
        "a": Source("a b.wav"),
        "b": Source("sox b.mp3 -t wav - |"),
        "c": Source("x.ark:12"),
    }
    assert all(source.whole for source in utterance_sources(tmp_path).values())


def test_segments(tmp_path):
    put(tmp_path, wav__scp="r r.wav\ns s.wav\n", segments="u1 s 0.5 1.25\nu2 r 0 -1\nu3 r 2 -1\n")
    assert utterance_sources(tmp_path) == {
        "u1": Source("s.wav", 0.5, 1.25, "u1", "s"),
        "u2": Source("r.wav", 0.0, None, "u2", "r"),
        "u3": Source("r.wav", 2.0, None, "u3", "r"),
    }


@pytest.mark.parametrize(
    "line",
    ["u1 other 0 1", "u1 rec 0", "u1 rec zero 1", "u1 rec 0 1 A", "u1 rec 0 1 2 3", "u1 rec 0 inf"],
)
def test_bad_segments_are_named(tmp_path, line):
    put(tmp_path, wav__scp="rec rec.wav\n", segments=f"u0 rec 0 1\n{line}\n")
    with pytest.raises(SpireError, match=f"segments, line 2: {line}: not 'recording start end'"):
        utterance_sources(tmp_path)


def test_channels(tmp_path):
    put(tmp_path, wav__scp="a x.wav\nb x.wav\nc y.wav\nd z.wav\n")
    put(tmp_path, reco2file_and_channel="a x A\nb x B\nc y 3\n")
    channels = {key: source.channel for key, source in iter_sources(tmp_path)}
    assert channels == {"a": 0, "b": 1, "c": 2, "d": None}
    # segments may say it themselves, from 0
    put(tmp_path, segments="u1 a 0 1\nu2 b 0 1\nu3 b 0 1 0\n")
    channels = {key: source.channel for key, source in iter_sources(tmp_path)}
    assert channels == {"u1": 0, "u2": 1, "u3": 0}


@pytest.mark.parametrize("line", ["b x 0", "b x left", "b x", "b x A B"])
def test_bad_channels_are_named(tmp_path, line):
    put(tmp_path, wav__scp="a x.wav\nb x.wav\n", reco2file_and_channel=f"a x A\n{line}\n")
    with pytest.raises(SpireError, match=f"reco2file_and_channel, line 2: {line}: a file and a"):
        utterance_sources(tmp_path)


def test_lengths_come_along(tmp_path):
    put(tmp_path, wav__scp="a a.wav\nb b.wav\n", utt2num_samples="a 16000\nb 5\n")
    assert [s.expected for _, s in iter_sources(tmp_path)] == [Expected(16000), Expected(5)]
    put(tmp_path, utt2dur="a 1.0\nb 0.5\n")
    assert utterance_sources(tmp_path)["b"] == Source("b.wav", expected=Expected(5, 0.5))


@pytest.mark.parametrize(
    "content, message",
    [
        ("a 1\nc 1\n", "utt2dur: utterance b of wav.scp is missing"),
        ("a 1\nb 1\n", "utt2dur: utterance c of wav.scp is missing"),
        ("a 1\naa 1\nb 1\nc 1\n", "utt2dur, line 2: utterance aa is not in wav.scp"),
        ("a 1\nb 1\nc 1\nd 1\n", "utt2dur, line 4: utterance d is not in wav.scp"),
        ("a 1\nb long\nc 1\n", "utt2dur, line 2: b long: a length was expected"),
        ("a 1\nb -1\nc 1\n", "utt2dur, line 2: b -1: a length was expected"),
        ("a 1\nb nan\nc 1\n", "utt2dur, line 2: b nan: a length was expected"),
    ],
)
def test_lengths_of_other_utterances(tmp_path, content, message):
    put(tmp_path, wav__scp="a a.wav\nb b.wav\nc c.wav\n", utt2dur=content)
    with pytest.raises(SpireError, match=message):
        utterance_sources(tmp_path)


def test_lengths_go_by_utterance_where_there_are_segments(tmp_path):
    put(tmp_path, wav__scp="r r.wav\n", segments="u1 r 0 1\n", utt2num_samples="r 1\n")
    with pytest.raises(SpireError, match="utterance u1 of segments is missing|r is not in"):
        utterance_sources(tmp_path)


def test_missing_and_empty(tmp_path):
    with pytest.raises(SpireError, match="no such data directory"):
        utterance_sources(tmp_path / "nothing")
    with pytest.raises(SpireError, match="wav.scp: no such file"):
        utterance_sources(tmp_path)
    with pytest.raises(SpireError, match="wav.scp: the data set is empty"):
        utterance_sources(put(tmp_path, wav__scp=""))
    with pytest.raises(SpireError, match="segments: the data set is empty"):
        utterance_sources(put(tmp_path, wav__scp="r r.wav\n", segments=""))
    with pytest.raises(SpireError, match="wav.scp: the data set is empty"):
        utterance_sources(put(tmp_path, wav__scp="", segments="u r 0 1\n"))


def test_lines_are_read_when_they_are_asked_for(tmp_path):
    lines = "".join(f"u{number:05d} {number}.wav\n" for number in range(20000))
    put(tmp_path, wav__scp=lines + "broken\n", utt2dur=lines.replace(".wav", ""))
    sources = iter_sources(tmp_path)
    assert [key for key, _ in itertools.islice(sources, 3)] == ["u00000", "u00001", "u00002"]
    with pytest.raises(SpireError, match="wav.scp, line 20001: key broken"):
        list(sources)
