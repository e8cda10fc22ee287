"""Europarl-ST: debates of the European Parliament of 2008 to 2012, cased and punctuated.

Iranzo-Sánchez et al., ICASSP 2020; CC BY-NC 4.0; https://www.mllp.upv.es/europarl-st. Here the
English speeches of version 1.1, translated into eight languages (the paper takes six: de, es, fr,
it, nl, pt).

Layout::

    v1.1/en/audios/<speech>.m4a
    v1.1/en/<language>/{train,train-noisy,dev,test}/segments.lst           "<speech> <start> <end>"
                                                    segments.en, segments.<language>
                                                    speeches.lst, speakers.lst

Files of one directory belong together line by line; times are seconds. Each language has segments
of its own: one that several have is one utterance with several translations. M4A is read through
``ffmpeg``; of a speech that is there as WAV or FLAC, in ``audios`` or in ``audios_wav``, that is
taken.
"""

import itertools
import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from espnet_spire.corpus.joins import Rows
from espnet_spire.corpus.lines import Line, read_lines
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_TARGETS = ["de", "es", "fr", "it", "nl", "pl", "pt", "ro"]
_CONVERTED = ("audios/{}.wav", "audios/{}.flac", "audios_wav/{}.wav")


class _Pair(NamedTuple):
    """The files of a language and split."""

    folder: Path
    lang: str

    @property
    def aligned(self) -> List[Path]:
        names = ("segments.lst", "segments.en", f"segments.{self.lang}")
        return [self.folder / name for name in names]

    @property
    def speakers(self) -> List[Path]:
        return [self.folder / name for name in ("speeches.lst", "speakers.lst")]


def _english(root: Path) -> Path:
    for folder in (root / "en", root / "v1.1" / "en", root):
        if (folder / "audios").is_dir() or (folder / "audios_wav").is_dir():
            return folder
    raise SpireError(f"{root}: neither en/audios nor v1.1/en/audios is there; unpack v1.1.tar.gz")


def _pairs(root: Path, split: str, targets: List[str]) -> List[_Pair]:
    if not targets:
        raise SpireError("europarl_st: --targets is empty; name at least one language")
    return [_Pair(_english(root) / lang / split, lang) for lang in targets]


def _together(paths: List[Path]) -> Iterator[Tuple[Union[Line, Fault], ...]]:
    """Lines of files that have as many."""
    for number, lines in enumerate(itertools.zip_longest(*map(read_lines, paths)), 1):
        for path, line in zip(paths, lines, strict=True):
            if line is None:
                others = ", ".join(other.name for other in paths if other != path)
                raise SpireError(
                    f"{path}: ends before line {number}, which {others} have; they belong together"
                    " line by line: unpack them again"
                )
        yield lines


def _speakers(pair: _Pair, faults: List[Fault]) -> Dict[str, str]:
    """Speech → who speaks; empty where there is no list of it."""
    found: Dict[str, str] = {}
    if not pair.speakers[1].is_file():
        return found
    for lines in _together(pair.speakers):
        broken = [line for line in lines if isinstance(line, Fault)]
        if broken:
            faults.extend(broken)
        else:
            speech, speaker = lines
            found[speech.text.strip()] = "_".join(speaker.text.split())
    return found


def _times(text: str) -> Optional[Tuple[str, int, int]]:
    """Speech, start and end in milliseconds of a line of ``segments.lst``."""
    try:
        speech, start, end = text.split()
        begin, stop = round(float(start) * 1000), round(float(end) * 1000)
    except (ValueError, OverflowError):
        return None
    return (speech, begin, stop) if 0 <= begin < stop else None


def _segments(pairs: List[_Pair]) -> Iterator[Union[Tuple[str, str], Fault]]:
    """Segment → speaker, place, language, transcript, translation."""
    for pair in pairs:
        faults: List[Fault] = []
        speakers = _speakers(pair, faults)
        yield from faults
        for lines in _together(pair.aligned):
            broken = [line for line in lines if isinstance(line, Fault)]
            if broken:
                yield from broken
                continue
            segment, english, translation = lines
            times = _times(segment.text)
            if times is None:
                key = f"{pair.lang}/segments.lst:{segment.number}"
                yield Fault(key, f"{segment.text!r} is no segment", segment.where)
                continue
            speech, start, end = times
            speaker = speakers.get(speech) or speech
            value = [speaker, segment.where, pair.lang, english.text, translation.text]
            # of one width, so that they are in order of time
            yield f"{speech} {start:08d} {end:08d}", json.dumps(value, ensure_ascii=False)


def _audio(folder: Path, speech: str) -> Tuple[str, Optional[str]]:
    """What is read for a speech, and what is wrong with it."""
    for name in _CONVERTED:
        path = folder / name.format(speech)
        if path.is_file():
            return str(path), None
    path = folder / "audios" / f"{speech}.m4a"
    if not path.is_file():
        return str(path), f"{path}: no such audio file"
    if shutil.which("ffmpeg") is None:
        raise SpireError(
            f"{path}: ffmpeg is needed to read it and is not in PATH; install it, or convert the"
            f" speeches to {folder}/audios_wav/<speech>.wav"
        )
    command = f"ffmpeg -nostdin -loglevel error -i {shlex.quote(str(path))}"
    return f"{command} -f wav -ar 16000 -ac 1 - |", None


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    folder = _english(root)
    segments = Rows(_segments(_pairs(root, split, targets)))
    yield from segments.faults()
    last, audio, wrong = None, "", None
    differ = 0
    for name, values in segments.grouped():
        speech, start, end = name.split(" ")
        if speech != last:
            last = speech
            audio, wrong = _audio(folder, speech)
        found = [json.loads(value) for value in values]
        speaker, where, _, text, _ = found[0]
        key = f"{speaker}-{speech}-{start}-{end}"
        translations: Dict[str, str] = {}
        for _, place, lang, english, translation in found:
            if lang in translations:
                yield Fault(key, f"has a translation into {lang} already", place)
                continue
            translations[lang] = one_line(translation)
            if english != text:
                differ += 1
        if wrong is not None:
            yield Fault(key, wrong, where)
            continue
        yield Utterance(
            key,
            audio,
            one_line(text),
            speaker,
            where,
            translations=translations,
            recording=speech,
            start=int(start) / 1000,
            end=int(end) / 1000,
        )
    if differ:
        logging.warning(
            "europarl_st %s: %d segments have another transcript with another language; the first"
            " is taken",
            *(split, differ),
        )


def _index(root: Path, split: str, targets: List[str]) -> List[Path]:
    files = [
        path for pair in _pairs(root, split, targets) for path in (*pair.aligned, *pair.speakers)
    ]
    return [path for path in files if path.is_file() or path.name.startswith("segments")]


CORPUS = Corpus(
    name="europarl_st",
    variable="EUROPARL_ST",
    source="https://www.mllp.upv.es/europarl-st",
    splits=[
        Split("train"),
        Split("train-noisy"),
        Split("dev", whole=True),
        Split("test", whole=True),
    ],
    read=_read,
    index=_index,
    targets=_TARGETS,
)
