"""Audio of any kind to 16 kHz mono files, with the filters of training sets (stage 2)."""

import logging
import multiprocessing
import multiprocessing.pool
from pathlib import Path
from typing import Dict, NamedTuple, Optional

import soundfile
import torch

from espnet_spire.corpus.transcripts import true_cased
from espnet_spire.units.audio import SAMPLE_RATE, Source, load_audio, utterance_sources
from espnet_spire.units.rxfilename import file_state
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.datadir import (
    NUM_SAMPLES,
    REJECTED,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    read_table,
    require_keys,
    validate_data_dir,
    write_data_dir,
    write_rejected,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress
from espnet_spire.utils.rejected import check_rejected

# In the audio directory: what each file was made from.
JOURNAL = ".journal"


class Limits(NamedTuple):
    """Durations in seconds outside of which an utterance is left out; ``None`` for no limit."""

    shortest: Optional[float] = None
    longest: Optional[float] = None

    def reason(self, num_samples: int) -> Optional[str]:
        """Why an utterance of this length is left out, or ``None``."""
        seconds = num_samples / SAMPLE_RATE
        if self.shortest is not None and seconds < self.shortest:
            return f"{seconds:.3f} s is shorter than {self.shortest} s"
        if self.longest is not None and seconds > self.longest:
            return f"{seconds:.3f} s is longer than {self.longest} s"
        return None


class Converted(NamedTuple):
    """Result of one conversion: the number of samples, or why there are none."""

    key: str
    num_samples: int
    error: Optional[str]


class Job(NamedTuple):
    """One conversion; ``known`` is what the journal says of ``target``, if anything."""

    key: str
    source: Source
    target: str
    known: Optional[str]


def signature(source: Source) -> str:
    """What a source is: place, times and, for a file or ark, its size and time of change."""
    # of a pipe it cannot be known whether its output changes
    content = file_state(source.rxfilename) or "pipe"
    channel = "" if source.channel is None else f"channel {source.channel} "
    return f"{source.rxfilename} {source.start} {source.end} {channel}{content}"


def _is_current(job: Job) -> Optional[int]:
    """Samples of the target when it was made from the source as it is now, else ``None``."""
    if job.known is None or job.known != signature(job.source) or job.known.endswith(" pipe"):
        return None
    try:
        info = soundfile.info(job.target)
    except soundfile.LibsndfileError:
        return None
    return info.frames if info.samplerate == SAMPLE_RATE and info.channels == 1 else None


def convert(job: Job) -> Converted:
    """Write one utterance as 16-bit 16 kHz mono, unless that was done before."""
    frames = _is_current(job)
    if frames is not None:
        return Converted(job.key, frames, None)
    try:
        samples = load_audio(job.source)
    except SpireError as error:
        return Converted(job.key, 0, str(error))
    with atomic_write(job.target, "wb") as stream:
        # Resampling can overshoot full scale a little.
        soundfile.write(
            stream,
            samples.clip(-1.0, 32767 / 32768),
            SAMPLE_RATE,
            format=Path(job.target).suffix[1:].upper(),
            subtype="PCM_16",
        )
    return Converted(job.key, len(samples), None)


def _read_journal(path: Path) -> Dict[str, str]:
    """Utterance → signature of the source that its audio was made from."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    # What follows the last newline was cut off by a kill.
    return dict(line.split("\t", 1) for line in lines[:-1] if "\t" in line)


def _one_thread() -> None:
    torch.set_num_threads(1)


def converters(nj: int) -> multiprocessing.pool.Pool:
    """``nj`` processes that convert; a context manager."""
    # spawn, not fork: torch's thread pool does not survive a fork
    return multiprocessing.get_context("spawn").Pool(nj, initializer=_one_thread)


def format_data_dir(
    data_dir: PathLike,
    out: PathLike,
    *,
    limits: Limits,
    pool: multiprocessing.pool.Pool,
    audio_format: str = "flac",
    max_rejected: float = 0.001,
    src_lang: Optional[str] = None,
) -> Dict[str, str]:
    """Write ``out`` as a data directory of 16 kHz mono files.

    Args:
        data_dir: a valid Kaldi data directory with transcripts.
        out: directory to write; audio goes to ``out/audio``.
        limits: durations to keep; give ``Limits()`` for test sets.
        audio_format: flac or wav.
        pool: see :func:`converters`.
        max_rejected: share of *unreadable* utterances above which this is an error.
        src_lang: the language that is spoken, of which ``text.tc.<lang>``, if it is there, becomes
            ``text``: ESPnet's speech translation recipes leave the transcripts so.

    Returns:
        what was left out: utterance → reason (also in ``out/rejected.tsv``).
    """
    data_dir, out = Path(data_dir), Path(out)
    transcripts = true_cased(data_dir).get(src_lang, TEXT)
    if transcripts != TEXT:
        logging.info("%s: %s is the text, being true-cased", data_dir, transcripts)
    validate_data_dir(data_dir, need_text=transcripts == TEXT)
    sources = utterance_sources(data_dir)
    audio = out / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    journal = _read_journal(audio / JOURNAL)
    jobs = [
        Job(key, source, str(audio / f"{key}.{audio_format}"), journal.get(key))
        for key, source in sources.items()
    ]
    results = []
    with open(audio / JOURNAL, "a", encoding="utf-8") as done:
        stream = pool.imap(convert, jobs, chunksize=8)
        bar = progress(stream, total=len(jobs), desc=f"format {data_dir}", unit="utt")
        for job, result in zip(jobs, bar, strict=True):
            results.append(result)
            if result.error is None and journal.get(job.key) != signature(job.source):
                done.write(f"{job.key}\t{signature(job.source)}\n")

    unreadable = {result.key: result.error for result in results if result.error}
    write_rejected(out / REJECTED, unreadable)
    check_rejected(
        len(unreadable),
        len(results),
        max_rejected,
        first=next(iter(unreadable.items()), None),
        listed=out / REJECTED,
        where=f"{data_dir}: ",
    )
    text = read_table(data_dir / transcripts, allow_empty_value=True)
    rejected = dict(unreadable)
    for result in results:
        if result.key not in rejected:
            reason = limits.reason(result.num_samples)
            if reason is None and not text[result.key] and limits != Limits():
                reason = "empty transcript"
            if reason is not None:
                rejected[result.key] = reason
    kept = {result.key: result.num_samples for result in results if result.key not in rejected}
    write_rejected(out / REJECTED, rejected)
    if not kept:
        raise SpireError(f"{data_dir}: nothing is left after filtering; see {out / REJECTED}")
    tables = {
        WAV_SCP: {key: str(audio / f"{key}.{audio_format}") for key in kept},
        NUM_SAMPLES: {key: str(count) for key, count in kept.items()},
    }
    translations = [name for name in true_cased(data_dir).values() if name != transcripts]
    for name in (transcripts, UTT2SPK, *translations):
        table = require_keys(data_dir, name, sources, WAV_SCP, partial=name in translations)
        left = {key: table[key] for key in kept if key in table}
        tables[TEXT if name == transcripts else name] = left
    for key in rejected:
        Path(audio / f"{key}.{audio_format}").unlink(missing_ok=True)
    write_data_dir(out, tables)
    return rejected
