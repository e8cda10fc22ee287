"""Hashes of files, against hashlib on the whole content and a published value."""

import hashlib

import pytest

from espnet_spire.utils.digest import file_sha256, sampled_sha256


def test_known_value(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_blocks_join(tmp_path, size):
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(str(tmp_path / "file")) == hashlib.sha256(content).hexdigest()


def test_a_sample_tells_large_files_apart(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(50_000))
    seen = {sampled_sha256(path, blocks=5, size=100)}
    for place in (0, 12_475, 24_950, 49_999):  # of the first, second, third and last block
        content = bytearray(50_000)
        content[place] = 1
        path.write_bytes(content)
        seen.add(sampled_sha256(path, blocks=5, size=100))
    path.write_bytes(bytes(50_001))
    seen.add(sampled_sha256(path, blocks=5, size=100))
    assert len(seen) == 6
    path.write_bytes(b"short")
    assert sampled_sha256(path) == sampled_sha256(path)
    path.write_bytes(b"")
    sampled_sha256(path)
