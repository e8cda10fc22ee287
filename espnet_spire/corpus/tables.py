"""Utterances of any number to a Kaldi data directory, at constant memory."""

import contextlib
import itertools
from pathlib import Path
from typing import IO, Dict, Iterable, Iterator, Tuple

from espnet_spire.corpus.records import Utterance
from espnet_spire.utils.datadir import (
    SEGMENTS,
    SPK2UTT,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    table_line,
    translation_file,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort


def write_utterances(utterances: Iterable[Utterance], out: Path, work: Path) -> int:
    """Write ``wav.scp``, ``text``, ``utt2spk``, ``spk2utt``, ``segments``, ``text.tc.<lang>``.

    A table of translations has the utterances that have one.

    Args:
        utterances: sorted by key, each key once; all of them parts of recordings, or none.
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
            files[name].write(table_line(out / name, key, value))

        speakers = _Pairs(work / "speakers")
        recordings = _Pairs(work / "recordings")
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
                times = f"{utterance.recording} {utterance.start:.3f} {utterance.end:.3f}"
                write(SEGMENTS, key, times)
                recordings.add(utterance.recording, utterance.audio)
        if WAV_SCP in files and SEGMENTS in files:
            raise SpireError(f"{out}: some utterances are parts of recordings and others are files")
        for speaker, keys in speakers.grouped():
            write(SPK2UTT, speaker, " ".join(keys))
        for recording, names in recordings.grouped():
            found = list(dict.fromkeys(names))
            if len(found) > 1:
                raise SpireError(f"recording {recording} is {found[0]} and {found[1]}")
            write(WAV_SCP, recording, found[0])
    return count


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
