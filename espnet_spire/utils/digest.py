"""Hashes of what is in files and in memory."""

import hashlib

from espnet_spire.utils.atomic import PathLike


def file_sha256(path: PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    # hashlib.file_digest would do, from Python 3.11 on
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def bytes_sha256(data) -> str:
    """SHA-256 of bytes or a buffer, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
