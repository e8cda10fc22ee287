"""VoxPopuli, English: 543 hours of the European Parliament, with casing and punctuation.

Wang et al., ACL 2021, https://arxiv.org/abs/2101.00390; CC0, with the Parliament's legal notice;
https://github.com/facebookresearch/voxpopuli. Here it is for continued pre-training and one of the
paper's test sets (Table 2).

Layout, either what the corpus's own ``get_asr_data`` makes, which goes first::

    transcribed_data/en/asr_<train|dev|test>.tsv    id raw_text normalized_text speaker_id split
                                                    gender [is_gold_transcript accent]; no quoting
                        <year>/<id>.ogg             <id> is <session>-<id_> of the annotations

or what it is made from, whole sessions with annotations (read as Python's ``csv`` does)::

    transcribed_data/en/asr_en.tsv.gz               id_|…|session_id|speaker_id|original_text|
      (also in the root or annotations/asr/)        normed_text|…|start_time|end_time|…|split|…
    raw_audios/original/<year>/<session>_original.ogg    or  raw_audios/en/<year>/<session>_en.ogg

Utterances have the same names in both. Of a session an utterance is all from its start to its end,
as lhotse has it; the files of the first layout lack the pauses in it.

Some utterances have no raw text: theirs is the normalised one (lower case, no punctuation), and the
log says how many these are. Some have no speaker: the unknown ones of a session are one.
"""

import logging
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from espnet_spire.corpus.lines import read_columns
from espnet_spire.corpus.records import Corpus, Fault, Item, Split, Utterance, one_line
from espnet_spire.utils.errors import SpireError

_CUT = Path("transcribed_data", "en")
_ANNOTATIONS = [
    folder / f"asr_en.tsv{suffix}"
    for folder in (_CUT, Path("."), Path("annotations", "asr"))
    for suffix in (".gz", "")
]
# Its own program cuts utterances from the first.
_SESSIONS = ("original", "en")
# 20130114-0900-PLENARY-1 of 20130114-0900-PLENARY-1-en_20130114-17:12:30_0
_SESSION = re.compile(r"(.+?)-[a-z]{2}_.*")
_NOBODY = {"", "none", "nan"}


class _Layout(NamedTuple):
    """How a table is to be read: names of its columns, and what says where the audio is."""

    raw: str
    normalised: str
    needed: List[str]
    delimiter: str
    name: Callable[[Dict[str, str]], str]
    audio: Callable[[Dict[str, str]], Dict[str, Any]]


def _index(root: Path, split: str, _targets: List[str]) -> List[Path]:
    for path in (_CUT / f"asr_{split}.tsv", *_ANNOTATIONS):
        if (root / path).is_file():
            return [root / path]
    raise SpireError(f"{root}: no {_CUT}/asr_{split}.tsv and no {_ANNOTATIONS[0]} there")


def _cut(folder: Path) -> _Layout:
    """Utterances in files of their own, in ``folder``."""
    return _Layout(
        raw="raw_text",
        normalised="normalized_text",
        needed=["id"],
        delimiter="\t",
        name=lambda row: row["id"],
        audio=lambda row: {"audio": f"{folder}/{row['id'][:4]}/{row['id']}.ogg"},
    )


def _in_sessions(root: Path) -> _Layout:
    """Utterances in recordings of sessions."""
    kinds = [kind for kind in _SESSIONS if (root / "raw_audios" / kind).is_dir()]
    if not kinds:
        raise SpireError(f"{root / 'raw_audios'}: has no {_SESSIONS[0]}/ and no {_SESSIONS[1]}/")
    [kind, *_] = kinds

    def audio(row: Dict[str, str]) -> Dict[str, Any]:
        session = row["session_id"]
        path = f"{root}/raw_audios/{kind}/{session[:4]}/{session}_{kind}.ogg"
        times = {"start": float(row["start_time"]), "end": float(row["end_time"])}
        return {"audio": path, "recording": session, **times}

    return _Layout(
        raw="original_text",
        normalised="normed_text",
        needed=["id_", "session_id", "start_time", "end_time", "split"],
        delimiter="|",
        name=lambda row: f"{row['session_id']}-{row['id_']}",
        audio=audio,
    )


def _read(root: Path, split: str, targets: List[str]) -> Iterator[Item]:
    [table] = _index(root, split, targets)
    cut = table == root / _CUT / f"asr_{split}.tsv"
    layout = _cut(table.parent) if cut else _in_sessions(root)
    count = without_raw = 0
    for row in read_columns(
        table,
        needed=[*layout.needed, layout.raw, layout.normalised, "speaker_id"],
        delimiter=layout.delimiter,
        quoted=not cut,
    ):
        if isinstance(row, Fault):
            yield row
            continue
        columns = row.columns
        # which has "invalid" ones besides those of the splits
        if not cut and columns["split"] != split:
            continue
        count += 1
        text = one_line(columns[layout.raw])
        if not text:
            text = one_line(columns[layout.normalised])
            without_raw += 1
        name = layout.name(columns)
        session = _SESSION.fullmatch(name)
        nobody = session[1] if session else name
        speaker = columns["speaker_id"].strip()
        known = speaker.lower() not in _NOBODY
        key = f"{speaker}-{name}" if known else name
        try:
            audio = layout.audio(columns)
        except ValueError as error:
            yield Fault(key, f"its times are none: {error}", row.where)
            continue
        yield Utterance(
            key=key, text=text, speaker=speaker if known else nobody, where=row.where, **audio
        )
    logging.info(
        "voxpopuli %s: %s of %s utterances have no raw text; theirs is the normalised one",
        split,
        f"{without_raw:,}",
        f"{count:,}",
    )


CORPUS = Corpus(
    name="voxpopuli",
    variable="VOXPOPULI",
    source="https://github.com/facebookresearch/voxpopuli",
    splits=[Split("train"), Split("dev", whole=True), Split("test", whole=True)],
    read=_read,
    index=_index,
)
