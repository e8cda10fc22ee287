import struct
import threading

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_spire.units import audio as audio_module
from espnet_spire.units.audio import Decoder, Header, iter_audio, load_audio, read_header
from espnet_spire.units.sources import Expected, Source
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


@pytest.mark.parametrize("name", ["a.wav", "cat a.wav |"])
def test_a_channel_where_the_data_directory_names_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    stereo = np.stack([ramp(RATE), np.full(RATE, 0.25)], axis=1)
    write_wav(tmp_path / "a.wav", stereo)
    assert load_audio(Source(name, channel=0)).tolist() == ramp(RATE).tolist()
    assert set(load_audio(Source(name, channel=1))) == {0.25}
    part = Source(name, 0.25, 0.5, "u", "r", channel=0)
    assert load_audio(part).tolist() == ramp(RATE)[4000:8000].tolist()
    assert set(load_audio(part._replace(channel=1))) == {0.25}
    with pytest.raises(SpireError, match="has 2 channels, the data directory asks for channel 3"):
        load_audio(part._replace(channel=2))


def test_a_single_channel_is_the_one_that_is_asked_for(tmp_path):
    name = write_wav(tmp_path / "a.wav", ramp(100))
    assert load_audio(Source(name, channel=1)).tolist() == ramp(100).tolist()


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
    (tmp_path / "segments").write_text("u1 rec 0.25 0.5\nu2 rec 0.9 1.5\nu3 rec 0.5 -1\n")
    audio = dict(iter_audio(tmp_path))
    assert list(audio) == ["u1", "u2", "u3"]
    assert audio["u1"].tolist() == ramp(RATE)[4000:8000].tolist()
    assert audio["u2"].tolist() == ramp(RATE)[14400:].tolist()  # Kaldi cuts at the recording's end
    assert audio["u3"].tolist() == ramp(RATE)[8000:].tolist()
    assert [key for key, _ in iter_audio(tmp_path, ["u2"])] == ["u2"]


def test_segments_in_the_recordings_own_rate(tmp_path):
    wav = write_wav(tmp_path / "rec.wav", np.concatenate([np.zeros(22050), ramp(22050)]), 22050)
    audio = load_audio(Source(wav, 0.0, 0.5))
    assert len(audio) == 8000
    assert not audio.any()


@pytest.mark.parametrize(
    "start, end, message",
    [
        (0.0, 1.501, "ends beyond the recording's 1.000 s"),
        (1.0, 1.2, "starts beyond the recording's 1.000 s"),
        (3.0, None, "starts beyond the recording's 1.000 s"),
        (0.5, 0.5, "not 0 ≤ start < end"),
        (0.5, 0.2, "not 0 ≤ start < end"),
        (-0.1, 0.2, "not 0 ≤ start < end"),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_times_outside_of_the_recording(tmp_path, start, end, message, pipe):
    wav = write_wav(tmp_path / "r.wav", ramp(RATE))
    wav = f"cat {wav} |" if pipe else wav
    with pytest.raises(SpireError) as error:
        load_audio(Source(wav, start, end, "u1", "rec"))
    stop = "the end" if end is None else f"{end} s"
    times = f"utterance u1 of recording rec ({wav}, {start} s to {stop}): "
    assert str(error.value).startswith(times + message)


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
    with pytest.raises(SpireError, match="b.wav, 0.5 s to 0.50001 s: no samples"):
        load_audio(Source(write_wav(tmp_path / "b.wav", ramp(RATE)), 0.5, 0.50001))
    with pytest.raises(SpireError, match="gone.ark: no such audio file"):
        load_audio(Source(str(tmp_path / "gone.ark:12")))


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


def test_not_finite_outside_of_the_segment(tmp_path):
    samples = np.zeros(RATE, dtype=np.float32)
    samples[50] = np.inf
    soundfile.write(tmp_path / "inf.wav", samples, RATE, subtype="FLOAT")
    assert len(load_audio(Source(str(tmp_path / "inf.wav"), 0.5, 1.0))) == 8000
    with pytest.raises(SpireError, match="0.0 s to 0.5 s: samples that are not finite"):
        load_audio(Source(str(tmp_path / "inf.wav"), 0.0, 0.5))


def loud_at_the_end(count):
    """Noise that variable bit rates spend most of their bits on in the second half."""
    rng = np.random.default_rng(0)
    level = np.repeat([0.003, 0.25], [count // 2, count - count // 2])
    return (level * rng.standard_normal(count)).clip(-0.9, 0.9)


# format, subtype, largest error of a sample: of quantisation, or lossy codecs: only its length
FORMATS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),
    ("WAV", "FLOAT", 2**-24),
    ("WAV", "DOUBLE", 2**-24),
    ("WAV", "ULAW", 0.03),
    ("WAVEX", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
    ("NIST", "PCM_16", 2**-15),
    ("OGG", "VORBIS", None),
    ("OGG", "OPUS", None),
    ("MP3", "MPEG_LAYER_III", None),
]


@pytest.mark.parametrize("container, subtype, error", FORMATS)
def test_formats(tmp_path, container, subtype, error):
    samples = loud_at_the_end(2 * RATE + 123)
    path = str(tmp_path / "audio")
    soundfile.write(path, samples, RATE, format=container, subtype=subtype)
    found = load_audio(Source(path))
    assert len(found) == len(samples)
    assert read_header(path) == Header(RATE, len(samples))
    if error is None:  # lossy: the energy of each tenth of a second is there
        tenths = [x[:32000].reshape(20, 1600).std(axis=1) for x in (found, samples)]
        np.testing.assert_allclose(tenths[0][1:9], tenths[1][1:9], rtol=0.5)
        np.testing.assert_allclose(tenths[0][11:], tenths[1][11:], rtol=0.5)
    else:
        np.testing.assert_allclose(found, samples, atol=error)
    assert load_audio(Source(f"cat {path} |")).tolist() == found.tolist()
    for start, end in ((0.3, 0.4), (0.97, 1.9), (1.5, None)):
        stop = None if end is None else round(end * RATE)
        part = load_audio(Source(path, start, end))
        assert part.tolist() == found[round(start * RATE) : stop].tolist()


@pytest.mark.parametrize("container, mode", [("MP3", "VARIABLE"), ("OGG", "VARIABLE")])
def test_segments_of_formats_that_libsndfile_seeks_inexactly(tmp_path, container, mode):
    samples = loud_at_the_end(20 * RATE)
    path = str(tmp_path / "audio")
    soundfile.write(path, samples, RATE, format=container, bitrate_mode=mode)
    whole, _ = soundfile.read(path, dtype="float32")
    decoder = Decoder()
    for start in range(0, 19):
        part = decoder.load(Source(path, start + 0.5, start + 1.0))
        at = start * RATE + RATE // 2
        np.testing.assert_allclose(part, whole[at : at + RATE // 2], atol=1e-6)


def untagged_mp3(path, samples, **options):
    """An MP3 without the frame that holds its length, as streams and old encoders have it."""
    soundfile.write(path, samples, RATE, format="MP3", **options)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 4) :])
    return str(path)


@pytest.mark.parametrize("quiet_first", [True, False])
@pytest.mark.parametrize("tag", [b"", b"TAG".ljust(128, b" ")])
def test_mp3_without_its_length_is_read_to_its_end(tmp_path, quiet_first, tag):
    samples = loud_at_the_end(20 * RATE)[:: 1 if quiet_first else -1]
    path = tmp_path / "a.mp3"
    soundfile.write(path, samples, RATE, bitrate_mode="VARIABLE")
    tagged = load_audio(Source(str(path)))
    untagged_mp3(path, samples, bitrate_mode="VARIABLE")
    path.write_bytes(path.read_bytes() + tag)
    guess = soundfile.info(path).frames  # what libsndfile would stop at
    assert guess != pytest.approx(20 * RATE, rel=0.3)
    # LAME's delay of 576 + 529 samples is in front, and frames are of 576 samples
    for source in (Source(str(path)), Source(f"cat {path} |")):
        found = load_audio(source)
        assert 20 * RATE + 1105 <= len(found) <= 20 * RATE + 1105 + 2 * 576
        assert len(found) % 576 == 0
        np.testing.assert_allclose(found[1105 : 1105 + 20 * RATE], tagged, atol=1e-6)
    part = load_audio(Source(str(path), 14, 15))
    assert part.tolist() == found[14 * RATE : 15 * RATE].tolist()
    assert read_header(str(path)) == Header(RATE, None)


@pytest.mark.parametrize("lost", [2, 500, 5000])
def test_truncated_mp3(tmp_path, lost):
    path = tmp_path / "cut.mp3"
    soundfile.write(path, loud_at_the_end(3 * RATE), RATE)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(SpireError, match="cut.mp3: the header promises 48000 samples"):
        load_audio(Source(str(path)))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_truncated_ogg(tmp_path, subtype):
    path = tmp_path / "cut.ogg"
    soundfile.write(path, loud_at_the_end(3 * RATE), RATE, subtype=subtype)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(SpireError, match="cut.ogg: cut off"):
        load_audio(Source(str(path)))


def test_flac_of_a_stream_has_no_length(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, ramp(20000), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of length
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert load_audio(Source(str(path))).tolist() == ramp(20000).tolist()
    part = load_audio(Source(str(path), 0.5, 1.0))
    assert part.tolist() == ramp(20000)[8000:16000].tolist()
    assert read_header(str(path)) == Header(RATE, None)


def test_long_audio_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_module, "_BLOCK", 1000)
    stereo = np.stack([ramp(4321), -ramp(4321) / 2], axis=1)
    for name in ("a.wav", "a.flac"):
        path = str(tmp_path / name)
        soundfile.write(path, stereo, RATE, subtype="PCM_24")
        np.testing.assert_allclose(load_audio(Source(path)), ramp(4321) / 4, atol=1e-6)


@pytest.mark.parametrize("how", [{}, {"write_function": "soundfile"}])
def test_arks(tmp_path, how):
    noise = np.random.default_rng(0).integers(-9000, 9000, (2, 3000)).astype(np.int16)
    written = {"a": (RATE, noise[0]), "b": (RATE, noise[1])}
    kaldiio.save_ark(str(tmp_path / "x.ark"), written, str(tmp_path / "wav.scp"), **how)
    read = dict(iter_audio(tmp_path))
    assert read["a"].tolist() == (noise[0] / 32768).tolist()
    assert read["b"].tolist() == (noise[1] / 32768).tolist()
    (tmp_path / "segments").write_text("u1 b 0.05 0.1\nu2 b 0.1 -1\n")
    read = dict(iter_audio(tmp_path))
    assert read["u1"].tolist() == (noise[1][800:1600] / 32768).tolist()
    assert read["u2"].tolist() == (noise[1][1600:] / 32768).tolist()


@pytest.mark.parametrize("rate", [1, 3999, 384001, 2**31 - 1])
def test_rates_that_cannot_be(tmp_path, rate):
    wav = write_wav(tmp_path / "a.wav", ramp(1000), rate)
    with pytest.raises(SpireError, match=f"a.wav: a sampling rate of {rate} Hz by its header"):
        load_audio(Source(wav))


@pytest.mark.parametrize("rate", [8001, 44101])
def test_rates_whose_kernel_would_fill_the_memory(tmp_path, rate):
    wav = write_wav(tmp_path / "a.wav", ramp(1000), rate)
    with pytest.raises(SpireError, match=f"a.wav: a sampling rate of {rate} Hz by its header"):
        load_audio(Source(wav))


@pytest.mark.parametrize("rate", [4000, 44056, 384000])
def test_rare_rates(tmp_path, rate):
    wav = write_wav(tmp_path / "a.wav", ramp(rate // 4), rate)
    assert len(load_audio(Source(wav))) == 4000


@pytest.mark.parametrize(
    "expected, message",
    [
        (Expected(seconds=1.0), None),
        (Expected(seconds=0.942), None),  # 1 % + 0.05 s
        (Expected(seconds=0.939), "1.00 s by its header, utt2dur says 0.94 s: wrong sampling rate"),
        (Expected(seconds=2.0), "1.00 s by its header, utt2dur says 2.00 s: wrong sampling rate"),
        (Expected(num_samples=RATE), None),
        (Expected(num_samples=8000), None),  # at the file's own rate
        (Expected(num_samples=32000), r"says 32000 samples \(2.00 s\): wrong sampling rate"),
        (Expected(num_samples=RATE, seconds=2.0), "utt2dur says 2.00 s"),
    ],
)
def test_expected_lengths(tmp_path, expected, message):
    wav = write_wav(tmp_path / "a.wav", ramp(8000), 8000)
    source = Source(wav, expected=expected)
    if message is None:
        assert len(load_audio(source)) == RATE
    else:
        with pytest.raises(SpireError, match=f"a.wav: .*{message}"):
            load_audio(source)


def test_times_may_be_cut_at_the_end_whatever_is_expected(tmp_path):
    wav = write_wav(tmp_path / "a.wav", ramp(RATE))
    assert len(load_audio(Source(wav, 0.5, 1.4, expected=Expected(seconds=0.9)))) == 8000


def counting_pipe(tmp_path, name, samples):
    """A pipe that leaves a line in a file each time it is run."""
    wav = write_wav(tmp_path / f"{name}.wav", samples)
    return f"echo {name} >> {tmp_path}/runs; sleep 0.05; cat {wav} |"


def runs(tmp_path):
    return (tmp_path / "runs").read_text().split()


def test_segments_of_a_pipe_run_it_once(tmp_path):
    decoder = Decoder(max_recordings=2)
    pipes = [counting_pipe(tmp_path, name, ramp(RATE)) for name in "abc"]
    for order in ("aabab", "cb"):
        for name in order:
            part = decoder.load(Source(pipes["abc".index(name)], 0.25, 0.5))
            assert part.tolist() == ramp(RATE)[4000:8000].tolist()
    assert runs(tmp_path) == ["a", "b", "c"]
    decoder.load(Source(pipes[0], 0.25, 0.5))  # the least recent one was let go
    assert runs(tmp_path) == ["a", "b", "c", "a"]


def test_recordings_are_kept_by_bytes(tmp_path):
    decoder = Decoder(max_recordings=2, max_bytes=4 * RATE + 1)
    pipes = [counting_pipe(tmp_path, name, ramp(RATE)) for name in "ab"]
    for pipe in (pipes[0], pipes[0], pipes[1], pipes[1], pipes[0]):
        decoder.load(Source(pipe, 0.25, 0.5))
    assert runs(tmp_path) == ["a", "b", "a"]


def test_what_is_kept_cannot_be_changed_from_outside(tmp_path):
    decoder = Decoder()
    pipe = counting_pipe(tmp_path, "a", ramp(RATE))
    decoder.load(Source(pipe, 0.25, 0.5))[:] = 7
    assert decoder.load(Source(pipe, 0.25, 0.5)).tolist() == ramp(RATE)[4000:8000].tolist()


def test_threads_wait_for_the_same_recording(tmp_path):
    decoder, found = Decoder(), []
    pipe = counting_pipe(tmp_path, "a", ramp(RATE))
    threads = [
        threading.Thread(target=lambda: found.append(decoder.load(Source(pipe, 0.25, 0.5))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(tmp_path) == ["a"]
    assert all(part.tolist() == ramp(RATE)[4000:8000].tolist() for part in found)
    assert len(found) == 8


def test_a_broken_pipe_is_not_run_again_for_each_segment(tmp_path):
    decoder = Decoder()
    for _ in range(3):
        with pytest.raises(SpireError, match="status 1"):
            decoder.load(Source(f"echo a >> {tmp_path}/runs; false |", 0.25, 0.5))
    assert runs(tmp_path) == ["a"]


def test_a_file_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, loud_at_the_end(RATE), RATE)
    first = load_audio(Source(str(path), 0.2, 0.4))
    soundfile.write(path, np.zeros(RATE + 100), RATE)
    assert np.abs(first).max() > 0.001
    assert np.abs(load_audio(Source(str(path), 0.2, 0.4))).max() < 0.001
