"""Where the audio of a data directory is: ``wav.scp``, ``segments`` and the lengths it promises.

Which channel of a recording it is, a fifth column of ``segments`` (from 0) says or else the third
of ``reco2file_and_channel`` (A or 1 is the first), as in Kaldi; where nothing does, channels are
averaged.
"""

import math
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import NUM_SAMPLES, SEGMENTS, WAV_SCP, iter_table, read_table
from espnet_spire.utils.errors import SpireError

# Kaldi's seconds of every utterance.
UTT2DUR = "utt2dur"
# Kaldi's file and channel of every recording: "<recording> <file> A".
CHANNELS = "reco2file_and_channel"


class Expected(NamedTuple):
    """Length of an utterance by its data directory; ``None`` where it has no such file.

    ``num_samples`` (``utt2num_samples``) may count at 16 kHz or at the file's own rate.
    """

    num_samples: Optional[int] = None
    seconds: Optional[float] = None


class Source(NamedTuple):
    """Where the samples of one utterance are.

    ``start`` and ``end`` are seconds in the recording, ``end=None`` is its end; ``utterance`` and
    ``recording`` are the names of ``segments``, for messages. ``channel`` counts from 0; it is that
    of audio which has several, ``None`` is their average.
    """

    rxfilename: str
    start: float = 0.0
    end: Optional[float] = None
    utterance: Optional[str] = None
    recording: Optional[str] = None
    expected: Optional[Expected] = None
    channel: Optional[int] = None

    @property
    def whole(self) -> bool:
        """Whether this is a recording from its start to its end."""
        return self.start == 0.0 and self.end is None


def iter_sources(data_dir: PathLike) -> Iterator[Tuple[str, Source]]:
    """Yield ``(utterance, where its audio is)`` in file order.

    From ``wav.scp`` alone one line is in memory at a time; with ``segments`` the table of
    recordings is. ``utt2num_samples`` and ``utt2dur``, where they are there, become
    ``Source.expected``. Whether times lie in their recording is checked when it is decoded.

    Raises:
        SpireError: a missing or empty directory, a line that is not what its file should hold, an
            utterance that one file has and another has not; it names file, line and key.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise SpireError(f"{data_dir}: no such data directory")
    name = SEGMENTS if (data_dir / SEGMENTS).exists() else WAV_SCP
    sources = _segments(data_dir) if name == SEGMENTS else _recordings(data_dir)
    counts = _numbers(data_dir / NUM_SAMPLES, name, int)
    seconds = _numbers(data_dir / UTT2DUR, name, float)
    empty = True
    for key, source in sources:
        empty = False
        if counts or seconds:
            expected = Expected(
                counts.of(key) if counts else None, seconds.of(key) if seconds else None
            )
            source = source._replace(expected=expected)
        yield key, source
    if empty:
        raise SpireError(f"{data_dir / name}: the data set is empty")
    for lengths in (counts, seconds):
        if lengths:
            lengths.finish()


def utterance_sources(data_dir: PathLike) -> Dict[str, Source]:
    """:func:`iter_sources` as a dictionary."""
    return dict(iter_sources(data_dir))


def parse_channel(value: str) -> int:
    """A channel from 0, of Kaldi's ``A``, ``B`` … or ``1``, ``2`` …; a ValueError else.

    >>> parse_channel("B"), parse_channel("1")
    (1, 0)
    """
    if len(value) == 1 and "A" <= value <= "Z":
        return ord(value) - ord("A")
    number = int(value)
    if number < 1:
        raise ValueError
    return number - 1


def _channels(data_dir: Path) -> Dict[str, int]:
    """Which channels recordings are, by ``reco2file_and_channel`` if that is there."""
    path = data_dir / CHANNELS
    found: Dict[str, int] = {}
    if not path.exists():
        return found
    for number, (recording, value) in enumerate(iter_table(path), 1):
        try:
            _, channel = value.split()
            found[recording] = parse_channel(channel)
        except ValueError:
            raise SpireError(
                f"{path}, line {number}: {recording} {value}: a file and a channel (A, B … or 1, 2"
                " …) were expected; mend it, or remove the file if recordings have one channel"
            ) from None
    return found


def _recordings(data_dir: Path) -> Iterator[Tuple[str, Source]]:
    channels = _channels(data_dir)
    for key, value in iter_table(data_dir / WAV_SCP):
        yield key, Source(value, channel=channels.get(key))


def _segments(data_dir: Path) -> Iterator[Tuple[str, Source]]:
    path = data_dir / SEGMENTS
    recordings = read_table(data_dir / WAV_SCP)
    if not recordings:
        raise SpireError(f"{data_dir / WAV_SCP}: the data set is empty")
    channels = _channels(data_dir)
    for number, (key, value) in enumerate(iter_table(path), 1):
        try:
            recording, start, end, *own = value.split()
            channel = int(*own) if own else None
            if channel is not None and channel < 0:
                raise ValueError
            rxfilename, begin, stop = recordings[recording], float(start), float(end)
            if not (math.isfinite(begin) and math.isfinite(stop)):
                raise ValueError
        except (TypeError, ValueError, KeyError):
            raise SpireError(
                f"{path}, line {number}: {key} {value}: not 'recording start end' with a recording"
                " of wav.scp"
            ) from None
        if channel is None:
            channel = channels.get(recording)
        # -1 is Kaldi's end of the recording
        place = (rxfilename, begin, None if stop == -1 else stop)
        yield key, Source(*place, key, recording, channel=channel)


class _Numbers:
    """A table of one number for each utterance, read in step with the utterances."""

    def __init__(self, path: Path, reference: str, kind: type) -> None:
        self.path = path
        self.reference = reference
        self.kind = kind
        self._lines = enumerate(iter_table(path), 1)

    def of(self, key: str):
        """The number of ``key``, which must be on the next line: both are sorted."""
        number, (found, value) = next(self._lines, (0, (None, "")))
        if found is None or found > key:
            raise SpireError(f"{self.path}: utterance {key} of {self.reference} is missing")
        if found < key:
            self._extra(number, found)
        try:
            length = self.kind(value)
        except ValueError:
            length = -1
        if not 0 <= length < math.inf:
            raise SpireError(
                f"{self.path}, line {number}: {key} {value}: a length was expected; make the"
                " file again"
            )
        return length

    def finish(self) -> None:
        """Every line must have been asked for."""
        for number, (found, _) in self._lines:
            self._extra(number, found)

    def _extra(self, number: int, key: str) -> None:
        raise SpireError(f"{self.path}, line {number}: utterance {key} is not in {self.reference}")


def _numbers(path: Path, reference: str, kind: type) -> Optional[_Numbers]:
    return _Numbers(path, reference, kind) if path.exists() else None
