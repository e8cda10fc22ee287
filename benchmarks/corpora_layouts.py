"""Corpora of any number of utterances, laid out as the readers and lhotse's recipes expect them.

All audio is the same silence, linked under all of its names.
"""

import csv
import errno
import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import soundfile
from bench_common import RATE, WORDS

# Utterances of a call, a book, a session, a speech or a speaker.
GROUP = 100
SECONDS = 5.0
_TEXTS = 997


class Case(NamedTuple):
    """A reader and what it is given.

    ``write(root, count)`` writes ``count`` utterances of ``split``. ``lhotse(root, out)`` runs
    lhotse's recipe on the same; ``None`` where it has none for this layout.
    """

    name: str
    corpus: str
    split: str
    write: Callable[[Path, int], None]
    lhotse: Optional[Callable[[Path, Path], object]] = None
    targets: Tuple[str, ...] = ()


class Silence:
    """A file of silence under many names, by hard links."""

    def __init__(self, root: Path, suffix: str, seconds: float = 0.1) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._file = root / f"silence{suffix}"
        kind = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
        with soundfile.SoundFile(self._file, "w", RATE, 1, **kind) as stream:
            # libsndfile falls over Vorbis of minutes in one piece
            for _ in range(round(seconds * 10)):
                stream.write(np.zeros(RATE // 10, np.int16))
        self._made: set = set()

    @property
    def size(self) -> int:
        return self._file.stat().st_size

    def link(self, path: Path) -> None:
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        try:
            os.link(self._file, path)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            copy = self._file.with_name(f"{self._file.name}.copy")
            shutil.copyfile(self._file, copy)
            copy.replace(self._file)
            os.link(self._file, path)


def _texts() -> List[str]:
    rng = np.random.default_rng(0)
    return [
        " ".join(rng.choice(WORDS, rng.integers(8, 30))).capitalize() + "." for _ in range(_TEXTS)
    ]


TEXTS = _texts()


def text(number: int) -> str:
    return TEXTS[number % _TEXTS]


def groups(count: int, size: int = GROUP) -> Iterator[Tuple[int, range]]:
    """Number of a group and its utterances."""
    for group, first in enumerate(range(0, count, size)):
        yield group, range(first, min(first + size, count))


def librispeech(root: Path, count: int) -> None:
    audio = Silence(root, ".flac")
    for speaker, numbers in groups(count):
        folder = root / "LibriSpeech" / "train-clean-100" / str(speaker) / "1"
        folder.mkdir(parents=True)
        with open(folder / f"{speaker}-1.trans.txt", "w") as stream:
            for number in numbers:
                key = f"{speaker}-1-{number % GROUP:04d}"
                audio.link(folder / f"{key}.flac")
                stream.write(f"{key} {text(number).upper().rstrip('.')}\n")


def spgispeech(root: Path, count: int) -> None:
    audio = Silence(root, ".wav")
    (root / "spgispeech" / "val").mkdir(parents=True)
    header = "wav_filename|wav_filesize|transcript\n"
    (root / "val.csv").write_text(header)
    with open(root / "train.csv", "w") as stream:
        stream.write(header)
        for group, numbers in groups(count):
            call = hashlib.md5(str(group).encode()).hexdigest()
            for number in numbers:
                name = f"{call}/{number % GROUP}.wav"
                audio.link(root / "spgispeech" / "train" / name)
                stream.write(f"{name}|{audio.size}|{text(number)}\n")


def gigaspeech(root: Path, count: int) -> None:
    audio = Silence(root, ".opus")
    with open(root / "GigaSpeech.json", "w") as stream:
        stream.write('{\n  "dataset": "GigaSpeech",\n  "audios": [')
        for group, numbers in groups(count):
            aid = f"POD{group:010d}"
            path = f"audio/podcast/P{group // 1000:04d}/{aid}.opus"
            audio.link(root / path)
            segments = [
                {
                    "sid": f"{aid}_S{place:07d}",
                    "speaker": "N/A",
                    "begin_time": place * SECONDS,
                    "end_time": (place + 1) * SECONDS,
                    "text_raw": "",
                    "text_tn": text(number).upper().replace(".", " <PERIOD>"),
                    "subsets": ["{XL}", "{L}"],
                }
                for place, number in enumerate(numbers)
            ]
            recording = {
                "title": "No title",
                "url": f"https://example.org/{aid}",
                "path": path,
                "aid": aid,
                "source": "podcast",
                "format": "opus",
                "sample_rate": RATE,
                "channels": 1,
                "duration": len(segments) * SECONDS,
                "speaker": "N/A",
                "subsets": ["{XL}", "{L}"],
                "segments": segments,
            }
            stream.write((",\n" if group else "\n") + json.dumps(recording, indent=2))
        stream.write("\n  ]\n}\n")


def mls(root: Path, count: int) -> None:
    audio = Silence(root, ".flac")
    language = root / "mls_english"
    speakers = set()
    for split, lines in (("dev", 1), ("test", 1), ("train", count)):
        (language / split).mkdir(parents=True)
        with open(language / split / "transcripts.txt", "w") as stream:
            for speaker, numbers in groups(lines):
                speakers.add(speaker)
                for number in numbers:
                    name = f"{speaker}_{speaker % 7}_{number:06d}"
                    folder = language / split / "audio" / str(speaker) / str(speaker % 7)
                    audio.link(folder / f"{name}.flac")
                    stream.write(f"{name}\t{text(number).lower().rstrip('.')}\n")
    lines = ["SPEAKER|GENDER|PARTITION|MINUTES|BOOK ID|TITLE|CHAPTER"]
    lines += [f"{speaker} | F | train | 1 | 1 | A | B" for speaker in sorted(speakers)]
    (language / "metainfo.txt").write_text("\n".join(lines) + "\n")


def _session(group: int) -> str:
    return f"{2009 + group % 12}0101-0900-PLENARY-{group}"


def voxpopuli(root: Path, count: int) -> None:
    audio = Silence(root, ".ogg")
    folder = root / "transcribed_data" / "en"
    folder.mkdir(parents=True)
    with open(folder / "asr_train.tsv", "w") as stream:
        stream.write("id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n")
        for group, numbers in groups(count):
            for number in numbers:
                name = f"{_session(group)}-en_20090101-09:00:00_{number % GROUP}"
                audio.link(folder / name[:4] / f"{name}.ogg")
                said = text(number)
                stream.write(f"{name}\t{said}\t{said.lower()}\t{group % 700}\ttrain\tmale\n")


def voxpopuli_sessions(root: Path, count: int) -> None:
    audio = Silence(root, ".ogg", GROUP * SECONDS)
    folder = root / "transcribed_data" / "en"
    folder.mkdir(parents=True)
    columns = (
        "id_ paragraph_id session_id speaker_id original_text normed_text decoded start_time"
        " end_time cer wer vad split gender"
    ).split()
    path = folder / "asr_en.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=1) as stream:
        table = csv.writer(stream, delimiter="|", lineterminator="\n")
        table.writerow(columns)
        # lhotse wants something of each split
        train = [("train", *found) for found in groups(count)]
        for split, group, numbers in [*train, ("dev", count, [0]), ("test", count + 1, [0])]:
            session = _session(group)
            audio.link(root / "raw_audios" / "en" / session[:4] / f"{session}_en.ogg")
            for place, number in enumerate(numbers):
                start, end = place * SECONDS, (place + 1) * SECONDS
                said = text(number)
                row = [f"en_20090101-09:00:00_{place}", place, session, group % 700, said]
                row += [said.lower(), said.lower(), start, end, 0.1, 0.2, [(start, end)]]
                table.writerow([*row, split, "male"])


def _clips(root: Path, columns: str, count: int, table: str) -> None:
    """A table of CommonVoice and its clips."""
    audio = Silence(root, ".mp3")
    names = columns.split()
    with open(root / "en" / table, "w") as stream:
        stream.write("\t".join(names) + "\n")
        for group, numbers in groups(count, 10):
            client = hashlib.sha512(str(group).encode()).hexdigest()
            for number in numbers:
                path = f"common_voice_en_{number}.mp3"
                audio.link(root / "en" / "clips" / path)
                row = {"client_id": client, "path": path, "sentence": text(number)}
                stream.write("\t".join(row.get(name, "") for name in names) + "\n")


def commonvoice(root: Path, count: int) -> None:
    (root / "en").mkdir(parents=True)
    columns = (
        "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents"
        " variant locale segment"
    )
    _clips(root, columns, count, "train.tsv")
    with open(root / "en" / "clip_durations.tsv", "w") as stream:
        stream.write("clip\tduration[ms]\n")
        for number in range(count):
            stream.write(f"common_voice_en_{number}.mp3\t5000\n")


def covost2(root: Path, count: int) -> None:
    (root / "en").mkdir(parents=True)
    columns = "client_id path sentence up_votes down_votes age gender accent locale segment"
    _clips(root, columns, count, "validated.tsv")
    with open(root / "en" / "covost_v2.en_de.tsv", "w") as stream:
        stream.write("path\ttranslation\tsplit\n")
        for number in range(count):
            stream.write(f"common_voice_en_{number}.mp3\t{text(number + 1)}\ttrain\n")


def fleurs(root: Path, count: int) -> None:
    """Layout of lhotse's download."""
    audio = Silence(root, ".wav")
    for language in ("en_us", "de_de"):
        folder = root / "metadata" / language
        folder.mkdir(parents=True)
        for split, lines in (("dev", 1), ("test", 1), ("train", count)):
            with open(folder / f"{split}.tsv", "w") as stream:
                for number in range(lines):
                    file, said = f"{10**18 + number}.wav", text(number)
                    plain = said.lower().rstrip(".")
                    letters = " ".join("|".join(plain.split()))
                    row = [str(number), file, said, plain, letters, "80000", "FEMALE"]
                    stream.write("\t".join(row) + "\n")
                    if language == "en_us":
                        audio.link(root / language / split / file)


def europarl_st(root: Path, count: int) -> None:
    english = root / "v1.1" / "en"
    folder = english / "de" / "train"
    folder.mkdir(parents=True)
    audio = Silence(root, ".wav")
    names = ("segments.lst", "segments.en", "segments.de", "speeches.lst", "speakers.lst")
    streams = [open(folder / name, "w") for name in names]  # noqa: SIM115
    for group, numbers in groups(count):
        speech = f"en.20080924.{group}.3-243"
        audio.link(english / "audios" / f"{speech}.wav")
        streams[3].write(f"{speech}\n")
        streams[4].write(f"Some Body_{group}\n")
        for place, number in enumerate(numbers):
            streams[0].write(f"{speech} {place * SECONDS:.2f} {(place + 1) * SECONDS:.2f}\n")
            streams[1].write(f"{text(number)}\n")
            streams[2].write(f"{text(number + 1)}\n")
    for stream in streams:
        stream.close()


def _recipe(name: str, call: Callable) -> Callable[[Path, Path], object]:
    def run(root: Path, out: Path) -> object:
        import lhotse.recipes

        return call(getattr(lhotse.recipes, f"prepare_{name}"), root, out)

    return run


CASES = (
    Case(
        *("SPGISpeech", "spgispeech", "train", spgispeech),
        _recipe("spgispeech", lambda run, root, out: run(root, out, normalize_text=False)),
    ),
    Case(
        *("GigaSpeech", "gigaspeech", "XL", gigaspeech),
        _recipe("gigaspeech", lambda run, root, out: run(root, out, dataset_parts=["XL"])),
    ),
    Case(
        *("MLS", "mls", "train", mls),
        _recipe("mls", lambda run, root, out: run(root, out, opus=False)),
    ),
    Case("VoxPopuli", "voxpopuli", "train", voxpopuli),
    Case(
        *("VoxPopuli, sessions", "voxpopuli", "train", voxpopuli_sessions),
        # where it does not look for annotations but in its own output
        _recipe("voxpopuli", lambda run, root, out: run(root, root / "transcribed_data" / "en")),
    ),
    Case(
        *("CommonVoice", "commonvoice", "train", commonvoice),
        _recipe(
            "commonvoice", lambda run, root, out: run(root, out, languages="en", splits=["train"])
        ),
    ),
    Case("CoVoST-2", "covost2", "train", covost2, targets=("de",)),
    Case(
        *("FLEURS", "fleurs", "train", fleurs),
        _recipe("fleurs", lambda run, root, out: run(root, out, languages="en_us")),
        targets=("de",),
    ),
    Case("Europarl-ST", "europarl_st", "train", europarl_st, targets=("de",)),
    Case(
        *("LibriSpeech", "librispeech", "train-clean-100", librispeech),
        _recipe(
            "librispeech",
            lambda run, root, out: run(
                root / "LibriSpeech", dataset_parts=["train-clean-100"], output_dir=out
            ),
        ),
    ),
)
