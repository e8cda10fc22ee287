"""Kaldi's data directories: tables sorted by key in the C locale, UTF-8, validated when read.

``wav.scp``, ``text``, ``utt2spk``, ``spk2utt``, ``segments``, ``utt2num_samples`` as Kaldi and
ESPnet define them; ``text.tc.<lang>`` holds the true-cased translation into ``<lang>``, as in
ESPnet's speech translation recipes; ``rejected.tsv`` lists what a stage refused:
key, tab, reason.

A set of text alone (a test set of translation) has neither ``wav.scp`` nor ``text``: all of its
tables are ``text.<what>``, each with the same keys, ``text.tc.<lang>`` for each language.
"""

from pathlib import Path
from typing import IO, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.rejected import rejected_line

WAV_SCP = "wav.scp"
SEGMENTS = "segments"
TEXT = "text"
UTT2SPK = "utt2spk"
SPK2UTT = "spk2utt"
NUM_SAMPLES = "utt2num_samples"
REJECTED = "rejected.tsv"
# What a directory with speech has; none of them is in a set of text alone.
_OF_SPEECH = (WAV_SCP, SEGMENTS, TEXT, UTT2SPK)
# Unicode's LINE SEPARATOR: in ``text.<lang>`` of monolingual text it stands for a line break of the
# text, since a table has one line for each.
LINE_BREAK = "\u2028"


def translation_file(lang: str) -> str:
    """Name of the file with the true-cased translations into ``lang``."""
    return f"text.tc.{lang}"


def iter_table(
    path: PathLike,
    *,
    allow_empty_value: bool = False,
    start: int = 0,
    end: Optional[int] = None,
) -> Iterator[Tuple[str, str]]:
    """Yield ``(key, value)`` of a Kaldi table, one line in memory at a time.

    Args:
        start, end: bytes between which whole lines are read; by default all. Messages count lines
            from ``start``.

    Raises:
        SpireError: missing file, not UTF-8, blank line, missing value, key repeated or out of
            order; it names the file, the line and the key.
    """
    previous = None
    line_number = 0
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SpireError(f"{path}: is a directory, a Kaldi table was expected") from None
    with stream:
        stream.seek(start)
        for line_number, raw in enumerate(stream, 1):
            if end is not None:
                if start >= end:
                    return
                start += len(raw)
            where = f"{path}, line {line_number}"
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise SpireError(f"{where}: not valid UTF-8; convert the file") from None
            # Kaldi separates by ASCII white space only: an ideographic space belongs to the text.
            fields = line.replace("\t", " ").strip(" ").split(" ", 1)
            key = fields[0]
            value = fields[1].strip(" ") if len(fields) == 2 else ""
            if not key:
                raise SpireError(f"{where}: empty line; remove it")
            if not value and not allow_empty_value:
                raise SpireError(f"{where}: key {key} has no value")
            if previous is not None and key <= previous:
                reason = "is there twice" if key == previous else f"comes after {previous}"
                raise SpireError(
                    f"{where}: key {key} {reason}; keys must be unique and sorted (LC_ALL=C sort)"
                )
            previous = key
            yield key, value


def key_of_line(line: bytes) -> bytes:
    """As :func:`iter_table` finds it; bytes of UTF-8 compare as the characters do."""
    return line.replace(b"\t", b" ").strip(b" \r\n").split(b" ", 1)[0]


def find_key(handle: IO[bytes], key: bytes, low: int, high: int) -> int:
    """The byte at which the first line with this key or a later one begins.

    Args:
        handle: a table sorted by key.
        low: where some line before it, or it itself, begins.
        high: the size of the table, which is the answer if there is no such line.
    """
    found = high
    while low < high:
        middle = (low + high) // 2
        start = middle
        if middle > low:  # to the first line that begins at middle or after
            handle.seek(middle - 1)
            start = middle - 1 + len(handle.readline())
        if start >= found:
            high = middle
            continue
        handle.seek(start)
        line = handle.readline()
        if key_of_line(line) < key:
            low = start + len(line)
        else:
            found, high = start, middle
    return found


def read_table(path: PathLike, *, allow_empty_value: bool = False) -> Dict[str, str]:
    """:func:`iter_table` as a dictionary (in file order)."""
    return dict(iter_table(path, allow_empty_value=allow_empty_value))


def write_table(path: PathLike, table: Mapping[str, str]) -> None:
    """Write a table sorted by key in the C locale, atomically.

    Python compares strings by code point, which for UTF-8 is the C locale's byte order.
    """
    with atomic_write(path) as stream:
        for key in sorted(table):
            stream.write(table_line(path, key, table[key]))


def table_line(path: PathLike, key: str, value: str) -> str:
    """A line of the table ``path``, its end included."""
    if not key or " " in key or "\t" in key or "\n" in key or "\n" in value:
        raise SpireError(f"{path}: key {key!r} or its value cannot stand in a table")
    return f"{key} {value}\n" if value else f"{key}\n"


def write_rejected(path: PathLike, rejected: Mapping[str, str]) -> None:
    """Write ``key<TAB>reason`` lines, sorted; an empty mapping leaves an empty file."""
    with atomic_write(path) as stream:
        for key in sorted(rejected):
            stream.write(rejected_line(key, rejected[key]))


def read_rejected(path: PathLike) -> Dict[str, str]:
    """Read what :func:`write_rejected` wrote."""
    return dict(iter_rejected(path))


def iter_rejected(path: PathLike, first: Optional[str] = None) -> Iterator[Tuple[str, str]]:
    """:func:`read_rejected`, one line in memory at a time.

    Args:
        first: begin at this key, or where it would stand, in a sorted file; messages count lines
            from there.
    """
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    with stream:
        if first is not None:
            size = stream.seek(0, 2)
            stream.seek(find_key(stream, first.encode(), 0, size))
        for number, raw in enumerate(stream, 1):
            line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            key, tab, reason = line.partition("\t")
            if not key or not tab:
                raise SpireError(f"{path}, line {number}: {line[:40]!r} is not 'key, tab, reason'")
            yield key, reason


def speakers_to_utterances(utt2spk: Mapping[str, str]) -> Dict[str, str]:
    """Invert ``utt2spk`` into Kaldi's ``spk2utt``."""
    result: Dict[str, List[str]] = {}
    for utterance in sorted(utt2spk):
        result.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(utterances) for speaker, utterances in result.items()}


def write_data_dir(
    directory: PathLike,
    tables: Mapping[str, Mapping[str, str]],
) -> None:
    """Write tables (file name → table) into ``directory``, and ``spk2utt`` from ``utt2spk``."""
    directory = Path(directory)
    tables = dict(tables)
    if UTT2SPK in tables:
        tables[SPK2UTT] = speakers_to_utterances(tables[UTT2SPK])
    for name, table in tables.items():
        write_table(directory / name, table)


def match_table(
    directory: PathLike, name: str, keys: Iterable[str], reference: str, *, partial: bool = False
) -> Iterator[Tuple[str, Optional[str]]]:
    """Yield each key with its value in ``directory/name``, one line in memory at a time.

    Args:
        keys: sorted; of ``reference``. The table must have these and no others.
        partial: it may lack some, whose value is ``None``, as translations of speech do.

    Raises:
        SpireError: a key is missing, or is not in ``reference``.
    """
    path = Path(directory) / name
    rows = iter_table(path, allow_empty_value=name.startswith("text"))
    found, value = next(rows, (None, None))
    for key in keys:
        if found == key:
            yield key, value
            found, value = next(rows, (None, None))
            continue
        if found is not None and found < key:
            break
        if not partial:
            raise SpireError(f"{path}: utterance {key} of {reference} is missing")
        yield key, None
    if found is not None:
        raise SpireError(f"{path}: utterance {found} is not in {reference}")


def check_table(
    directory: PathLike, name: str, keys: Iterable[str], reference: str, *, partial: bool = False
) -> int:
    """The checks of :func:`match_table` alone; returns how many keys there are."""
    matched = match_table(directory, name, keys, reference, partial=partial)
    return sum(1 for _ in matched)


def translation_tables(directory: PathLike) -> List[str]:
    """Names of the tables of translations that are there, sorted."""
    return sorted(path.name for path in Path(directory).glob(translation_file("*")))


def text_tables(directory: PathLike) -> List[str]:
    """Names of the tables of a set of text alone; none if the directory is for speech."""
    directory = Path(directory)
    if any((directory / name).exists() for name in _OF_SPEECH):
        return []
    return sorted(path.name for path in directory.glob(f"{TEXT}.*"))


def language_file(directory: PathLike, lang: str, speech_lang: str) -> Path:
    """The table with a set's text in a language, be it there or not: transcripts or translations.

    Args:
        speech_lang: language that is spoken, if the set has speech.
    """
    directory = Path(directory)
    spoken = lang == speech_lang and not text_tables(directory)
    return directory / (TEXT if spoken else translation_file(lang))


def keys_table(directory: PathLike) -> str:
    """Name of the table that says which utterances there are.

    ``segments``, else ``wav.scp``; of a set of text alone its first table.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such data directory")
    of_text = text_tables(directory)
    if of_text:
        return of_text[0]
    return SEGMENTS if (directory / SEGMENTS).exists() else WAV_SCP


def iter_keys(directory: PathLike) -> Iterator[str]:
    """The utterances of a data directory, see :func:`keys_table`, one in memory at a time."""
    directory = Path(directory)
    source = keys_table(directory)
    text_alone = source.startswith(f"{TEXT}.")
    empty = True
    for key, _ in iter_table(directory / source, allow_empty_value=text_alone):
        empty = False
        yield key
    if empty:
        raise SpireError(f"{directory / source}: the data set is empty")


def utterance_keys(directory: PathLike) -> List[str]:
    """:func:`iter_keys` as a list."""
    return list(iter_keys(directory))


def validate_data_dir(directory: PathLike, *, need_text: bool = True) -> int:
    """Check a data directory as ``utils/validate_data_dir.sh`` would; return its utterances.

    Every table that is there must have the same utterances, though not each of them a translation;
    ``utt2spk`` must be there, but not in a set of text alone, in which all have all languages. The
    recordings of ``segments`` are in memory, of all else one line at a time.
    """
    directory = Path(directory)
    count = sum(1 for _ in iter_keys(directory))
    source = keys_table(directory)
    names, translations = text_tables(directory), []
    if not names:
        names = [UTT2SPK] + ([TEXT] if need_text else [])
        if (directory / NUM_SAMPLES).exists():
            names.append(NUM_SAMPLES)
        translations = translation_tables(directory)
    reference = f"{directory.name}/{source}"
    for name in names + translations:
        check_table(directory, name, iter_keys(directory), reference, partial=name in translations)
    if source == SEGMENTS:
        recordings = {key for key, _ in iter_table(directory / WAV_SCP)}
        for key, value in iter_table(directory / SEGMENTS):
            recording = value.split()[0]
            if recording not in recordings:
                raise SpireError(
                    f"{directory / SEGMENTS}: recording {recording} of {key} is not in wav.scp"
                )
    return count


def shard_of(items: List, num_shards: int, shard: int) -> List:
    """Every ``num_shards``-th item from number ``shard`` (counted from 1).

    Interleaved, so that a set sorted by speaker or length gives shards of about equal work.
    """
    return items[shard - 1 :: num_shards]
