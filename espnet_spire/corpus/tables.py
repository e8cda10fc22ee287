"""Utterances of any number to a Kaldi data directory, at constant memory."""

import contextlib
import heapq
import itertools
import os
from pathlib import Path
from typing import IO, Dict, Iterable, Iterator, Tuple

from espnet_spire.corpus.records import TO_THE_END, Utterance
from espnet_spire.units.sources import CHANNELS
from espnet_spire.utils.datadir import (
    SEGMENTS,
    SPK2UTT,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    iter_table,
    table_line,
    translation_file,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort


def write_utterances(utterances: Iterable[Utterance], out: Path, work: Path) -> int:
    """Write ``wav.scp``, ``text``, ``utt2spk``, ``spk2utt`` and what else the utterances need.

    ``segments`` if some are parts of recordings (the others are then recordings from start to
    end), ``reco2file_and_channel`` if some are of one channel, ``text.tc.<lang>`` with the
    utterances that have a translation.

    Args:
        utterances: sorted by key, each key once.
        out: directory, which is there.
        work: directory for files that do not stay.

    Returns:
        how many there were.
    """
    count = 0
    with contextlib.ExitStack() as stack:
        files: Dict[str, IO[str]] = {}

        def write(name: str, key: str, value: str) -> None:
            if name not in files:
                files[name] = stack.enter_context(
                    open(out / name, "w", encoding="utf-8", newline="\n")
                )
            files[name].write(table_line(f"{out}/{name}", key, value))

        speakers = _Pairs(work / "speakers")
        recordings = _Pairs(work / "recordings")
        channels = _Pairs(work / "channels")
        for utterance in utterances:
            key, count = utterance.key, count + 1
            write(TEXT, key, utterance.text)
            write(UTT2SPK, key, utterance.speaker)
            for lang, text in utterance.translations.items():
                write(translation_file(lang), key, text)
            speakers.add(utterance.speaker, key)
            if utterance.recording is None:
                write(WAV_SCP, key, utterance.audio)
            else:
                write(SEGMENTS, key, f"{utterance.recording} {_times(utterance)}")
                recordings.add(utterance.recording, utterance.audio)
            if utterance.channel is not None:
                channels.add(utterance.recording or key, str(utterance.channel + 1))
        if WAV_SCP in files and SEGMENTS in files:
            files.pop(WAV_SCP).close()
            files.pop(SEGMENTS).close()
            for key, audio in _whole_as_segments(out):
                recordings.add(key, audio)
        for speaker, keys in speakers.grouped():
            write(SPK2UTT, speaker, " ".join(keys))
        for recording, name in _one_each(recordings):
            write(WAV_SCP, recording, name)
        for recording, channel in _one_each(channels):
            write(CHANNELS, recording, f"{recording} {channel}")
    return count


def _times(utterance: Utterance) -> str:
    end = "-1" if utterance.end == TO_THE_END else f"{utterance.end:.3f}"
    return f"{utterance.start:.3f} {end}"


def _whole_as_segments(out: Path) -> Iterator[Tuple[str, str]]:
    """Add the lines of ``wav.scp`` to ``segments``; remove and yield them."""
    whole, parts, both = out / WAV_SCP, out / SEGMENTS, out / f".{SEGMENTS}"
    with open(both, "w", encoding="utf-8", newline="\n") as stream:
        rows = ((key, f"{key} 0.000 -1") for key, _ in iter_table(whole))
        for key, value in heapq.merge(iter_table(parts), rows):
            stream.write(table_line(parts, key, value))
    os.replace(both, parts)
    yield from iter_table(whole)
    whole.unlink()


def _one_each(pairs: "_Pairs") -> Iterator[Tuple[str, str]]:
    """What each recording is; two things are an error."""
    for recording, values in pairs.grouped():
        found = list(dict.fromkeys(values))
        if len(found) > 1:
            raise SpireError(f"recording {recording} is {found[0]} and {found[1]}")
        yield recording, found[0]


class _Pairs:
    """Pairs on disk, to be read grouped by the first."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._path = directory / "pairs"
        self._stream = open(self._path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._last: Tuple[str, str] = ("", "")

    def add(self, first: str, second: str) -> None:
        # Recordings come once for each of their utterances.
        if (first, second) != self._last:
            self._last = (first, second)
            self._stream.write(f"{first}\t{second}\n")

    def grouped(self) -> Iterator[Tuple[str, Iterator[str]]]:
        self._stream.close()
        with open(self._path, encoding="utf-8", newline="\n") as stream:
            rows = (tuple(line.rstrip("\n").split("\t", 1)) for line in stream)
            pairs = external_sort(rows, self._directory)
            for first, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
                yield first, (second for _, second in group)
        self._path.unlink()
