"""VoxPopuli (English) in miniature: its cut utterances, or whole sessions with annotations."""

import csv
import gzip
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from corpora.material import say, speech, write_audio, write_lines

HEADER = ("id", "raw_text", "normalized_text", "speaker_id", "split", "gender")
NEWER = ("is_gold_transcript", "accent")
ANNOTATED = (
    "id_|paragraph_id|session_id|speaker_id|original_text|normed_text|decoded|start_time|end_time"
    "|cer|wer|vad|split|gender"
).split("|")
RATE = 16000


class Spoken(NamedTuple):
    session: str
    name: str
    speaker: str
    split: str
    number: int
    raw: str
    normalised: str


# A session, its date and time, and (split, speaker, sentence) of what is said in it.
SESSIONS = [
    ("20130114-0900-PLENARY-1", "20130114-17:12", [("train", "4747", 400), ("train", "96", 401)]),
    (
        "20130114-0900-PLENARY-13",
        "20130114-19:00",
        [("train", "None", 402), ("invalid", "4747", 403), ("train", "", 404)],
    ),
    ("20160301-0900-PLENARY-2", "20160301-09:05", [("dev", "28115", 405)]),
    ("20180206-0900-PLENARY-15", "20180206-16:10", [("test", "124", 406), ("test", "None", 407)]),
]


def spoken() -> Iterator[Spoken]:
    """All that is said; one in five has no raw text, others have quotes and dashes in it."""
    for session, time, parts in SESSIONS:
        for place, (split, speaker, number) in enumerate(parts):
            raw = ["", "“{}” – indeed, Mr President…", '"{}" he said', "{}", "{}"][number % 5]
            raw = raw.format(say(number)["en"])
            normalised = say(number)["en"].rstrip(".").lower()
            yield Spoken(
                session, f"en_{time}:{place:02d}_{place}", speaker, split, number, raw, normalised
            )


def build(root: Path, *, sessions: bool = False, kind: str = "original") -> Path:
    """Write the corpus; returns what ``VOXPOPULI`` is set to.

    Args:
        sessions: whole sessions of ``kind`` (original or en) with ``asr_en.tsv.gz``, else the
            utterances as the corpus's own program cuts them.
    """
    folder = root / "transcribed_data" / "en"
    if sessions:
        _write_sessions(root, folder, kind)
        return root
    tables = {split: ["\t".join(HEADER + NEWER)] for split in ("train", "dev", "test")}
    for item in spoken():
        if item.split in tables:
            name = f"{item.session}-{item.name}"
            write_audio(folder / item.session[:4] / f"{name}.ogg", speech(item.number, item.number))
            row = [name, item.raw, item.normalised, item.speaker, item.split, "female"]
            tables[item.split].append("\t".join([*row, "True", "None"]))
    for split, lines in tables.items():
        write_lines(folder / f"asr_{split}.tsv", lines)
    return root


def _write_sessions(root: Path, folder: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    pieces: dict = {}
    with gzip.open(folder / "asr_en.tsv.gz", "wt", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ANNOTATED, delimiter="|", lineterminator="\n")
        table.writeheader()
        for item in spoken():
            said = speech(item.number, item.number)
            before = pieces.setdefault(item.session, [])
            begin = sum(map(len, before)) / RATE
            before += [said, np.zeros(RATE // 2, np.float32)]
            row = {"id_": item.name, "session_id": item.session, "speaker_id": item.speaker}
            row.update(original_text=item.raw, normed_text=item.normalised, split=item.split)
            row.update(start_time=round(begin, 3), end_time=round(begin + len(said) / RATE, 3))
            row.update(vad=[(begin, begin + len(said) / RATE)], gender="female", cer=0.0, wer=0.0)
            table.writerow(row)
    for session, parts in pieces.items():
        path = root / "raw_audios" / kind / session[:4] / f"{session}_{kind}.ogg"
        write_audio(path, np.concatenate(parts))
