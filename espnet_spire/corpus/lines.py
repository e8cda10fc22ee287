"""Lines and columns of a corpus's own files, with the place of whatever is wrong in them."""

import csv
import gzip
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

from espnet_spire.corpus.records import Fault
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

# What an archive that was cut off or damaged raises, and when.
ARCHIVE_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, tarfile.ReadError)
_LONGEST_FIELD = 1 << 30  # characters


class CutOff(SpireError):
    """An archive was cut off or damaged; what came before can be used."""


class Line(NamedTuple):
    """A line without its end; ``number`` from 1."""

    number: int
    text: str
    where: str


class Row(NamedTuple):
    """The columns of a line by name."""

    columns: Dict[str, str]
    where: str
    number: int


def place(path: PathLike, number: int) -> str:
    """How messages name a line."""
    return f"{path}, line {number}"


def open_binary(path: PathLike) -> BinaryIO:
    """Open a file for reading, decompressed if its name ends in ``.gz`` or ``.xz``.

    Of ``.tar.gz`` it is the first file.
    """
    path = Path(path)
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        return _open_tar(path) if path.name.endswith(".tar.gz") else opener(path, "rb")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SpireError(f"{path}: is a directory, a file was expected") from None


def _open_tar(path: Path) -> BinaryIO:
    try:
        archive = tarfile.open(path, "r:gz")  # noqa: SIM115  # closed with what is read of it
        for member in archive:
            if member.isfile():
                return archive.extractfile(member)
    except ARCHIVE_ERRORS as error:
        raise cut_off(path, error) from None
    raise SpireError(f"{path}: there is no file in it")


def cut_off(path: PathLike, error: Exception) -> CutOff:
    """What to raise for an archive that raised one of :data:`ARCHIVE_ERRORS`."""
    return CutOff(f"{path}: cut off or damaged ({error}); download it again")


def read_lines(path: PathLike) -> Iterator[Union[Line, Fault]]:
    """Lines of a text file; one that is not UTF-8 is a fault. One is in memory at a time.

    Only ``\\n`` and ``\\r\\n`` end lines, and a byte order mark at the beginning is passed over.

    Raises:
        SpireError: there is no such file, or it is compressed and was cut off.
    """
    with open_binary(path) as stream:
        yield from lines_of(stream, path)


def lines_of(stream: BinaryIO, path: PathLike) -> Iterator[Union[Line, Fault]]:
    """:func:`read_lines` of an open file, which messages call ``path``."""
    number, path = 0, str(path)
    try:
        for number, raw in enumerate(stream, 1):
            where = place(path, number)
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield Fault(
                    f"{Path(path).name}:{number}", f"not valid UTF-8 ({error.reason})", where
                )
                continue
            yield Line(number, text.rstrip("\r\n"), where)
    except ARCHIVE_ERRORS as error:
        raise cut_off(path, error) from None


def _quoted_fields(delimiter: str) -> Callable[[str], List[str]]:
    # The limit of 128 KiB a field is below what VoxPopuli's annotations need.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    return lambda text: next(csv.reader([text], delimiter=delimiter), [])


def read_columns(
    path: PathLike,
    *,
    needed: Sequence[str],
    names: Optional[List[str]] = None,
    delimiter: str = "\t",
    quoted: bool = False,
) -> Iterator[Union[Row, Fault]]:
    """Rows of a table; blank lines are passed over.

    Args:
        needed: columns that must be there.
        names: of the columns of a file without a header; ``None``: the first line has them.
        delimiter: between columns.
        quoted: columns may stand in double quotes, as Python's ``csv`` writes them; by default a
            quote is text. A row is one line either way, so that a quote without its other ends no
            more than its own row.

    Yields:
        a fault for a line with another number of columns: a delimiter within a text shifts the
        columns after it.

    Raises:
        SpireError: a needed column is missing, the file is empty, or see :func:`read_lines`.
    """
    header = names
    split = _quoted_fields(delimiter) if quoted else lambda text: text.split(delimiter)
    for line in read_lines(path):
        if isinstance(line, Fault):
            if header is None:
                raise SpireError(f"{line.where}: {line.reason}; convert the file")
            yield line
            continue
        try:
            fields = split(line.text)
        except csv.Error as error:
            if header is None:
                raise SpireError(f"{line.where}: not readable: {error}") from None
            yield Fault(f"{Path(path).name}:{line.number}", f"not readable: {error}", line.where)
            continue
        if header is None:
            header = [field.strip() for field in fields]
            missing = [name for name in needed if name not in header]
            if missing:
                raise SpireError(
                    f"{line.where}: no column {missing[0]!r} (there are {', '.join(header)})"
                )
            continue
        if not line.text.strip():
            continue
        if len(fields) != len(header):
            wanted = f"{len(fields)} columns where {len(header)} were expected"
            yield Fault(f"{Path(path).name}:{line.number}", wanted, line.where)
            continue
        yield Row(dict(zip(header, fields, strict=True)), line.where, line.number)
    if header is None:
        raise SpireError(f"{path}: the file is empty")
