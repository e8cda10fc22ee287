"""CommonVoice in miniature: release 18's columns, MP3 of 32 kHz, sentences with stray quotes."""

import hashlib
from pathlib import Path

import numpy as np

from corpora.material import say, speech, write_audio, write_lines

RELEASE = "cv-corpus-18.0-2024-06-14"
COLUMNS = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents"
    " variant locale segment"
).split()
# Of releases such as 4, which CoVoST-2 is made of.
OLD_COLUMNS = (
    "client_id path sentence up_votes down_votes age gender accent locale segment"
).split()
# split → (speaker, number of the clip, number of the sentence)
CLIPS = {
    "train": [(1, 100, 10), (1, 101, 11), (2, 102, 10), (3, 103, 10), (4, 104, 10), (5, 105, 10)],
    "dev": [(6, 200, 12), (7, 201, 13)],
    "test": [(8, 300, 14), (9, 301, 15)],
    "other": [(10, 400, 16)],
}
# Of more than three seconds, which are two sentences; five speakers read the same in `train`.
LONG_CLIPS = {
    "train": [
        *[(speaker, 110 + speaker, (20, 21)) for speaker in range(1, 6)],
        *[(speaker, 120 + speaker, (22 + speaker, 30 + speaker)) for speaker in range(1, 6)],
        (1, 131, 10),
    ],
    "dev": [(6, 210, (40, 41)), (7, 211, (42, 43))],
    "test": [(8, 310, (44, 45))],
}
# Sentences that are written in a way of their own.
QUIRKS = {11: '"Unbalanced, he said.', 14: "It's \"quoted\", isn't it?"}


def client(speaker: int) -> str:
    """128 hexadecimal digits, as the corpus names its speakers."""
    return hashlib.sha512(bytes([speaker])).hexdigest()


def clip(number: int) -> str:
    return f"common_voice_en_{number}.mp3"


def sentence(number) -> str:
    if isinstance(number, tuple):
        return " ".join(map(sentence, number))
    return QUIRKS.get(number) or say(number)["en"]


def spoken(number, speaker: int, rate: int) -> np.ndarray:
    numbers = number if isinstance(number, tuple) else (number,)
    return np.concatenate([speech(number, speaker, rate) for number in numbers])


def row(columns, speaker: int, number: int, text: str) -> str:
    values = {
        "client_id": client(speaker),
        "path": clip(number),
        "sentence_id": f"{number:064x}",
        "sentence": text,
        "up_votes": "2",
        "down_votes": "0",
        "age": "thirties",
        "accents": "United States English",
        "locale": "en",
    }
    return "\t".join(values.get(column, "") for column in columns)


def write_split(folder: Path, name: str, clips, columns=COLUMNS, rate: int = 32000) -> dict:
    """Write a table and its clips; returns the milliseconds of all clips by name."""
    milliseconds = {}
    lines = ["\t".join(columns)]
    for speaker, number, text in clips:
        samples = spoken(text, speaker, rate)
        write_audio(folder / "clips" / clip(number), samples, rate)
        milliseconds[clip(number)] = round(len(samples) / rate * 1000)
        lines.append(row(columns, speaker, number, sentence(text)))
    write_lines(folder / f"{name}.tsv", lines)
    return milliseconds


def build(root: Path, splits=CLIPS) -> Path:
    """Write the corpus; returns what ``COMMONVOICE`` is set to."""
    folder = root / RELEASE / "en"
    durations = {}
    for split, clips in splits.items():
        durations.update(write_split(folder, split, clips))
    valid = [clip for split in ("train", "dev", "test") for clip in splits[split]]
    write_split(folder, "validated", valid)
    lines = [f"{name}\t{length}" for name, length in sorted(durations.items(), reverse=True)]
    write_lines(folder / "clip_durations.tsv", ["clip\tduration[ms]", *lines])
    return root / RELEASE
