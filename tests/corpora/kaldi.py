"""Recipe directories as Kaldi's and ESPnet's data preparation leaves them, extras included.

Audio is in ``downloads/``; tables have its names relative to the recipe directory.
"""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
TEXTS = {
    "spk1-a": ("The house is red.", "Das Haus ist rot."),
    "spk1-b": ("He sees two dogs.", "Er sieht zwei Hunde."),
    "spk2-c": ("It rains, again!", "Es regnet, wieder!"),
}


def ramp(start: int, count: int = 8000) -> np.ndarray:
    """Samples that say where they are, exact in 16 bits; int16, shape (count,)."""
    return np.arange(start, start + count, dtype=np.int16)


def write_table(path: Path, table: dict) -> Path:
    """Lines in the order of ``table``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {value}\n" for key, value in table.items()), encoding="utf-8")
    return path


def plain(text: str) -> str:
    """As ``lc.rm``: lower case, no punctuation."""
    return "".join(char for char in text.lower() if char.isalnum() or char == " ")


def audio(recipe: Path) -> dict:
    """Key → name relative to the recipe; utterance n has samples n*1000 …"""
    found = {}
    for number, key in enumerate(TEXTS):
        name = f"downloads/my audio/{key}.wav"
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(recipe / name, ramp(1000 * number), RATE, subtype="PCM_16")
        found[key] = name
    return found


def write_st_set(recipe: Path, name: str, wav_scp: dict, keys=tuple(TEXTS)) -> Path:
    """``data/<name>`` as egs2/*/st1 leave it, English to German."""
    data = recipe / "data" / name
    (recipe / "path.sh").touch()
    texts = {key: TEXTS[key][0] for key in keys}
    german = {key: TEXTS[key][1] for key in keys}
    write_table(data / "wav.scp", wav_scp)
    for lang, table in (("en", texts), ("de", german)):
        write_table(data / f"text.tc.{lang}", table)
        lower = {key: text.lower() for key, text in table.items()}
        write_table(data / f"text.lc.{lang}", lower)
        write_table(data / f"text.lc.rm.{lang}", {key: plain(text) for key, text in table.items()})
    write_table(data / "text", {key: plain(text) for key, text in texts.items()})
    write_table(data / "utt2spk", {key: key.split("-")[0] for key in keys})
    write_extras(data, keys)
    return data


def write_extras(data: Path, keys=tuple(TEXTS)) -> None:
    """What else Kaldi's scripts leave in a data directory."""
    speakers = sorted({key.split("-")[0] for key in keys})
    by_speaker = {s: " ".join(key for key in keys if key.startswith(s)) for s in speakers}
    write_table(data / "spk2utt", by_speaker)
    write_table(data / "spk2gender", {speaker: "f" for speaker in speakers})
    write_table(data / "utt2uniq", {key: key for key in keys})
    write_table(data / "feats.scp", {key: "/gone/raw_mfcc.1.ark:12" for key in keys})
    write_table(data / "cmvn.scp", {speaker: "/gone/cmvn.ark:5" for speaker in speakers})
    write_table(data / "utt2num_frames", {key: 48 for key in keys})
    write_table(data / "conf" / "mfcc.conf", {"--use-energy=false": ""})
    write_table(data / "split2" / "1" / "utt2spk", {keys[0]: "spk1"})
    write_table(data / ".backup" / "text", {keys[0]: "old"})
    (data / "frame_shift").write_text("0.01\n")
    write_table(data / "utt2dur", {key: 0.5 for key in keys})
