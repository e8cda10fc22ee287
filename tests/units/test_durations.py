import logging

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_spire.units import durations as durations_module
from espnet_spire.units.audio import load_audio
from espnet_spire.units.durations import Duration, utterance_samples
from espnet_spire.units.sources import utterance_sources
from espnet_spire.utils.errors import SpireError

RATE = 16000


def put(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_text(content)
    return tmp_path


def write(path, count, rate=RATE, **options):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, count)
    soundfile.write(path, noise, rate, **options)
    return str(path)


@pytest.fixture
def no_reading(monkeypatch):
    """Opening any audio is an error."""

    def fail(*_):
        raise AssertionError("audio was opened")

    monkeypatch.setattr(durations_module, "read_header", fail)
    monkeypatch.setattr(durations_module.Decoder, "count_frames", fail)


def lengths(data_dir):
    found = list(utterance_samples(data_dir))
    return {one.key: one.num_samples for one in found if one.reason is None}


def slacks(data_dir):
    return [one.slack for one in utterance_samples(data_dir)]


def decoded(data_dir):
    return {key: len(load_audio(source)) for key, source in utterance_sources(data_dir).items()}


def test_headers_are_exact(tmp_path):
    lines = []
    for rate in (8000, 11025, 16000, 22050, 44100, 48000):
        for count in (rate // 2 + 1, rate + 7):
            for suffix in ("wav", "flac", "ogg"):
                path = write(tmp_path / f"{rate}-{count}.{suffix}", count, rate)
                lines.append(f"{rate:05d}-{count}-{suffix} {path}\n")
    put(tmp_path, wav__scp="".join(sorted(lines)))
    found = lengths(tmp_path)
    assert found == decoded(tmp_path)
    assert set(slacks(tmp_path)) == {0}
    assert found["16000-16007-wav"] == 16007
    assert found["44100-22051-flac"] == 8001  # 22051 · 16000 / 44100 = 8000.4, rounded up


def test_counts_of_stage_2_are_taken(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", 5000)
    lines = [f"u{number} {path}\n" for number in range(5)]
    put(tmp_path, wav__scp="".join(lines), utt2num_samples="u0 5000\nu1 1\nu2 2\nu3 3\nu4 4\n")
    opened = []
    read_header = durations_module.read_header
    monkeypatch.setattr(
        durations_module, "read_header", lambda name: opened.append(name) or read_header(name)
    )
    assert lengths(tmp_path) == {"u0": 5000, "u1": 1, "u2": 2, "u3": 3, "u4": 4}
    assert opened == [path]


def test_counts_at_another_rate_are_not(tmp_path):
    a, b = (write(tmp_path / f"{count}.wav", count, 8000) for count in (5000, 6000))
    put(tmp_path, wav__scp=f"a {a}\nb {b}\n", utt2num_samples="a 5000\nb 6000\n")
    assert lengths(tmp_path) == {"a": 10000, "b": 12000}
    put(tmp_path, utt2dur="a 0.62\nb 0.75\n")
    assert lengths(tmp_path) == {"a": 9920, "b": 12000}


def test_counts_that_agree_with_times_need_no_audio(tmp_path, no_reading):
    put(tmp_path, wav__scp="a gone\nb gone\n", utt2num_samples="a 16003\nb 7999\n")
    put(tmp_path, utt2dur="a 1.00\nb 0.50\n")
    assert lengths(tmp_path) == {"a": 16003, "b": 7999}
    assert slacks(tmp_path) == [0, 0]
    put(tmp_path, wav__scp="r gone\n", segments="a r 0.5 1.5\nb r 2 2.5\n")
    (tmp_path / "utt2dur").unlink()
    assert lengths(tmp_path) == {"a": 16003, "b": 7999}


def test_seconds_need_no_audio(tmp_path, no_reading):
    put(tmp_path, wav__scp="a gone\nb sleep 100 |\n", utt2dur="a 1.5\nb 0.25\n")
    assert lengths(tmp_path) == {"a": 24000, "b": 4000}
    assert slacks(tmp_path) == [240 + 800, 40 + 800]  # 1 % and 0.05 s, as extraction allows
    put(tmp_path, utt2dur="a 1.5\nb 0\n")
    assert list(utterance_samples(tmp_path))[1] == Duration("b", 0, "no samples")


@pytest.mark.parametrize("rate", [16000, 22050])
def test_segments_of_files_are_exact(tmp_path, rate):
    path = write(tmp_path / "r.wav", 3 * rate, rate)
    put(tmp_path, wav__scp=f"r {path}\n")
    put(tmp_path, segments="a r 0 0.3337\nb r 1.23456 2.5\nc r 2.5 3.4\nd r 1 -1\n")
    found = lengths(tmp_path)
    assert found == decoded(tmp_path)
    assert found["c"] == 8000 and found["d"] == 32000  # cut at the recording's end


def test_segments_of_pipes_are_taken_at_their_word(tmp_path, no_reading):
    put(tmp_path, wav__scp="r sleep 100 |\n", segments="a r 0 0.5\nb r 1.25 2.5\n")
    assert lengths(tmp_path) == {"a": 8000, "b": 20000}
    assert slacks(tmp_path) == [6, 6]


@pytest.mark.parametrize("rate", [4000, 11025, 22050, 384000])
def test_slack_of_pipes_covers_every_rate(tmp_path, rate):
    path = write(tmp_path / "r.wav", 2 * rate, rate)
    times = np.random.default_rng(rate).uniform(0, 1, (40, 2)) + [0, 0.9]
    segments = "".join(f"u{n:02d} r {a:.5f} {b:.5f}\n" for n, (a, b) in enumerate(times))
    put(tmp_path, wav__scp=f"r cat {path} |\n", segments=segments)
    promised = list(utterance_samples(tmp_path))
    put(tmp_path, wav__scp=f"r {path}\n")
    for one, (key, exact) in zip(promised, lengths(tmp_path).items(), strict=True):
        assert one.key == key and abs(exact - one.num_samples) <= one.slack


def test_header_of_a_recording_is_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / "r.wav", 3 * RATE)
    put(tmp_path, wav__scp=f"r {path}\ns {tmp_path}/gone.wav\n")
    put(tmp_path, segments="".join(f"u{n} {'rs'[n % 2]} {n / 10} {n / 10 + 1}\n" for n in range(9)))
    opened = []
    read_header = durations_module.read_header
    monkeypatch.setattr(
        durations_module, "read_header", lambda name: opened.append(name) or read_header(name)
    )
    found = list(utterance_samples(tmp_path))
    assert found[0] == Duration("u0", RATE)
    assert found[1] == Duration("u1", 0, f"{tmp_path}/gone.wav: no such audio file")
    assert len(opened) == 2


def test_pipes_arks_and_mp3_without_length(tmp_path, caplog):
    wav = write(tmp_path / "a.wav", 44100, 44100)
    flac = tmp_path / "b.flac"
    write(flac, 7000)
    content = bytearray(flac.read_bytes())
    content[21] &= 0xF0  # the length of STREAMINFO, as a stream leaves it
    content[22:26] = bytes(4)
    flac.write_bytes(content)
    mp3 = tmp_path / "c.mp3"
    write(mp3, 5 * RATE, bitrate_mode="VARIABLE")
    content = mp3.read_bytes()
    mp3.write_bytes(content[content.index(content[:2], 4) :])
    kaldiio.save_ark(
        str(tmp_path / "d.ark"), {"d": (8000, np.ones(801, np.int16))}, str(tmp_path / "d.scp")
    )
    ark = (tmp_path / "d.scp").read_text()
    put(tmp_path, wav__scp=f"a cat {wav} |\nb {flac}\nc {mp3}\n{ark}")
    with caplog.at_level(logging.INFO):
        found = lengths(tmp_path)
    assert found == decoded(tmp_path)
    assert found["a"] == RATE and found["b"] == 7000 and found["d"] == 1602
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 3 recordings were run or decoded to know their length"
    ]


def test_reasons(tmp_path):
    empty, short = write(tmp_path / "empty.wav", 0), write(tmp_path / "short.wav", RATE)
    (tmp_path / "noise.wav").write_bytes(b"this is no audio, but it is long enough" * 9)
    slow = write(tmp_path / "slow.wav", 1000, 100)
    put(
        tmp_path,
        wav__scp=f"e {empty}\ng gone.wav\nn {tmp_path}/noise.wav\np exit 3 |\nr {short}\n"
        f"s {slow}\n",
    )
    found = list(utterance_samples(tmp_path))
    assert [(d.key, d.num_samples) for d in found] == [
        *(("e", 0), ("g", 0), ("n", 0), ("p", 0), ("r", RATE), ("s", 0))
    ]
    reasons = dict((d.key, d.reason) for d in found)
    assert reasons["e"] == "no samples" and reasons["g"] == "gone.wav: no such audio file"
    assert "unreadable audio" in reasons["n"] and "status 3" in reasons["p"]
    assert reasons["r"] is None and "sampling rate of 100 Hz" in reasons["s"]
    put(tmp_path, segments="a r 0.5 2\nb r 2 3\nc r 0.5 0.4\n")
    assert [d.reason.split(": ")[1].split(";")[0] for d in utterance_samples(tmp_path)] == [
        "ends beyond the recording's 1.000 s",
        "starts beyond the recording's 1.000 s",
        "not 0 ≤ start < end",
    ]


def test_broken_tables_are_errors(tmp_path):
    with pytest.raises(SpireError, match="no such data directory"):
        list(utterance_samples(tmp_path / "nothing"))
    put(tmp_path, wav__scp="a gone\n", utt2dur="b 1\n")
    with pytest.raises(SpireError, match="utt2dur: utterance a of wav.scp is missing"):
        list(utterance_samples(tmp_path))
