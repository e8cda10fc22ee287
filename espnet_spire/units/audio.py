"""Audio of a data directory as 16 kHz mono float32, one utterance in memory at a time."""

import contextlib
import math
import threading
from collections import OrderedDict
from concurrent.futures import Future
from functools import reduce
from typing import Dict, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import soundfile

from espnet_spire.units.bounds import check_length, check_times, place_of, segment_bounds
from espnet_spire.units.containers import UntaggedMp3, cut_off, mp3_knows_length
from espnet_spire.units.resampling import SAMPLE_RATE, check_rate, resample
from espnet_spire.units.rxfilename import Pipes, ark_place, file_state, is_pipe, open_audio_bytes
from espnet_spire.units.sources import Source, iter_sources, utterance_sources
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

__all__ = [
    "SAMPLE_RATE",
    "Decoder",
    "Header",
    "Source",
    "iter_audio",
    "load_audio",
    "read_header",
    "utterance_sources",
]

# libsndfile's length of FLAC from a stream is about 2**63.
_NO_LENGTH = 2**62
_BLOCK = 2**20
# Formats in which libsndfile seeks to the very sample. In Ogg Vorbis and in MP3 of variable rate
# it lands up to a fraction of a second off.
_SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class Header(NamedTuple):
    """Rate in Hz and samples a channel; ``frames`` is ``None`` where only decoding can tell."""

    rate: int
    frames: Optional[int]


class Recording(NamedTuple):
    """A decoded recording: its own rate, mono float32 samples."""

    rate: int
    samples: np.ndarray


class _Stream(soundfile.SoundFile):
    """Read from front to back: ``soundfile`` seeks after each read where it can.

    In MP3 that seek is not exact, and in FLAC of unknown length it is an error.
    """

    def seekable(self) -> bool:
        return False


class _Opened(NamedTuple):
    stream: _Stream
    header: Header
    seekable: bool


@contextlib.contextmanager
def _open(rxfilename: str, pipes: Pipes) -> Iterator[_Opened]:
    """Open audio of any kind and check its header; whatever fails is a SpireError."""
    try:
        with open_audio_bytes(rxfilename, pipes) as file:
            reason = cut_off(file)
            if reason:
                raise SpireError(f"{rxfilename}: cut off, {reason}; replace or remove it")
            file.seek(0)
            plain = not is_pipe(rxfilename) and ark_place(rxfilename) is None
            # By its name where it has one: reading then needs nothing of Python.
            with _Stream(rxfilename if plain else file) as stream:
                check_rate(rxfilename, stream.samplerate)
                if stream.format != "MP3" or mp3_knows_length(file):
                    yield _opened(stream)
                    return
            file.seek(0)
            with _Stream(UntaggedMp3(file.read())) as stream:
                yield _Opened(stream, Header(stream.samplerate, None), False)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise SpireError(
            f"{rxfilename}: unreadable audio ({reason}); replace or remove it"
        ) from None
    except FileNotFoundError as error:
        if error.filename == "bash":
            raise
        raise SpireError(f"{error.filename or rxfilename}: no such audio file") from None
    except (OSError, RuntimeError, TypeError, IndexError) as error:
        raise SpireError(
            f"{rxfilename}: unreadable audio ({error}); replace or remove it"
        ) from None


def _opened(stream: _Stream) -> _Opened:
    known = stream.frames < _NO_LENGTH
    header = Header(stream.samplerate, stream.frames if known else None)
    return _Opened(stream, header, known and stream.subtype.startswith(_SEEKABLE))


def read_header(rxfilename: str) -> Header:
    """Rate and length of a file, an ark's or a pipe's audio.

    Raises:
        SpireError: as :func:`load_audio`, so far as it shows without decoding.
    """
    with _open(rxfilename, Pipes()) as opened:
        return opened.header


def _read(
    name: str, opened: _Opened, begin: int, end: Optional[int], channel: Optional[int]
) -> np.ndarray:
    """Mono samples [begin, end) from the front or from an exact seek; ``end=None`` reads on."""
    if channel is not None and 1 < opened.stream.channels <= channel:
        raise SpireError(
            f"{name}: has {opened.stream.channels} channels, the data directory asks for channel"
            f" {channel + 1}; mend its reco2file_and_channel or segments"
        )
    if begin:
        opened.stream.seek(begin)
    wanted = math.inf if end is None else end - begin
    blocks, count = [], 0
    while count < wanted:
        block = opened.stream.read(int(min(_BLOCK, wanted - count)), "float32", always_2d=True)
        if len(block) == 0:
            break
        blocks.append(_mono(block, channel))
        count += len(block)
    if end is not None and count < wanted:
        raise SpireError(
            f"{name}: the header promises {wanted} samples, the file holds {count}; replace or"
            " remove it"
        )
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _mono(block: np.ndarray, channel: Optional[int]) -> np.ndarray:
    channels = block.shape[1]
    # A pipe may have taken the channel out already.
    if channels == 1:
        return block[:, 0]
    if channel is not None:
        return block[:, channel].copy()
    # numpy's mean along so short an axis takes as long as decoding FLAC.
    return reduce(np.add, block.T) / np.float32(channels)


class Decoder:
    """Reads utterances, from any number of threads.

    Segments of files are read where they lie. Recordings that cannot be sought exactly (pipes,
    arks, Ogg, MP3) are decoded once for the segments that follow each other in them: the last
    ones are kept, at most ``max_recordings`` and, the newest apart, ``max_bytes``.
    """

    def __init__(self, *, max_recordings: int = 2, max_bytes: int = 2**29) -> None:
        self.max_recordings = max_recordings
        self.max_bytes = max_bytes
        self._pipes = Pipes()
        self._lock = threading.Lock()
        self._recordings: "OrderedDict[Tuple, Future]" = OrderedDict()

    def close(self) -> None:
        """End running pipes, forget recordings."""
        self._pipes.close()
        with self._lock:
            self._recordings.clear()

    def load(self, source: Source) -> np.ndarray:
        """See :func:`load_audio`."""
        check_times(source)
        rate, samples = self._native(source)
        if len(samples) == 0:
            raise SpireError(f"{place_of(source)}: no samples; remove it")
        check_length(source, len(samples), rate)
        if not np.isfinite(samples).all():
            raise SpireError(
                f"{place_of(source)}: samples that are not finite; replace or remove it"
            )
        return resample(samples, rate)

    def count_frames(self, rxfilename: str) -> int:
        """Samples a channel of a recording, by decoding it."""
        return len(self._decode(rxfilename).samples)

    def _native(self, source: Source) -> Recording:
        """Mono samples at the recording's own rate."""
        name, channel = source.rxfilename, source.channel
        if source.whole:
            return self._decode(name, channel)
        if not is_pipe(name) and ark_place(name) is None:
            with _open(name, self._pipes) as opened:
                if opened.seekable:
                    bounds = segment_bounds(source, *opened.header)
                    return Recording(opened.header.rate, _read(name, opened, *bounds, channel))
        recording = self._kept(name, channel)
        begin, end = segment_bounds(source, recording.rate, len(recording.samples))
        # A copy: what is kept must not change under the caller's hands.
        return recording._replace(samples=recording.samples[begin:end].copy())

    def _decode(self, rxfilename: str, channel: Optional[int] = None) -> Recording:
        with _open(rxfilename, self._pipes) as opened:
            samples = _read(rxfilename, opened, 0, opened.header.frames, channel)
            return Recording(opened.header.rate, samples)

    def _kept(self, rxfilename: str, channel: Optional[int]) -> Recording:
        """Decode a recording once, however many threads ask for it."""
        # A file that was written anew is another recording.
        key = (rxfilename, channel, file_state(rxfilename))
        with self._lock:
            future = self._recordings.get(key)
            mine = future is None
            if mine:
                future = self._recordings[key] = Future()
            self._recordings.move_to_end(key)
        if mine:
            try:
                future.set_result(self._decode(rxfilename, channel))
            except SpireError as error:  # kept as well: not run again for each of its segments
                future.set_result(str(error))
            except BaseException as error:
                with self._lock:
                    self._recordings.pop(key, None)
                future.set_exception(error)
                raise
            self._forget()
        recording = future.result()
        if isinstance(recording, str):
            raise SpireError(recording)
        return recording

    def _forget(self) -> None:
        """Let go of the oldest recordings, never of the newest or of those being decoded."""
        with self._lock:
            done = [key for key, future in self._recordings.items() if future.done()]
            sizes = {key: _size(self._recordings[key].result()) for key in done}
            while len(done) > 1 and (
                len(done) > self.max_recordings or sum(map(sizes.get, done)) > self.max_bytes
            ):
                del self._recordings[done.pop(0)]


def _size(recording: Union[Recording, str]) -> int:
    return 0 if isinstance(recording, str) else recording.samples.nbytes


_DECODER = Decoder()


def load_audio(source: Source) -> np.ndarray:
    """Read one utterance.

    WAV (and what else libsndfile reads), FLAC, MP3, Ogg Vorbis, Opus, NIST sphere; from a file,
    an ark or a pipe; all of it or a segment.

    Returns:
        float32 samples in [-1, 1] at 16 kHz, shape (samples,): a channel, or their average.

    Raises:
        SpireError: missing, unreadable, empty or cut off audio, samples that are not finite, a
            channel that is not there, a rate that cannot be, a length that is not the expected one,
            a segment outside of its recording; it names the file.
    """
    return _DECODER.load(source)


def iter_audio(
    data_dir: PathLike, keys: Optional[Sequence[str]] = None
) -> Iterator[Tuple[str, np.ndarray]]:
    """Yield ``(utterance, samples)`` of a data directory, see :func:`load_audio`.

    Args:
        data_dir: a Kaldi data directory.
        keys: which utterances, in which order; all in file order by default.
    """
    if keys is None:
        for key, source in iter_sources(data_dir):
            yield key, load_audio(source)
        return
    sources: Dict[str, Source] = utterance_sources(data_dir)
    for key in keys:
        yield key, load_audio(sources[key])
