"""Lengths of the utterances of a data directory, without decoding them where that is possible."""

import logging
from collections import OrderedDict
from typing import Iterator, NamedTuple, Optional, Tuple, Union

from espnet_spire.units.audio import Decoder, Header, read_header
from espnet_spire.units.bounds import length_tolerance, segment_bounds
from espnet_spire.units.resampling import LOWEST_RATE, SAMPLE_RATE, resampled_length
from espnet_spire.units.rxfilename import is_pipe
from espnet_spire.units.sources import Source, iter_sources
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

# Recordings whose header is kept: the segments of one follow each other, more or less.
_RECORDINGS = 64
# How far seconds and a count of samples at 16 kHz can be apart: some count frames of 25 ms.
_ROUNDING_SECONDS = 0.03
# Samples that times at an unknown rate leave open: a sample at the lowest rate from rounding both
# ends, one from rounding them at 16 kHz, one from resampling, which rounds up.
_UNKNOWN_RATE = SAMPLE_RATE // LOWEST_RATE + 2


class Duration(NamedTuple):
    """``num_samples`` at 16 kHz of an utterance; 0 where ``reason`` says why it has none.

    ``slack``: samples by which the audio may be longer: 0 where the length is exact.
    """

    key: str
    num_samples: int
    reason: Optional[str] = None
    slack: int = 0


def utterance_samples(data_dir: PathLike) -> Iterator[Duration]:
    """Yield the length of every utterance, in file order, constant memory.

    Taken from the first of these that the directory has: ``utt2num_samples`` that counts at
    16 kHz, as stage 2 leaves it; the times of ``segments``, cut at the end of recordings that are
    files; ``utt2dur``; the header of the audio. Only what has no length in its header is decoded
    (MP3 without a length tag, FLAC from a stream) or run (pipes); how many is logged. Headers and
    segments of files give exactly what :func:`load_audio` would return; times of pipes and
    ``utt2dur`` are right to their ``slack``, which for ``utt2dur`` is what extraction lets pass.

    Raises:
        SpireError: what :func:`iter_sources` raises. What is wrong with a single utterance is in
            its ``reason``.
    """
    lengths = _Lengths()
    for key, source in iter_sources(data_dir):
        try:
            count, slack = lengths.of(source)
            yield Duration(key, count, None, slack) if count else Duration(key, 0, "no samples")
        except SpireError as error:
            yield Duration(key, 0, str(error))
    if lengths.costly:
        logging.info(
            "%s: %d recordings were run or decoded to know their length", data_dir, lengths.costly
        )


class _Lengths:
    """Finds lengths; remembers the last headers, and at which rate ``utt2num_samples`` counts."""

    def __init__(self) -> None:
        self.costly = 0
        self._headers: "OrderedDict[str, Union[Header, str]]" = OrderedDict()
        self._decoder = Decoder()
        self._counts_at_16k: Optional[bool] = None

    def of(self, source: Source) -> Tuple[int, int]:
        """Samples, and by how many more it may be."""
        counted, seconds = source.expected or (None, None)
        if counted is not None and self._at_16k(source, counted, seconds):
            return counted, 0
        if not source.whole:
            return self._segment(source)
        if seconds is not None:
            return round(seconds * SAMPLE_RATE), round(length_tolerance(seconds) * SAMPLE_RATE)
        header = self._header(source.rxfilename)
        return resampled_length(header.frames, header.rate), 0

    def _at_16k(self, source: Source, counted: int, seconds: Optional[float]) -> bool:
        """Whether ``utt2num_samples`` counts at 16 kHz: by times, else by the first header."""
        if source.end is not None:
            seconds = source.end - source.start
        if seconds is not None:
            return abs(counted / SAMPLE_RATE - seconds) <= _ROUNDING_SECONDS
        if self._counts_at_16k is None:
            # Files that hold such counts are written by one tool at one rate.
            header = self._header(source.rxfilename)
            self._counts_at_16k = counted == _samples(source, header)
        return self._counts_at_16k

    def _segment(self, source: Source) -> Tuple[int, int]:
        if is_pipe(source.rxfilename) and source.end is not None:
            # Their times are taken at their word: a pipe costs as much as decoding.
            begin, end = segment_bounds(source, SAMPLE_RATE, None)
            return end - begin, _UNKNOWN_RATE
        return _samples(source, self._header(source.rxfilename)), 0

    def _header(self, rxfilename: str) -> Header:
        found = self._headers.get(rxfilename)
        if found is None:
            try:
                found = self._read(rxfilename)
            except SpireError as error:  # not again for each segment of a broken recording
                found = str(error)
            self._headers[rxfilename] = found
            if len(self._headers) > _RECORDINGS:
                self._headers.popitem(last=False)
        if isinstance(found, str):
            raise SpireError(found)
        return found

    def _read(self, rxfilename: str) -> Header:
        header = read_header(rxfilename)
        known = header.frames is not None
        self.costly += is_pipe(rxfilename) or not known
        if known:
            return header
        return header._replace(frames=self._decoder.count_frames(rxfilename))


def _samples(source: Source, header: Header) -> int:
    begin, end = segment_bounds(source, header.rate, header.frames)
    return resampled_length(end - begin, header.rate)
