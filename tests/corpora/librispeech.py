"""LibriSpeech in miniature: FLAC files, one ``*.trans.txt`` a chapter, upper case."""

from pathlib import Path

from corpora.material import say, speech, write_audio, write_lines

# split → (speaker, chapter, numbers of the sentences)
CHAPTERS = {
    "test-clean": [(1089, 134686, (0, 1)), (121, 121726, (2,))],
    "test-other": [(367, 130732, (3, 4))],
    "dev-clean": [(84, 121123, (5,))],
    "train-clean-100": [(103, 1240, (6, 7))],
}


def spoken(text: str) -> str:
    """As LibriSpeech writes: upper case, no punctuation."""
    return text.upper().replace(".", "").replace(",", "")


def build(root: Path) -> Path:
    """Write the corpus; returns what ``LIBRISPEECH`` is set to."""
    for split, chapters in CHAPTERS.items():
        for speaker, chapter, numbers in chapters:
            folder = root / "LibriSpeech" / split / str(speaker) / str(chapter)
            lines = []
            for position, number in enumerate(numbers):
                key = f"{speaker}-{chapter}-{position:04d}"
                write_audio(folder / f"{key}.flac", speech(number, speaker))
                lines.append(f"{key} {spoken(say(number)['en'])}")
            write_lines(folder / f"{speaker}-{chapter}.trans.txt", lines)
    write_lines(root / "LibriSpeech" / "SPEAKERS.TXT", ["; ID | SEX | SUBSET | MINUTES | NAME"])
    return root
