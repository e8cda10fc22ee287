"""Segments against the recording that they are of, lengths against what was promised of them."""

from typing import Optional, Tuple

from espnet_spire.units.resampling import SAMPLE_RATE
from espnet_spire.units.sources import Source
from espnet_spire.utils.errors import SpireError

# Kaldi's extract-segments lets an end be this much beyond the recording.
MAX_OVERSHOOT_SECONDS = 0.5
# How far a decoded length may be from the one that the data directory promises.
LENGTH_SHARE, LENGTH_SECONDS = 0.01, 0.05


def check_times(source: Source) -> None:
    """A segment must start at 0 or later and end after its start."""
    if source.start < 0 or (source.end is not None and source.end <= source.start):
        raise SpireError(f"{place_of(source)}: not 0 ≤ start < end; correct segments")


def segment_bounds(source: Source, rate: int, frames: Optional[int]) -> Tuple[int, int]:
    """First sample and the one behind the last, of ``frames`` at ``rate`` (``None``: endless).

    As Kaldi's extract-segments: an end at most 0.5 s beyond the recording is the recording's.

    Raises:
        SpireError: times outside of the recording, or not in order.
    """
    check_times(source)
    if frames is None:
        return round(source.start * rate), round(source.end * rate)
    seconds = frames / rate
    if source.start > 0 and round(source.start * rate) >= frames:
        raise SpireError(
            f"{place_of(source)}: starts beyond the recording's {seconds:.3f} s; correct segments"
        )
    if source.end is None:
        return round(source.start * rate), frames
    if source.end > seconds + MAX_OVERSHOOT_SECONDS:
        raise SpireError(
            f"{place_of(source)}: ends beyond the recording's {seconds:.3f} s; correct segments"
        )
    return round(source.start * rate), min(round(source.end * rate), frames)


def place_of(source: Source) -> str:
    """File and times of a source, for messages; its names where it has some."""
    if source.whole:
        return source.rxfilename
    end = "the end" if source.end is None else f"{source.end} s"
    times = f"{source.rxfilename}, {source.start} s to {end}"
    if source.utterance is None:
        return times
    return f"utterance {source.utterance} of recording {source.recording} ({times})"


def length_tolerance(seconds: float) -> float:
    """How many seconds audio may be longer or shorter than what its data directory promises."""
    return LENGTH_SHARE * seconds + LENGTH_SECONDS


def check_length(source: Source, frames: int, rate: int) -> None:
    """Compare ``frames`` at ``rate`` with what the data directory expects of a source.

    Raises:
        SpireError: they are apart by more than 1 % + 0.05 s.
    """
    if source.expected is None or source.end is not None:
        return  # the times of a segment make its length, whatever the rate
    counted, seconds = source.expected
    actual = frames / rate
    if seconds is not None and not _close(actual, seconds):
        raise _wrong_length(source, actual, f"utt2dur says {seconds:.2f} s")
    if counted is not None and not (
        _close(actual, counted / SAMPLE_RATE) or _close(actual, counted / rate)
    ):
        raise _wrong_length(
            source,
            actual,
            f"utt2num_samples says {counted} samples ({counted / SAMPLE_RATE:.2f} s)",
        )


def _close(actual: float, expected: float) -> bool:
    return abs(actual - expected) <= length_tolerance(expected)


def _wrong_length(source: Source, actual: float, says: str) -> SpireError:
    return SpireError(
        f"{place_of(source)}: {actual:.2f} s by its header, {says}: wrong sampling rate in the"
        " header?"
    )
