import struct

import numpy as np
import pytest
import soundfile

from espnet_spire.units.audio import Source, iter_audio, load_audio, utterance_sources
from espnet_spire.utils.errors import SpireError

RATE = 16000


def strongest_frequency(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def ramp(count):
    """Samples that say where they are, exactly representable in 16 bits."""
    return np.arange(count, dtype=np.float64) / 32768


def write_wav(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return str(path)


def test_samples_are_read_as_they_are(tmp_path):
    audio = load_audio(Source(write_wav(tmp_path / "a.wav", ramp(1000))))
    assert audio.dtype == np.float32
    assert audio.tolist() == ramp(1000).tolist()


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([ramp(800), np.full(800, 0.25)], axis=1)
    audio = load_audio(Source(write_wav(tmp_path / "a.wav", stereo)))
    np.testing.assert_allclose(audio, (ramp(800) + 0.25) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_length_and_frequency(tmp_path, rate):
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    audio = load_audio(Source(write_wav(tmp_path / "a.wav", sine, rate)))
    assert abs(len(audio) - RATE) <= 1
    assert strongest_frequency(audio, RATE) == pytest.approx(1000, abs=2)
    # a sine of amplitude a has the power a² / 2
    assert np.mean(audio[1000:-1000] ** 2) == pytest.approx(0.125, rel=0.01)


def test_frequencies_above_the_new_limit_do_not_fold_back(tmp_path):
    sine = 0.5 * np.sin(2 * np.pi * 10000 * np.arange(22050) / 22050)  # would alias to 6 kHz
    audio = load_audio(Source(write_wav(tmp_path / "a.wav", sine, 22050)))
    assert np.abs(audio[500:-500]).max() < 0.01


def test_segments(tmp_path):
    wav = write_wav(tmp_path / "rec.wav", ramp(RATE))
    (tmp_path / "wav.scp").write_text(f"rec {wav}\n")
    (tmp_path / "segments").write_text("u1 rec 0.25 0.5\nu2 rec 0.9 2.0\n")
    audio = dict(iter_audio(tmp_path))
    assert list(audio) == ["u1", "u2"]
    assert audio["u1"].tolist() == ramp(RATE)[4000:8000].tolist()
    assert audio["u2"].tolist() == ramp(RATE)[14400:].tolist()  # Kaldi cuts at the recording's end
    assert [key for key, _ in iter_audio(tmp_path, ["u2"])] == ["u2"]


def test_segments_in_the_recordings_own_rate(tmp_path):
    wav = write_wav(tmp_path / "rec.wav", np.concatenate([np.zeros(22050), ramp(22050)]), 22050)
    audio = load_audio(Source(wav, 0.0, 0.5))
    assert len(audio) == 8000
    assert not audio.any()


@pytest.mark.parametrize("line", ["u1 other 0 1", "u1 rec 0", "u1 rec zero 1"])
def test_bad_segments_are_named(tmp_path, line):
    (tmp_path / "wav.scp").write_text("rec rec.wav\n")
    (tmp_path / "segments").write_text(f"{line}\n")
    with pytest.raises(SpireError, match=f"segments: {line}"):
        utterance_sources(tmp_path)


def test_pipes(tmp_path):
    wav = write_wav(tmp_path / "a b.wav", ramp(500))
    assert load_audio(Source(f"cat '{wav}' |")).tolist() == ramp(500).tolist()
    with pytest.raises(SpireError, match="status 3.*no luck"):
        load_audio(Source("echo no luck >&2; exit 3 |"))
    with pytest.raises(SpireError, match="status 1"):  # the first part of the pipe counts too
        load_audio(Source(f"(cat '{wav}'; exit 1) | cat |"))


def test_missing_and_empty(tmp_path):
    with pytest.raises(SpireError, match="gone.wav: no such audio file"):
        load_audio(Source(str(tmp_path / "gone.wav")))
    with pytest.raises(SpireError, match="a.wav: no samples"):
        load_audio(Source(write_wav(tmp_path / "a.wav", np.zeros(0))))
    with pytest.raises(SpireError, match="b.wav: no samples"):
        load_audio(Source(write_wav(tmp_path / "b.wav", ramp(RATE)), 3.0, 4.0))
    with pytest.raises(SpireError, match="no such data directory"):
        utterance_sources(tmp_path / "nothing")
    (tmp_path / "wav.scp").write_text("")
    with pytest.raises(SpireError, match="wav.scp: the data set is empty"):
        utterance_sources(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is no audio, but it is long enough" * 9])
def test_corrupt_audio_is_named(tmp_path, content):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(SpireError, match="broken.wav: unreadable audio .*replace or remove it"):
        load_audio(Source(str(path)))


def test_directory_in_place_of_audio(tmp_path):
    with pytest.raises(SpireError, match="unreadable audio"):
        load_audio(Source(str(tmp_path)))


@pytest.mark.parametrize("lost", [2, 1000, 1998])
def test_truncated_wav(tmp_path, lost):
    path = tmp_path / "cut.wav"
    whole = write_wav(path, ramp(1000))
    path.write_bytes(path.read_bytes()[:-lost])
    message = f"cut.wav.*header promises {lost} bytes more than there are"
    with pytest.raises(SpireError, match=message):
        load_audio(Source(whole))
    with pytest.raises(SpireError, match=message):
        load_audio(Source(f"cat {whole} |"))


def test_truncated_flac(tmp_path):
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes()[:-8000])
    with pytest.raises(SpireError, match="cut.flac"):
        load_audio(Source(str(path)))


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_written_to_a_stream_has_no_size(tmp_path, size):
    path = tmp_path / "streamed.wav"
    write_wav(path, ramp(300))
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert load_audio(Source(str(path))).tolist() == ramp(300).tolist()


def test_chunks_around_the_data_are_skipped(tmp_path):
    path = tmp_path / "list.wav"
    write_wav(path, ramp(300))
    content = path.read_bytes()
    at = content.index(b"data")
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"  # odd sizes are padded by one byte
    content = content[:at] + odd + content[at:] + b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    assert load_audio(Source(str(path))).tolist() == ramp(300).tolist()


def test_not_finite(tmp_path):
    samples = np.zeros(100, dtype=np.float32)
    samples[50] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(SpireError, match="nan.wav: samples that are not finite"):
        load_audio(Source(str(tmp_path / "nan.wav")))
