"""What the corpora in miniature are made of: sentences in ten languages, spoken by eSpeak NG.

Builders of this folder lay them out as the real corpora do, file names and quirks included.
"""

import functools
from pathlib import Path

import numpy as np
import soundfile

from espnet_spire.mini.espeak import SAMPLE_RATE, synthesize
from espnet_spire.mini.grammar import NUM_SENTENCES, sentence

VOICES = ("en-us+f3", "en-us+m3", "en-us+f4", "en-us+m7", "en-gb-x-rp+f5", "en-gb-scotland+m5")
# Of the languages that the grammar lacks: endings that make other words of the English ones.
_ENDINGS = {"es": "o", "it": "i", "ko": "yo", "nl": "en", "pt": "ão", "ru": "ов"}
# Far apart in the grammar, which varies the place first: the words of neighbours are the same.
_STRIDE = 1237


def say(number: int) -> dict:
    """Sentence ``number`` in ten languages; any number has one, 8000 in a row differ."""
    found = dict(sentence(number * _STRIDE % NUM_SENTENCES))
    for lang, ending in _ENDINGS.items():
        found[lang] = " ".join(f"{word.rstrip('.')}{ending}" for word in found["en"].split()) + "."
    return found


@functools.lru_cache(maxsize=1024)
def speech(number: int, speaker: int, rate: int = 16000) -> np.ndarray:
    """Sentence ``number`` in the voice of ``speaker``; float32, shape (samples,)."""
    samples = synthesize(say(number)["en"], VOICES[speaker % len(VOICES)], rate=200)
    samples = samples.astype(np.float32) / 32768
    times = np.arange(int(len(samples) * rate / SAMPLE_RATE)) * (SAMPLE_RATE / rate)
    return np.interp(times, np.arange(len(samples)), samples).astype(np.float32)


def write_audio(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """Write WAV, FLAC, MP3, Ogg or Opus, by the name; return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, samples, rate, **opus)
    return path


def write_lines(path: Path, lines) -> Path:
    """Write lines in UTF-8; return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
