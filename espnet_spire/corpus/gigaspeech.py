"""GigaSpeech: 10,000 hours of English audiobooks, podcasts and YouTube, 16 kHz Opus.

Chen et al., Interspeech 2021, https://arxiv.org/abs/2106.06909; the metadata is under Apache 2.0,
the audio for research after an application: https://github.com/SpeechColab/GigaSpeech. XL (8.3M
segments) contains L, that M, that S, that XS; DEV and TEST are apart. In the paper it is for
continued pre-training and pseudo-labels, with its text made lower case and its tags punctuation
(Appendix A.1; it prints one of them as ``QUESTIONMARK>``).

Layout::

    GigaSpeech.json     {…, "audios": [{"aid", "path", …, "segments": [{"sid", "begin_time",
                            "end_time", "text_tn", "subsets": ["{XL}", …], …}, …]}, …]}
    audio/<source>/<folder>/<aid>.opus      recordings of minutes to hours, as "path" says

The JSON has more than a gigabyte and is read a recording at a time. It does not say who speaks
("N/A"): a recording counts as one speaker, though there may be several in it.

People who labelled DEV and TEST left no gaps: what is no speech is an utterance ``<SIL>``,
``<MUSIC>``, ``<NOISE>`` or ``<OTHER>``. The corpus's README says to discard these, its Kaldi
toolkit does so in all sets, and its scoring tool leaves the tags out. So they are left out here,
and listed.
"""

import codecs
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from espnet_spire.corpus.lines import open_binary, place
from espnet_spire.corpus.records import Corpus, Fault, Item, LeftOut, Split, Utterance, one_line
from espnet_spire.corpus.rules import gigaspeech_text
from espnet_spire.utils.errors import SpireError

_NO_SPEECH = {"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"}


def _metadata(root: Path, _split: str, _targets: List[str]) -> List[Path]:
    path = root / "GigaSpeech.json"
    if not path.is_file():
        raise SpireError(f"{path}: no such file")
    return [path]


def _recordings(path: Path) -> Iterator[Dict[str, Any]]:
    """Elements of ``audios``, one in memory at a time."""
    import ijson

    with open_binary(path) as stream:
        try:
            yield from ijson.items(stream, "audios.item", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            line = _line_not_utf8(path)
            if line is not None:
                raise SpireError(f"{place(path, line)}: not valid UTF-8; mend the file") from None
            reason = str(error).partition("\n")[0]
            raise SpireError(
                f"{path}: cut off or damaged JSON ({reason}); download it again"
            ) from None


def _line_not_utf8(path: Path) -> Optional[int]:
    """Number of the first line that is not UTF-8, if there is one; lines may be of any length."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    number = 1
    with open_binary(path) as stream:
        while block := stream.read(1 << 20):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return number + error.object[: error.start].count(b"\n")
            number += block.count(b"\n")
    return None


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    [path] = _metadata(root, split, targets)
    count = 0
    for count, recording in enumerate(_recordings(path), 1):
        # counted from 0, as programs that look into JSON do
        where = f"audios[{count - 1}]"
        try:
            name, audio = recording["aid"], str(root / recording["path"])
            segments = list(enumerate(recording["segments"]))
        except (KeyError, TypeError) as error:
            yield Fault(f"{path.name}:{where}", _lack(error), f"{path}, {where}")
            continue
        for number, segment in segments:
            place_in = f"{where}.segments[{number}]"
            try:
                if f"{{{split}}}" in segment["subsets"]:
                    yield _segment(segment, name, audio, f"{path}, {place_in}")
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                yield Fault(f"{path.name}:{place_in}", _lack(error), f"{path}, {place_in}")
    if count == 0:
        raise SpireError(f"{path}: has no 'audios'")


def _lack(error: Exception) -> str:
    """What an entry lacks that is none of a recording or a segment."""
    return f"has no {error}" if isinstance(error, KeyError) else f"is not as it should be: {error}"


def _segment(segment: Dict[str, Any], recording: str, audio: str, where: str) -> Item:
    """An utterance, or the mark that it is none; errors for what is missing or of another kind."""
    key, text = segment["sid"], segment["text_tn"]
    for word in text.upper().split():
        if word in _NO_SPEECH:
            return LeftOut(key, f"is no speech: {word} ({where})")
    return Utterance(
        key,
        audio,
        one_line(gigaspeech_text(text)),
        recording,
        where,
        recording=recording,
        start=float(segment["begin_time"]),
        end=float(segment["end_time"]),
    )


CORPUS = Corpus(
    name="gigaspeech",
    variable="GIGASPEECH",
    source="https://github.com/SpeechColab/GigaSpeech",
    splits=[
        *(Split(name) for name in ("XL", "L", "M", "S", "XS")),
        *(Split(name, whole=True) for name in ("DEV", "TEST")),
    ],
    read=_read,
    index=_metadata,
)
