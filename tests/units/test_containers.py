import io
import struct

import numpy as np
import pytest
import soundfile

from espnet_spire.units.containers import cut_off, mp3_knows_length

RATE = 16000
# format, subtype
PROMISING = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("NIST", "ULAW"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
]


def encoded(container, subtype, count=30000, channels=1, **options):
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (count, channels))
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format=container, subtype=subtype, **options)
    return stream.getvalue()


@pytest.mark.parametrize("container, subtype", PROMISING)
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_and_cut(container, subtype, channels):
    content = encoded(container, subtype, channels=channels)
    assert cut_off(io.BytesIO(content)) is None
    for lost in (2, 1001, len(content) // 2):
        reason = cut_off(io.BytesIO(content[:-lost]))
        assert reason is not None
        if container != "OGG":  # which promises no more than its page
            assert reason == f"its header promises {lost} bytes more than there are"


def test_big_endian_wave():
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(500), RATE, format="WAV", subtype="PCM_16", endian="BIG")
    content = stream.getvalue()
    assert content[:4] == b"RIFX"
    assert cut_off(io.BytesIO(content)) is None
    assert "promises 7 bytes more" in cut_off(io.BytesIO(content[:-7]))


@pytest.mark.parametrize("container, subtype", [("FLAC", "PCM_16"), ("W64", "PCM_16")])
def test_others_promise_nothing(container, subtype):
    assert cut_off(io.BytesIO(encoded(container, subtype)[:-999])) is None


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFFxxxxWAVE", b"NIST_1A\n   x", b"x" * 99])
def test_broken_headers_are_for_the_decoder(content):
    assert cut_off(io.BytesIO(content)) is None


def test_ogg_cut_between_and_inside_page_headers():
    content = encoded("OGG", "VORBIS", count=120000)
    last = content.rfind(b"OggS\0")
    assert cut_off(io.BytesIO(content[:last])) is None  # indistinguishable from a recorded stream
    for inside in (1, 4, 5, 20, 27, 28):
        assert cut_off(io.BytesIO(content[: last + inside])) is not None
    assert cut_off(io.BytesIO(content + b"a tag behind it")) is None


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0])
def test_size_of_a_stream_is_no_promise(size):
    content = bytearray(encoded("WAV", "PCM_16"))
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    assert cut_off(io.BytesIO(bytes(content))) is None


def without_tag(content):
    """Drop the first frame, which holds the tag."""
    return content[content.index(content[:2], 4) :]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_tags_of_mp3(channels, mode):
    content = encoded("MP3", "MPEG_LAYER_III", channels=channels, bitrate_mode=mode)
    assert mp3_knows_length(io.BytesIO(content))
    # 200 bytes of ID3 in front: its size has 7 bits a byte
    assert mp3_knows_length(io.BytesIO(b"ID3\3\0\0\0\0\1\x48" + b"\0" * 200 + content))
    assert not mp3_knows_length(io.BytesIO(without_tag(content)))
    assert not mp3_knows_length(io.BytesIO(b""))
