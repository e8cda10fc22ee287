"""Europarl-ST in miniature: M4A speeches, segments of which several languages have the same."""

import os
import subprocess
from pathlib import Path

import numpy as np

from corpora.material import say, speech, write_audio, write_lines

RATE = 44100
_PAUSE = 0.25  # seconds
# split → (speech, speaker, numbers of its sentences)
SPEECHES = {
    "train": [
        ("en.20080924.31.3-243", "Nigel Farage_4525", (50, 51, 52)),
        ("en.20080924.4.3-018", "Diana Wallis_4557", (53,)),
    ],
    "dev": [("en.20090112.15.1-124", "Graham Watson_1952", (54,))],
    "test": [("en.20110118.9.2-081", "Sarah Ludford_4520", (55, 56))],
}
SPEECHES["train-noisy"] = [("en.20100519.2.2-009", "Syed Kamall_33569", (57,))]
# (language, sentence) that the language has no segment of
LACKING = {("fr", 51), ("fr", 55)}


def segments(number_of_speaker: int, numbers):
    """Samples of a speech, and start and end of its sentences in seconds."""
    parts, times, at = [np.zeros(int(_PAUSE * RATE), np.float32)], [], _PAUSE
    for number in numbers:
        samples = speech(number, number_of_speaker, RATE)
        # as the corpus gives them: two decimals
        length = round(len(samples) / RATE, 2)
        times.append((round(at, 2), round(at + length, 2)))
        parts += [samples, np.zeros(int(_PAUSE * RATE), np.float32)]
        at += (len(samples) + int(_PAUSE * RATE)) / RATE
    return np.concatenate(parts), times


def build(root: Path, *, m4a: bool = True, langs=("de", "fr", "it")) -> Path:
    """Write the corpus; returns what ``EUROPARL_ST`` is set to. M4A needs ``ffmpeg``."""
    audios = root / "v1.1" / "en" / "audios"
    for split, speeches in SPEECHES.items():
        times = {}
        for position, (name, _, numbers) in enumerate(speeches):
            samples, times[name] = segments(position, numbers)
            wav = write_audio(audios / f"{name}.wav", samples, RATE)
            if m4a:
                command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav]
                subprocess.run([*command, "-c:a", "aac", wav.with_suffix(".m4a")], check=True)
                wav.unlink()
        for lang in langs:
            folder = root / "v1.1" / "en" / lang / split
            rows = [
                (f"{name} {start:.2f} {end:.2f}", say(number)["en"], say(number)[lang])
                for name, _, numbers in speeches
                for number, (start, end) in zip(numbers, times[name], strict=True)
                if (lang, number) not in LACKING
            ]
            for file, lines in zip(("lst", "en", lang), zip(*rows, strict=True), strict=True):
                write_lines(folder / f"segments.{file}", lines)
            write_lines(folder / "speeches.lst", [name for name, _, _ in speeches])
            write_lines(folder / "speakers.lst", [speaker for _, speaker, _ in speeches])
    return root


def with_ffmpeg(folder: Path) -> str:
    """A ``PATH`` with imageio-ffmpeg's binary as ``ffmpeg``, through a link in ``folder``."""
    import imageio_ffmpeg

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return f"{folder}:{os.environ['PATH']}"
