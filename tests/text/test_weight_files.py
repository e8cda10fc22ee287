"""Safetensors files with longer matrices: read back by the library, compared byte for byte."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from espnet_spire.text.weight_files import (
    Extension,
    check_file,
    check_float,
    read_header,
    rewrite_file,
    weight_files,
    write_extended,
)
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "embed": torch.randn(5, 3).bfloat16(),
        "head": torch.randn(5, 3).double(),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "norm": torch.randn(3).half(),
    }


@pytest.fixture
def source(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path / "model.safetensors"


def same(one, two):
    return one.dtype == two.dtype and one.shape == two.shape and one.equal(two)


def test_header(source, tensors):
    metadata, stored = read_header(source)
    assert metadata == {"format": "pt"}
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        name: entry.shape for name, entry in stored.items()
    }
    assert stored["embed"].dtype == "BF16" and stored["embed"].row_bytes == 6
    data = source.read_bytes()[stored["head"].start : stored["head"].end]
    assert data == tensors["head"].numpy().tobytes()


def test_rewritten_file(source, tensors, tmp_path):
    target = tmp_path / "new.safetensors"
    fresh = torch.randn(4, 3)
    extensions = {
        "embed": Extension(4, fresh.bfloat16()),  # the fifth row is dropped
        "head": Extension(5, fresh.double()),
        "elsewhere": Extension(1, fresh),
    }
    rewrite_file(source, target, extensions)
    found = load_file(target)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if name in extensions:
            kept, rows = extensions[name]
            tensor = torch.cat([tensor[:kept], rows])
        assert same(found[name], tensor), name
    with safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert (8 + int.from_bytes(target.read_bytes()[:8], "little")) % 8 == 0
    check_file(source, target, extensions)


@pytest.mark.parametrize("name", ["embed", "norm"])
def test_a_changed_bit_is_found(source, tmp_path, name):
    target = tmp_path / "new.safetensors"
    extensions = {"embed": Extension(5, torch.zeros(2, 3).bfloat16())}
    rewrite_file(source, target, extensions)
    stored = read_header(target)[1][name]
    data = bytearray(target.read_bytes())
    data[stored.start + 1] ^= 1
    target.write_bytes(data)
    with pytest.raises(SpireError, match=f"new.safetensors: {name} differs from the base's"):
        check_file(source, target, extensions)


def test_shards(tmp_path):
    """Shards without a matrix are copied; the index has the new size."""
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir(), out.mkdir()
    save_file({"embed": torch.ones(5, 3), "a": torch.ones(2)}, base / "one.safetensors")
    save_file({"b": torch.ones(7)}, base / "two.safetensors")
    weight_map = {"embed": "one.safetensors", "a": "one.safetensors", "b": "two.safetensors"}
    index = base / "model.safetensors.index.json"
    metadata = {"total_size": 96, "total_parameters": 24}
    index.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    save_file({"c": torch.ones(1)}, base / "consolidated.safetensors")  # Mistral's own

    files = weight_files(base)
    assert [path.name for path in files] == ["one.safetensors", "two.safetensors"]
    write_extended(files, out, {"embed": Extension(5, torch.zeros(1, 3))})
    assert (out / "two.safetensors").read_bytes() == (base / "two.safetensors").read_bytes()
    assert load_file(out / "one.safetensors")["embed"].tolist() == [[1.0] * 3] * 5 + [[0.0] * 3]
    written = json.loads((out / index.name).read_text())
    assert written["weight_map"] == weight_map
    assert written["metadata"] == {"total_size": (18 + 2 + 7) * 4, "total_parameters": 27}
    assert not (out / "consolidated.safetensors").exists()

    (base / "two.safetensors").unlink()
    with pytest.raises(SpireError, match="two.safetensors: no such file, but model.*index.json"):
        weight_files(base)
    assert weight_files(out / "nothing") == []


def test_broken_files(source, tmp_path):
    data = source.read_bytes()
    for broken in (data[:-1], data + b"x"):
        source.write_bytes(broken)
        with pytest.raises(SpireError, match="model.safetensors: not as long as its header says"):
            read_header(source)
    for broken in (b"", b"\xff" * 20, b"version https://git-lfs.github.com/spec/v1"):
        source.write_bytes(broken)
        with pytest.raises(SpireError, match="model.safetensors: not a safetensors file"):
            read_header(source)


def test_quantised_matrices_are_refused(tmp_path):
    save_file({"q": torch.zeros(4, 4, dtype=torch.int8), "v": torch.zeros(4)}, tmp_path / "f")
    stored = read_header(tmp_path / "f")[1]
    with pytest.raises(SpireError, match=r"q is I8 of shape \[4, 4\].*not quantised"):
        check_float(tmp_path / "f", "q", stored["q"])
    with pytest.raises(SpireError, match=r"v is F32 of shape \[4\]"):
        check_float(tmp_path / "f", "v", stored["v"])


def test_large_tensors_are_copied_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("espnet_spire.text.weight_files._CHUNK", 10)
    values = np.random.default_rng(0).standard_normal((9, 7))
    save_file({"w": torch.from_numpy(values)}, tmp_path / "old")
    extensions = {"w": Extension(8, torch.zeros(3, 7, dtype=torch.float64))}
    rewrite_file(tmp_path / "old", tmp_path / "new", extensions)
    check_file(tmp_path / "old", tmp_path / "new", extensions)
    expected = np.concatenate([values[:8], np.zeros((3, 7))])
    np.testing.assert_array_equal(load_file(tmp_path / "new")["w"].numpy(), expected)
