"""Formatting: any audio to 16 kHz mono, filters, errors, and no work twice."""

import inspect
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from espnet_spire.bin import format_data
from espnet_spire.corpus.format import Converted, Limits, converters, format_data_dir
from espnet_spire.utils.datadir import (
    read_rejected,
    read_table,
    validate_data_dir,
    write_data_dir,
)
from espnet_spire.utils.errors import SpireError


class Serial:
    """What format_data_dir needs of a pool, in this process."""

    @staticmethod
    def imap(function, jobs, chunksize=1):
        return map(function, jobs)


def sine(hertz, seconds, rate, level=0.5):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def frequency(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def run(data_dir, out, limits=None, **options):
    return format_data_dir(data_dir, out, limits=limits or Limits(), pool=Serial(), **options)


@pytest.fixture
def mixed(tmp_path, make_data_dir):
    """22.05 kHz as espeak gives it, 1.0005 s so that the length does not come out even."""
    utterances = {"a": sine(440, 1.0005, 22050), "b": sine(3000, 0.5, 22050)}
    stereo = np.stack([sine(1000, 0.7, 22050), np.zeros(15435)], axis=1)
    data = make_data_dir(tmp_path / "raw", {**utterances, "c": stereo}, rate=22050)
    (data / "text.tc.de").write_text("a eins\nb zwei\nc drei\n")
    return data


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_resampled_mono(mixed, tmp_path, audio_format):
    assert run(mixed, tmp_path / "out", audio_format=audio_format) == {}
    out = tmp_path / "out"
    paths = read_table(out / "wav.scp")
    for key, seconds, hertz, level in (
        ("a", 1.0005, 440, 0.5), ("b", 0.5, 3000, 0.5), ("c", 0.7, 1000, 0.25),
    ):  # fmt: skip
        assert paths[key] == str(out / "audio" / f"{key}.{audio_format}")
        samples, rate = soundfile.read(paths[key])
        assert (rate, samples.ndim, soundfile.info(paths[key]).subtype) == (16000, 1, "PCM_16")
        assert abs(len(samples) - seconds * 16000) <= 1
        assert read_table(out / "utt2num_samples")[key] == str(len(samples))
        assert frequency(samples, rate) == pytest.approx(hertz, abs=2.1)
        inner = samples[500:-500]
        assert np.sqrt(2 * np.mean(inner**2)) == pytest.approx(level, rel=0.02)
    assert validate_data_dir(out) == 3
    for name in ("text", "utt2spk", "text.tc.de"):
        assert (out / name).read_text() == (mixed / name).read_text()
    assert (out / "spk2utt").read_text() == "spk1 a b c\n"
    assert read_rejected(out / "rejected.tsv") == {}


def test_full_scale_does_not_wrap_around(tmp_path, make_data_dir):
    square = np.sign(sine(100, 0.5, 22050)) * 0.99997
    data = make_data_dir(tmp_path / "raw", {"a": square}, rate=22050)
    run(data, tmp_path / "out", audio_format="wav")
    samples, _ = soundfile.read(tmp_path / "out/audio/a.wav")
    # 80 samples of a half wave: away from its edges the sign is the square's
    assert (samples[20:60] > 0.5).all() and (samples[100:140] < -0.5).all()


def test_segments_and_pipes(tmp_path, make_data_dir):
    recording = np.concatenate([sine(500, 1, 16000), sine(2000, 1, 16000)])
    data = make_data_dir(tmp_path / "raw", {"a": recording, "b": recording})
    wav = data / "audio" / "a.wav"
    (data / "wav.scp").write_text(f"rec cat {wav} |\n")
    (data / "segments").write_text("a rec 0.25 0.75\nb rec 1.0 1.5\n")
    run(data, tmp_path / "out")
    for key, hertz in (("a", 500), ("b", 2000)):
        samples, _ = soundfile.read(tmp_path / f"out/audio/{key}.flac")
        assert len(samples) == 8000
        assert frequency(samples, 16000) == pytest.approx(hertz, abs=2.1)
    assert not (tmp_path / "out/segments").exists()
    assert validate_data_dir(tmp_path / "out") == 2


def test_translations_of_some_utterances(mixed, tmp_path):
    """They stay so; what is left out is in none of them."""
    (mixed / "text.tc.de").write_text("b zwei\nc drei\n")
    (mixed / "text.tc.fr").write_text("c trois\n")
    left_out = run(mixed, tmp_path / "out", Limits(shortest=0.6))
    assert list(left_out) == ["b"]
    assert read_table(tmp_path / "out/text").keys() == {"a", "c"}
    assert (tmp_path / "out/text.tc.de").read_text() == "c drei\n"
    assert (tmp_path / "out/text.tc.fr").read_text() == "c trois\n"
    assert validate_data_dir(tmp_path / "out") == 2
    (mixed / "text.tc.de").write_text("b zwei\nd vier\n")
    with pytest.raises(SpireError, match="text.tc.de: utterance d is not in raw/wav.scp"):
        run(mixed, tmp_path / "out")


def test_limits_by_hand():
    limits = Limits(0.5, 2.0)
    assert limits.reason(8000) is None and limits.reason(32000) is None
    assert limits.reason(7999) == "0.500 s is shorter than 0.5 s"
    assert limits.reason(32001) == "2.000 s is longer than 2.0 s"
    assert Limits().reason(1) is None


@pytest.fixture
def lengths(tmp_path, make_data_dir):
    utterances = {
        name: sine(300, s, 16000) for name, s in (("a", 0.3), ("b", 1), ("c", 3), ("d", 1))
    }
    return make_data_dir(tmp_path / "lengths", utterances, texts={"d": ""})


def test_training_sets_are_filtered(lengths, tmp_path):
    rejected = run(lengths, tmp_path / "out", Limits(0.5, 2))
    assert rejected == read_rejected(tmp_path / "out/rejected.tsv")
    assert rejected == {
        "a": "0.300 s is shorter than 0.5 s",
        "c": "3.000 s is longer than 2 s",
        "d": "empty transcript",
    }
    for name in ("wav.scp", "text", "utt2spk", "utt2num_samples"):
        assert list(read_table(tmp_path / "out" / name)) == ["b"]
    assert [path.name for path in (tmp_path / "out/audio").glob("[!.]*")] == ["b.flac"]


def test_test_sets_are_not_filtered(lengths, tmp_path):
    assert run(lengths, tmp_path / "out", Limits()) == {}
    assert list(read_table(tmp_path / "out/utt2num_samples")) == ["a", "b", "c", "d"]


def test_nothing_left(lengths, tmp_path):
    with pytest.raises(SpireError, match="nothing is left after filtering; see .*rejected.tsv"):
        run(lengths, tmp_path / "out", Limits(10, None))
    assert list(read_rejected(tmp_path / "out/rejected.tsv")) == ["a", "b", "c", "d"]
    assert not (tmp_path / "out/wav.scp").exists()


def spoil(data):
    (data / "audio/a.wav").write_bytes(b"no recording any more")
    (data / "audio/b.wav").write_bytes((data / "audio/b.wav").read_bytes()[:-3000])
    (data / "audio/c.wav").unlink()


def test_unreadable_audio_is_an_error_that_names_it(lengths, tmp_path):
    spoil(lengths)
    with pytest.raises(SpireError) as caught:
        run(lengths, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{lengths}: 3 of 4 utterances are unusable, first a: ")
    assert "audio/a.wav: unreadable audio" in message and "--max_rejected" in message
    rejected = read_rejected(tmp_path / "out/rejected.tsv")
    assert "b.wav: cut off, its header promises 3000 bytes more than there are" in rejected["b"]
    assert "c.wav: no such audio file" in rejected["c"]
    assert not (tmp_path / "out/wav.scp").exists()


def test_a_share_may_be_unreadable(lengths, tmp_path):
    spoil(lengths)
    rejected = run(lengths, tmp_path / "out", max_rejected=0.75)
    assert list(rejected) == ["a", "b", "c"]
    assert list(read_table(tmp_path / "out/wav.scp")) == ["d"]
    with pytest.raises(SpireError, match="3 of 4"):
        run(lengths, tmp_path / "other", max_rejected=0.7)


def test_no_work_twice(mixed, tmp_path):
    run(mixed, tmp_path / "out")
    audio = tmp_path / "out/audio"

    def state():
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in audio.iterdir()}

    first = state()
    run(mixed, tmp_path / "out")
    assert state() == first
    # what was lost, what is broken and what has a newer source is made again, nothing else
    (audio / "a.flac").unlink()
    (audio / "b.flac").write_bytes(b"broken")
    run(mixed, tmp_path / "out")
    second = state()
    assert second.keys() == first.keys()
    assert second["c.flac"] == first["c.flac"]
    assert soundfile.info(str(audio / "b.flac")).frames == 8000
    soundfile.write(mixed / "audio/c.wav", sine(200, 0.25, 22050), 22050)
    run(mixed, tmp_path / "out")
    assert read_table(tmp_path / "out/utt2num_samples")["c"] == "4000"
    assert state()["a.flac"] == second["a.flac"]


def test_another_source_is_noticed_even_when_it_is_older(mixed, tmp_path):
    run(mixed, tmp_path / "out")
    other = mixed / "audio/older.wav"
    soundfile.write(other, sine(200, 0.25, 22050), 22050)
    os.utime(other, (1, 1))
    os.replace(other, mixed / "audio/c.wav")
    run(mixed, tmp_path / "out")
    assert read_table(tmp_path / "out/utt2num_samples")["c"] == "4000"


def test_other_times_of_a_segment_are_noticed(mixed, tmp_path):
    (mixed / "segments").write_text("a a 0.0 0.5\nb b 0.0 0.5\nc c 0.0 0.5\n")
    run(mixed, tmp_path / "out")
    (mixed / "segments").write_text("a a 0.0 0.5\nb b 0.0 0.5\nc c 0.1 0.35\n")
    run(mixed, tmp_path / "out")
    assert read_table(tmp_path / "out/utt2num_samples") == {"a": "8000", "b": "8000", "c": "4000"}


def test_arks_are_converted_once(tmp_path, make_data_dir):
    tones = {"a": sine(440, 0.5, 16000), "b": sine(3000, 0.5, 16000)}
    data = make_data_dir(tmp_path / "raw", tones)

    def write_ark():
        with open(tmp_path / "x.ark", "wb") as ark, open(data / "wav.scp", "w") as scp:
            for key in "ab":
                ark.write(f"{key} ".encode())
                scp.write(f"{key} {tmp_path}/x.ark:{ark.tell()}\n")
                ark.write((data / f"audio/{key}.wav").read_bytes())

    def times():
        return {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out/audio").glob("*.flac")}

    write_ark()
    run(data, tmp_path / "out")
    first = times()
    assert soundfile.info(str(tmp_path / "out/audio/b.flac")).frames == 8000
    run(data, tmp_path / "out")
    assert times() == first
    # another ark of that name: both may have changed
    soundfile.write(data / "audio/b.wav", sine(200, 0.25, 16000), 16000)
    write_ark()
    run(data, tmp_path / "out")
    assert read_table(tmp_path / "out/utt2num_samples") == {"a": "8000", "b": "4000"}
    assert all(times()[name] > first[name] for name in first)


def test_one_in_a_thousand_by_default(lengths, tmp_path):
    assert format_data.get_parser().get_default("max_rejected") == 0.001
    assert inspect.signature(format_data_dir).parameters["max_rejected"].default == 0.001
    (lengths / "audio/a.wav").write_bytes(b"no recording any more")
    with pytest.raises(SpireError, match="1 of 4 utterances are unusable"):
        run(lengths, tmp_path / "out")


def test_invalid_directories(mixed, tmp_path):
    (mixed / "text").write_text("a x\nb y\n")
    with pytest.raises(SpireError, match="raw/text: utterance c of raw/wav.scp is missing"):
        run(mixed, tmp_path / "out")
    (mixed / "wav.scp").write_text("")
    with pytest.raises(SpireError, match="wav.scp: the data set is empty"):
        run(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_with_processes(lengths, mixed, tmp_path):
    """The pool of processes gives what one process gives; --unfiltered sets keep everything."""
    outs = [str(tmp_path / name) for name in ("train", "test", "mixed")]
    format_data.main(
        ["--data_dir", str(lengths), str(lengths) + "/", str(mixed), "--out", *outs, "--nj", "2"]
        + ["--unfiltered", str(lengths) + "/", "--min-wav-duration", "0.6"]
        + ["--max_wav_duration", "2", "--audio_format", "wav"]
    )
    assert list(read_table(f"{outs[0]}/text")) == ["b"]
    assert list(read_table(f"{outs[1]}/wav.scp")) == ["a", "b", "c", "d"]
    assert list(read_table(f"{outs[2]}/text")) == ["a", "c"]
    run(mixed, tmp_path / "serial", audio_format="wav")
    for key in "ac":
        one = (tmp_path / f"mixed/audio/{key}.wav").read_bytes()
        assert one == (tmp_path / f"serial/audio/{key}.wav").read_bytes()


def test_pool_and_options():
    with converters(1) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
    with pytest.raises(SpireError, match="2 --data_dir need as many --out"):
        format_data.main(["--data_dir", "a", "b", "--out", "c"])


_KILLED = """
import os, signal, sys
from espnet_spire.corpus.format import Limits, format_data_dir

class Pool:
    @staticmethod
    def imap(function, jobs, chunksize=1):
        for number, job in enumerate(jobs):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield function(job)

format_data_dir(sys.argv[1], sys.argv[2], limits=Limits(shortest=0.25), pool=Pool())
"""


def test_killed_in_the_middle(tmp_path, make_data_dir, make_audio):
    """The next start converts what was not yet, and leaves what one without a kill does."""
    lengths = {"a": 0.3, "b": 0.2, "c": 0.4, "d": 0.2, "e": 0.3}
    data = make_data_dir(
        tmp_path / "raw", {key: make_audio(seconds, 1) for key, seconds in lengths.items()}
    )
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(data), str(out)])
    assert killed.returncode == -9
    assert not (out / "wav.scp").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "audio").glob("*.flac")}
    assert set(before) == {"a.flac", "b.flac", "c.flac"}
    left_out = run(data, out, Limits(shortest=0.25))
    assert left_out == run(data, tmp_path / "whole", Limits(shortest=0.25))
    for name in ("a.flac", "c.flac"):
        assert (out / "audio" / name).stat().st_mtime_ns == before[name]
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            same = path.read_text("latin-1").replace("/whole/", "/out/")
            assert (out / path.relative_to(tmp_path / "whole")).read_text("latin-1") == same


class Pretended:
    """Conversions that need no audio, each of one second."""

    @staticmethod
    def imap(_function, jobs, chunksize=1):
        return (Converted(job.key, 16000, None, "made from " * 20) for job in jobs)


def test_memory_of_many(tmp_path):
    """Less than 60 bytes an utterance, whose key alone has 121; SQLite's own has a limit."""

    def peak(count):
        data = tmp_path / str(count)
        keys = [f"s{number:0120d}" for number in range(count)]
        tables = {name: dict.fromkeys(keys, "w" * 100) for name in ("wav.scp", "text")}
        tables["utt2spk"] = {key: f"s{number // 20}" for number, key in enumerate(keys)}
        tables["text.tc.de"] = dict.fromkeys(keys[::2], "w" * 100)
        write_data_dir(data, tables)
        del keys, tables
        for _ in range(2):  # with a journal, too
            tracemalloc.start()
            assert format_data_dir(data, data / "out", limits=Limits(), pool=Pretended()) == {}
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    assert peak(3000) - peak(1000) < 60 * 2000
