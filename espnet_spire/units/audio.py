"""Audio of a data directory as 16 kHz mono float32, one utterance in memory at a time."""

import io
import shlex
import struct
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import soundfile
import torch
import torchaudio

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import SEGMENTS, WAV_SCP, iter_table, read_table
from espnet_spire.utils.errors import SpireError

SAMPLE_RATE = 16000
# Sizes from here on are what sox and ffmpeg write when they cannot know the size yet.
_UNKNOWN_SIZE = 0x7FFFF000


class Source(NamedTuple):
    """Where the samples of one utterance are: seconds, or ``None`` for the whole recording."""

    rxfilename: str
    start: float = 0.0
    end: Optional[float] = None


def utterance_sources(data_dir: PathLike) -> Dict[str, Source]:
    """Utterance → where its audio is, from ``wav.scp`` and, where there is one, ``segments``."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise SpireError(f"{data_dir}: no such data directory")
    recordings = read_table(data_dir / WAV_SCP)
    segments = data_dir / SEGMENTS
    if not segments.exists():
        sources = {key: Source(value) for key, value in recordings.items()}
    else:
        sources = {}
        for key, value in iter_table(segments):
            try:
                recording, start, end = value.split()
                sources[key] = Source(recordings[recording], float(start), float(end))
            except (ValueError, KeyError):
                raise SpireError(
                    f"{segments}: {key} {value}: not 'recording start end' with a recording of"
                    " wav.scp"
                ) from None
    if not sources:
        raise SpireError(f"{data_dir / WAV_SCP}: the data set is empty")
    return sources


@lru_cache(maxsize=8)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)


def _open(rxfilename: str) -> BinaryIO:
    if rxfilename.rstrip().endswith("|"):
        command = rxfilename.rstrip()[:-1]
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True)
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise SpireError(f"{shlex.quote(command)}: status {done.returncode} {reason}")
        return io.BytesIO(done.stdout)
    return open(rxfilename, "rb")


def _missing_bytes(stream: BinaryIO) -> int:
    """Bytes that the header of a RIFF WAV promises and the file does not hold.

    libsndfile reads what is there of a file that was cut off, without a word. Other formats,
    broken headers and sizes that the writer could not know count as complete.
    """
    try:
        riff, _, wave = struct.unpack("<4sI4s", stream.read(12))
        while (riff, wave) == (b"RIFF", b"WAVE"):
            name, size = struct.unpack("<4sI", stream.read(8))
            if name == b"data":
                end = stream.tell() + size
                return 0 if size >= _UNKNOWN_SIZE else max(0, end - stream.seek(0, io.SEEK_END))
            stream.seek(size + size % 2, io.SEEK_CUR)
    except struct.error:  # shorter than a header: for libsndfile to judge
        pass
    return 0


def load_audio(source: Source) -> np.ndarray:
    """Read one utterance.

    Returns:
        float32 samples in [-1, 1] at 16 kHz, shape (samples,); channels are averaged.

    Raises:
        SpireError: missing, unreadable or empty audio, non-finite samples; it names the file.
    """
    name = source.rxfilename
    if not name.rstrip().endswith("|") and not Path(name).exists():
        raise SpireError(f"{name}: no such audio file")
    try:
        with _open(name) as file:
            missing = _missing_bytes(file)
            file.seek(0)
            with soundfile.SoundFile(file) as stream:
                rate = stream.samplerate
                start = round(source.start * rate)
                stop = stream.frames
                if source.end is not None:
                    stop = min(round(source.end * rate), stop)
                stream.seek(min(start, stream.frames))
                expected = max(stop - start, 0)
                samples = stream.read(expected, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise SpireError(f"{name}: unreadable audio ({reason}); replace or remove it") from None
    except (OSError, RuntimeError) as error:
        raise SpireError(f"{name}: unreadable audio ({error}); replace or remove it") from None
    if missing:
        raise SpireError(
            f"{name}: cut off, its header promises {missing} bytes more than there are;"
            " replace or remove it"
        )
    if len(samples) == 0:
        raise SpireError(f"{name}: no samples; remove it")
    if len(samples) < expected:
        raise SpireError(
            f"{name}: the header promises {expected} samples, the file holds {len(samples)};"
            " replace or remove it"
        )
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise SpireError(f"{name}: samples that are not finite; replace or remove it")
    if rate != SAMPLE_RATE:
        mono = _resampler(rate)(torch.from_numpy(mono)).numpy()
    return mono


def iter_audio(
    data_dir: PathLike, keys: Optional[Sequence[str]] = None
) -> Iterator[Tuple[str, np.ndarray]]:
    """Yield ``(utterance, samples)`` of a data directory, see :func:`load_audio`.

    Args:
        data_dir: a Kaldi data directory.
        keys: which utterances, in which order; all in file order by default.
    """
    sources = utterance_sources(data_dir)
    for key in sources if keys is None else keys:
        yield key, load_audio(sources[key])
