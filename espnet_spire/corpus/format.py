"""Audio of any kind to 16 kHz mono files, with the filters of training sets (stage 2)."""

import logging
import multiprocessing
import multiprocessing.pool
from array import array
from pathlib import Path
from typing import (
    Dict,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import soundfile
import torch

from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.transcripts import true_cased
from espnet_spire.units.audio import SAMPLE_RATE, Source, load_audio
from espnet_spire.units.rxfilename import file_state
from espnet_spire.units.sources import iter_sources
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.datadir import (
    NUM_SAMPLES,
    REJECTED,
    SPK2UTT,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    check_table,
    iter_keys,
    iter_table,
    match_table,
    table_line,
    validate_data_dir,
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
    """Result of one conversion: the number of samples, or why there are none.

    ``made_from``: signature of the source, where it was converted now and the journal has another.
    """

    key: str
    num_samples: int
    error: Optional[str]
    made_from: Optional[str] = None


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


def _is_current(job: Job, made_from: str) -> Optional[int]:
    """Samples of the target when it was made from the source as it is now, else ``None``."""
    if job.known is None or job.known != made_from or job.known.endswith(" pipe"):
        return None
    try:
        info = soundfile.info(job.target)
    except soundfile.LibsndfileError:
        return None
    return info.frames if info.samplerate == SAMPLE_RATE and info.channels == 1 else None


def convert(job: Job) -> Converted:
    """Write one utterance as 16-bit 16 kHz mono, unless that was done before."""
    made_from = signature(job.source)
    frames = _is_current(job, made_from)
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
    return Converted(job.key, len(samples), None, made_from if made_from != job.known else None)


def _jobs(data_dir: Path, audio: Path, audio_format: str) -> Iterator[Job]:
    """All conversions in the order of keys, each with the newest line of the journal about it.

    A pool iterates in a thread of its own, where the journal's rows must be made.
    """
    journal = Rows(_journal_rows(audio / JOURNAL)).grouped()
    known, values = next(journal, (None, []))
    for key, source in iter_sources(data_dir):
        while known is not None and known < key:  # an utterance that is no more
            known, values = next(journal, (None, []))
        newest = values[-1] if known == key else None
        yield Job(key, source, str(audio / f"{key}.{audio_format}"), newest)


def _journal_rows(path: Path) -> Iterator[Tuple[str, str]]:
    """Utterance and signature of the source that its audio was made from."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", newline="\n") as stream:
        for line in stream:
            key, tab, made_from = line.rstrip("\n").partition("\t")
            # What does not end was cut off by a kill.
            if tab and line.endswith("\n"):
                yield key, made_from


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
    total = validate_data_dir(data_dir, need_text=transcripts == TEXT)
    if transcripts != TEXT:
        logging.info("%s: %s is the text, being true-cased", data_dir, transcripts)
        check_table(data_dir, transcripts, iter_keys(data_dir), WAV_SCP)
    audio = out / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    counts = array("q")  # of samples, by place in the order of keys
    unreadable: Dict[str, str] = {}
    # by line: what is converted counts even if the next moment all is killed
    with open(audio / JOURNAL, "a", encoding="utf-8", buffering=1) as done:
        stream = pool.imap(convert, _jobs(data_dir, audio, audio_format), chunksize=8)
        for result in progress(stream, total=total, desc=f"format {data_dir}", unit="utt"):
            counts.append(result.num_samples)
            if result.error is not None:
                unreadable[result.key] = result.error
            elif result.made_from is not None:
                done.write(f"{result.key}\t{result.made_from}\n")
    write_rejected(out / REJECTED, unreadable)
    check_rejected(
        len(unreadable),
        len(counts),
        max_rejected,
        first=next(iter(unreadable.items()), None),
        listed=out / REJECTED,
        where=f"{data_dir}: ",
    )
    rejected = dict(unreadable)
    rows = match_table(data_dir, transcripts, iter_keys(data_dir), WAV_SCP)
    for (key, text), count in zip(rows, counts, strict=True):
        if key not in rejected:
            reason = limits.reason(count)
            if reason is None and not text and limits != Limits():
                reason = "empty transcript"
            if reason is not None:
                rejected[key] = reason
    write_rejected(out / REJECTED, rejected)
    if len(rejected) == len(counts):
        raise SpireError(f"{data_dir}: nothing is left after filtering; see {out / REJECTED}")
    for key in rejected:
        Path(audio / f"{key}.{audio_format}").unlink(missing_ok=True)
    _write_tables(data_dir, out, transcripts, rejected, counts, audio_format)
    return rejected


def _write_tables(
    data_dir: Path,
    out: Path,
    transcripts: str,
    rejected: Mapping[str, str],
    counts: Sequence[int],
    audio_format: str,
) -> None:
    """The tables of ``out``, of what is not rejected, line by line."""

    def write(name: str, rows: Iterable[Tuple[str, str]]) -> None:
        with atomic_write(out / name) as stream:
            for key, value in rows:
                stream.write(table_line(out / name, key, value))

    def keep(name: str, rows: Iterable[Tuple[str, Optional[str]]]) -> None:
        there = ((key, value) for key, value in rows if value is not None)
        write(name, (row for row in there if row[0] not in rejected))

    def keys() -> Iterator[str]:
        return iter_keys(data_dir)

    keep(WAV_SCP, ((key, f"{out / 'audio'}/{key}.{audio_format}") for key in keys()))
    keep(NUM_SAMPLES, zip(keys(), map(str, counts), strict=True))
    keep(TEXT, match_table(data_dir, transcripts, keys(), WAV_SCP))
    for name in true_cased(data_dir).values():
        if name != transcripts:
            keep(name, match_table(data_dir, name, keys(), WAV_SCP, partial=True))
    keep(UTT2SPK, match_table(data_dir, UTT2SPK, keys(), WAV_SCP))
    speakers = Rows((speaker, key) for key, speaker in iter_table(out / UTT2SPK))
    write(SPK2UTT, ((speaker, " ".join(found)) for speaker, found in speakers.grouped()))
