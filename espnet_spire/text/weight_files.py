"""Matrices of a model's safetensors files with more rows, everything else byte for byte.

A model is never loaded for this: files are copied, and those that hold a matrix to be extended are
rewritten tensor after tensor, so that memory does not grow with the model (72B in bfloat16 is 145
GB). The format is small and fixed: eight bytes of length, a JSON header, the tensors' bytes.
"""

import json
import math
import shutil
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Tuple

import torch

from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOATS = ("BF16", "F16", "F32", "F64")
_CHUNK = 2**24


class Stored(NamedTuple):
    """A tensor's ``dtype`` as the format spells it, its shape and its place in the file."""

    dtype: str
    shape: Tuple[int, ...]
    start: int
    end: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a matrix."""
        return (self.end - self.start) // self.shape[0]


class Extension(NamedTuple):
    """The first ``kept`` rows of a matrix stay, ``fresh`` (count, D) follows, in its dtype."""

    kept: int
    fresh: torch.Tensor


def weight_files(directory: Path) -> List[Path]:
    """The safetensors files of a model directory, none where it has none.

    Raises:
        SpireError: the index names a file that is not there.
    """
    if (directory / SINGLE_FILE).exists():
        return [directory / SINGLE_FILE]
    if not (directory / INDEX_FILE).exists():
        return []
    names = sorted(set(read_json(directory / INDEX_FILE)["weight_map"].values()))
    for name in names:
        if not (directory / name).exists():
            raise SpireError(f"{directory / name}: no such file, but {INDEX_FILE} names it")
    return [directory / name for name in names]


def read_header(path: PathLike) -> Tuple[Dict[str, str], Dict[str, Stored]]:
    """A safetensors file's own metadata, and its tensors in the order of their bytes.

    Raises:
        SpireError: the file is broken or shorter than its header says.
    """
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > Path(path).stat().st_size:
                raise ValueError("cut short")
            header = json.loads(stream.read(length))
    except (ValueError, UnicodeDecodeError) as error:
        raise SpireError(f"{path}: not a safetensors file ({error}); fetch it again") from None
    metadata = header.pop("__metadata__", {})
    tensors = {
        name: Stored(
            entry["dtype"],
            tuple(entry["shape"]),
            *(8 + length + offset for offset in entry["data_offsets"]),
        )
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    }
    end = max((stored.end for stored in tensors.values()), default=8 + length)
    if Path(path).stat().st_size != end:
        raise SpireError(f"{path}: not as long as its header says; fetch it again")
    return metadata, tensors


def check_float(where: Path, name: str, stored: Stored) -> None:
    """Refuse what is no matrix of floats, so a quantised model."""
    if stored.dtype not in _FLOATS or len(stored.shape) != 2:
        raise SpireError(
            f"{where}: {name} is {stored.dtype} of shape {list(stored.shape)}, not a matrix of"
            " floats; give a base model that is not quantised"
        )


def _copy_bytes(source: IO[bytes], target: IO[bytes], start: int, count: int) -> None:
    source.seek(start)
    while count:
        data = source.read(min(count, _CHUNK))
        if not data:
            raise SpireError(f"{source.name}: ends early; fetch it again")
        target.write(data)
        count -= len(data)


def rewrite_file(source: Path, target: Path, extensions: Dict[str, Extension]) -> None:
    """Copy a safetensors file, with more rows in some of its matrices.

    Args:
        source: file to read.
        target: file to write.
        extensions: by the tensors' names; names of other files are passed over.
    """
    metadata, tensors = read_header(source)
    header: Dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, stored in tensors.items():
        shape, size = list(stored.shape), stored.end - stored.start
        if name in extensions:
            shape[0] = extensions[name].kept + len(extensions[name].fresh)
            size = shape[0] * stored.row_bytes
        header[name] = {
            "dtype": stored.dtype,
            "shape": shape,
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)  # the bytes begin at a multiple of 8
    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, stored in tensors.items():
            if name in extensions:
                kept, fresh = extensions[name]
                _copy_bytes(old, new, stored.start, kept * stored.row_bytes)
                new.write(fresh.contiguous().view(torch.uint8).numpy().tobytes())
            else:
                _copy_bytes(old, new, stored.start, stored.end - stored.start)


def _same_bytes(old: IO[bytes], new: IO[bytes], start: int, new_start: int, count: int) -> bool:
    old.seek(start)
    new.seek(new_start)
    while count:
        size = min(count, _CHUNK)
        data = old.read(size)
        if len(data) != size or data != new.read(size):
            return False
        count -= size
    return True


def check_file(source: Path, target: Path, extensions: Dict[str, Extension]) -> None:
    """Compare what was written with what was read, byte for byte."""
    old, new = read_header(source)[1], read_header(target)[1]
    wrong = sorted(old.keys() ^ new.keys())
    with open(source, "rb") as old_file, open(target, "rb") as new_file:
        for name in sorted(old.keys() & new.keys()):
            before, after = old[name], new[name]
            size, shape = before.end - before.start, before.shape
            if name in extensions:
                kept, fresh = extensions[name]
                size, shape = kept * before.row_bytes, (kept + len(fresh), *shape[1:])
            same = _same_bytes(old_file, new_file, before.start, after.start, size)
            if not same or after.dtype != before.dtype or after.shape != shape:
                wrong.append(name)
    if wrong:
        raise SpireError(f"{target}: {wrong[0]} differs from the base's; disk or memory may fail")


def write_extended(files: List[Path], out: Path, extensions: Dict[str, Extension]) -> None:
    """Write a model's files with extended matrices, and the index where there are several.

    Args:
        files: the base's, as :func:`weight_files` gives them.
        out: directory to write to.
        extensions: by the tensors' names.
    """
    written: List[Stored] = []
    for source in files:
        target = out / source.name
        if extensions.keys() & read_header(source)[1].keys():
            rewrite_file(source, target, extensions)
            check_file(source, target, extensions)
        else:
            shutil.copyfile(source, target)
        written += read_header(target)[1].values()
    if files[0].name == SINGLE_FILE:
        return
    index = read_json(files[0].parent / INDEX_FILE)
    metadata = index.setdefault("metadata", {})
    metadata["total_size"] = sum(tensor.end - tensor.start for tensor in written)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(math.prod(tensor.shape) for tensor in written)
    write_json(out / INDEX_FILE, index)
