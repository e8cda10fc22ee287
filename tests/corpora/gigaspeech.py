"""GigaSpeech in miniature: one JSON, long Opus recordings, tags, segments in several subsets."""

import json
from pathlib import Path

import numpy as np

from corpora.material import say, speech, write_audio

ALL = ("XL", "L", "M", "S", "XS")
# aid → (source, (text or number of a sentence, subsets) of its segments); "" says nothing
RECORDINGS = {
    "POD0000000001": (
        "podcast",
        [(300, ALL), ("<MUSIC>", ("XL", "L")), (301, ("XL", "L")), (302, ("XL",))],
    ),
    "YOU0000000002": (
        "youtube",
        [(303, ("DEV",)), ("<NOISE>", ("DEV",)), ("<SIL>", ("DEV",)), (304, ("DEV",))],
    ),
    "AUD0000000003": ("audiobook", [(305, ("TEST",)), ("<OTHER>", ("TEST",)), (306, ("XL",))]),
}
MARKS = (" <COMMA>", " <PERIOD>", " <QUESTIONMARK>", " <EXCLAMATIONPOINT>")
RATE = 16000


def written(number: int) -> str:
    """As GigaSpeech writes: upper case, tags in place of punctuation; all four of them occur."""
    words = say(number)["en"].rstrip(".").upper().split()
    return " ".join([*words[:2], "<COMMA>", *words[2:]]) + MARKS[number % len(MARKS)]


def build(root: Path) -> Path:
    """Write the corpus; returns what ``GIGASPEECH`` is set to."""
    audios = []
    for speaker, (aid, (source, parts)) in enumerate(RECORDINGS.items()):
        pieces, segments, begin = [], [], 0.0
        for place, (content, subsets) in enumerate(parts):
            tagged = isinstance(content, str)
            piece = np.zeros(RATE, np.float32) if tagged else speech(content, speaker)
            end = begin + len(piece) / RATE
            segments.append(
                {
                    "sid": f"{aid}_S{place:07d}",
                    "speaker": "N/A",
                    "begin_time": round(begin, 3),
                    "end_time": round(end, 3),
                    "text_raw": "",
                    "text_tn": content if tagged else written(content),
                    "subsets": [f"{{{subset}}}" for subset in subsets],
                }
            )
            pieces += [piece, np.zeros(RATE // 4, np.float32)]
            begin = end + 0.25
        path = f"audio/{source}/{aid[0]}0001/{aid}.opus"
        write_audio(root / path, np.concatenate(pieces))
        audios.append(
            {
                "title": 'Café "Zoë"',
                "url": f"https://example.org/{aid}",
                "path": path,
                "aid": aid,
                "source": source,
                "format": "opus",
                "sample_rate": RATE,
                "codec": "s16le",
                "channels": 1,
                "md5": "a1eb19f5bc68d4af71f65a3e8d700343",
                "duration": round(begin, 3),
                "size": (root / path).stat().st_size,
                "speaker": "N/A",
                "category": "Arts",
                "subsets": sorted({tag for segment in segments for tag in segment["subsets"]}),
                "segments": segments,
            }
        )
    metadata = {"dataset": "GigaSpeech", "language": "EN", "version": "v1.0.0", "audios": audios}
    text = json.dumps(metadata, ensure_ascii=False, indent=2)
    (root / "GigaSpeech.json").write_text(text + "\n", encoding="utf-8")
    return root
