"""What libsndfile does not tell: whether an audio file was cut off, or knows its length at all."""

import io
import struct
from typing import BinaryIO, Optional

# Sizes from here on are what sox and ffmpeg write when they cannot know the size yet.
UNKNOWN_SIZE = 0x7FFFF000
# An Ogg page is at most 27 + 255 + 255 · 255 bytes long.
_OGG_PAGE = 65307
# MPEG frames are shorter; the tag with the length is in the first one.
_MPEG_FRAME = 4096
# The tag at the end of an MP3.
_ID3V1 = 128


def cut_off(stream: BinaryIO) -> Optional[str]:
    """Why a file is known to be incomplete, or ``None``.

    RIFF, RIFX, RF64, BW64, AIFF and NIST promise a number of bytes, Ogg a number for each page;
    libsndfile reads what is there without a word. FLAC and tagged MP3 promise samples, which
    whoever decodes them can count. Broken headers and sizes that the writer could not know count
    as complete: the first are for libsndfile to judge.
    """
    stream.seek(0)
    head = stream.read(16)
    try:
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            missing = _missing_of_wave(stream, ">" if head[:4] == b"RIFX" else "<")
        elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            missing = _missing_of_chunks(stream, ">", b"SSND")
        elif head[:7] == b"NIST_1A":
            missing = _missing_of_nist(stream)
        elif head[:4] == b"OggS":
            missing = _missing_of_ogg(stream)
        else:
            return None
    except (struct.error, ValueError, IndexError):
        return None
    return f"its header promises {missing} bytes more than there are" if missing > 0 else None


def _end(stream: BinaryIO) -> int:
    return stream.seek(0, io.SEEK_END)


def _missing_of_wave(stream: BinaryIO, order: str) -> int:
    stream.seek(12)
    name, size = struct.unpack(order + "4sI", stream.read(8))
    if name == b"ds64":  # 64-bit sizes: of RIFF, of data
        (data,) = struct.unpack("<8xQ", stream.read(16))
        stream.seek(12)
        return _missing_of_chunks(stream, order, b"data", data)
    return _missing_of_chunks(stream, order, b"data")


def _missing_of_chunks(
    stream: BinaryIO, order: str, wanted: bytes, known_size: Optional[int] = None
) -> int:
    stream.seek(12)
    while True:
        name, size = struct.unpack(order + "4sI", stream.read(8))
        if name == wanted:
            if known_size is not None:
                size = known_size
            elif size >= UNKNOWN_SIZE:
                return 0
            return stream.tell() + size - _end(stream)
        stream.seek(size + size % 2, io.SEEK_CUR)


def _missing_of_nist(stream: BinaryIO) -> int:
    stream.seek(8)
    header_size = int(stream.read(8))
    fields = {}
    for line in stream.read(header_size - 16).decode("latin-1").split("\n"):
        words = line.split(None, 2)
        if len(words) == 3:
            fields[words[0]] = words[2]
    if fields.get("sample_coding", "pcm") not in ("pcm", "ulaw", "alaw", "mu-law"):
        return 0
    size = int(fields["sample_count"]) * int(fields["sample_n_bytes"])
    return header_size + size * int(fields.get("channel_count", 1)) - _end(stream)


def _missing_of_ogg(stream: BinaryIO) -> int:
    end = _end(stream)
    stream.seek(max(0, end - 2 * _OGG_PAGE))
    tail = stream.read()
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return 0
    segments = tail[at + 26] if at + 26 < len(tail) else 0
    header = 27 + segments
    size = header + sum(tail[at + 27 : at + header])
    missing = at + size - len(tail)
    rest = tail[at + size :]
    # The name of the next page may itself be cut.
    return 1 if rest and b"OggS\0".startswith(rest) else missing


def mp3_knows_length(stream: BinaryIO) -> bool:
    """Whether an MP3's first frame holds a tag with the number of frames.

    Without one, libsndfile guesses the length from the first bit rate; see :class:`UntaggedMp3`.
    """
    position = stream.tell()  # where a decoder may have to go on
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3":  # its size has 7 bits a byte
        start = 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
        start += 10 if head[5] & 0x10 else 0
    stream.seek(start)
    frame = stream.read(_MPEG_FRAME).lstrip(b"\0")
    stream.seek(position)
    # behind 4 bytes of header, up to 2 of checksum and up to 32 of side information
    for name in (b"Xing", b"Info"):
        at = frame.find(name, 4, 48)
        if at >= 0:
            return bool(frame[at + 7] & 1)
    return frame.find(b"VBRI", 4, 48) >= 0


class UntaggedMp3(io.BytesIO):
    """An MP3 that says it is far longer than it is, and ends where it ends.

    libsndfile takes its guess of the length for the truth and stops there, be it at half of the
    audio. This makes the guess too large for any bit rate (the highest is 40 times the lowest),
    so that all there is gets decoded.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._said = 64 * len(content) + _ID3V1

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            return super().seek(self._said + offset)
        return super().seek(offset, whence)

    def readinto(self, buffer) -> int:
        # The decoder looks for a tag in front of the end, and must find something there.
        left = self._said - self.tell()
        if left > _ID3V1:
            return super().readinto(buffer)
        count = max(0, min(len(buffer), left))
        buffer[:count] = bytes(count)
        super().seek(count, io.SEEK_CUR)
        return count
