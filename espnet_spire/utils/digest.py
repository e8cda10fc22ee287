"""Hashes of what is in files and in memory."""

import hashlib
import os

from espnet_spire.utils.atomic import PathLike


def file_sha256(path: PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    # hashlib.file_digest would do, from Python 3.11 on
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def stat_stamp(stat: os.stat_result) -> str:
    """Size and time of change: with another stamp the content is taken for another."""
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def bytes_sha256(data) -> str:
    """SHA-256 of bytes or a buffer, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sampled_sha256(path: PathLike, blocks: int = 64, size: int = 2**16) -> str:
    """SHA-256 of a file's size and of ``blocks`` blocks spread over it, in hexadecimal.

    Reads 4 MiB of whatever size, and tells weights from others: training changes nearly all.
    """
    length = os.path.getsize(path)
    digest = hashlib.sha256(str(length).encode())
    with open(path, "rb") as stream:
        for number in range(blocks):
            stream.seek(max(0, length - size) * number // max(1, blocks - 1))
            digest.update(stream.read(size))
    return digest.hexdigest()
