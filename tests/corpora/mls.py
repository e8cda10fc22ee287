"""MLS (English) in miniature: lower case, a folder a speaker and book, FLAC or Opus."""

from pathlib import Path

from corpora.material import say, speech, write_audio, write_lines

# split → (speaker, book, numbers of its utterances, first sentence); 10 and 100 sort two ways
BOOKS = {
    "train": [
        (10, 1100, range(15), 200),
        (100, 1200, (0, 7), 215),
        (4800, 10003, (0, 1), 217),
    ],
    "dev": [(12, 1300, (0,), 219)],
    "test": [(10226, 10111, (0, 1), 220)],
}


def build(root: Path, audio: str = "flac") -> Path:
    """Write the corpus with audio in ``flac`` or ``opus``; returns what ``MLS`` is set to."""
    language = root / ("mls_english" if audio == "flac" else "mls_english_opus")
    about = ["SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   | TITLE | CHAPTER"]
    for split, books in BOOKS.items():
        transcripts, segments = [], []
        for speaker, book, numbers, first in books:
            about.append(f"  {speaker}  |  F  |  {split}  |  0.2  |  {book}  |  A Title  |  One")
            for sentence, number in enumerate(numbers, first):
                name = f"{speaker}_{book}_{number:06d}"
                path = language / split / "audio" / str(speaker) / str(book) / f"{name}.{audio}"
                write_audio(path, speech(sentence, speaker))
                transcripts.append(f"{name}\t{say(sentence)['en'].lower().rstrip('.')}")
                address = f"http://www.archive.org/download/book_{book}/a_{number}_64kb.mp3"
                segments.append(f"{name}\t{address}\t{number * 15.0}\t{number * 15.0 + 14.9}")
        write_lines(language / split / "transcripts.txt", transcripts)
        write_lines(language / split / "segments.txt", segments)
    write_lines(language / "metainfo.txt", about)
    limited = language / "train" / "limited_supervision"
    write_lines(limited / "9hr" / "handles.txt", ["4800_10003_000001"])
    write_lines(limited / "1hr" / "0" / "handles.txt", ["10_1100_000000", "100_1200_000007"])
    return root
