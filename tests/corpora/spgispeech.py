"""SPGISpeech in miniature: tables with a header, separated by ``|``, and a folder a call."""

from pathlib import Path

from corpora.material import say, speech, write_audio, write_lines

HEADER = "wav_filename|wav_filesize|transcript"
# split → (call, numbers of its slices, first sentence)
CALLS = {
    "train": [
        ("07a785e9237c389c1354bb60abca42d5", (1, 2, 10), 100),
        ("13aa6c0669adb5544a0d62beef677189", (75,), 103),
    ],
    "val": [("0018ad922e541b415ae60e175160b976", (118, 3), 104)],
}


def build(root: Path) -> Path:
    """Write the corpus, tables beside ``spgispeech/``; returns what ``SPGISPEECH`` is set to."""
    for split, calls in CALLS.items():
        lines = [HEADER]
        for speaker, (call, numbers, first) in enumerate(calls):
            for sentence, number in enumerate(numbers, first):
                name = f"{call}/{number}.wav"
                path = root / "spgispeech" / split / name
                write_audio(path, speech(sentence, speaker))
                lines.append(f"{name}|{path.stat().st_size}|{say(sentence)['en']}")
        write_lines(root / f"{split}.csv", lines)
    return root
