import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save

from espnet_spire.units.codebook import Codebook, codebook_identity, load_codebook, save_codebook
from espnet_spire.utils.errors import SpireError

DESCRIPTION = {
    "encoder": "exp/hubert",
    "encoder_type": "hubert",
    "layer": 22,
    "normalization": "utterance",
    "normalization_eps": 1e-7,
    "frame_rate": 50.0,
    "dim": 4,
    "num_clusters": 3,
    "seed": 0,
}


def centroids():
    return torch.arange(12, dtype=torch.float32).reshape(3, 4)


def test_save_and_load(tmp_path):
    save_codebook(Codebook(centroids().double(), DESCRIPTION), tmp_path / "book")
    stored = load_file(tmp_path / "book/codebook.safetensors")["centroids"]
    assert stored.dtype == np.float32
    assert stored.tolist() == centroids().tolist()
    assert json.loads((tmp_path / "book/codebook.json").read_text()) == DESCRIPTION
    loaded = load_codebook(tmp_path / "book")
    assert loaded.centroids.equal(centroids())
    assert loaded.description == DESCRIPTION
    assert loaded.num_clusters == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book"]


def test_missing_and_mixed_up(tmp_path):
    with pytest.raises(SpireError, match="codebook.safetensors: no such file; learn_kmeans"):
        load_codebook(tmp_path)
    save_codebook(Codebook(centroids(), {**DESCRIPTION, "num_clusters": 5}), tmp_path / "book")
    with pytest.raises(SpireError, match="do not belong together"):
        load_codebook(tmp_path / "book")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("codebook.json", b'{"dim": 4}', "codebook.json: has no number num_clusters"),
        ("codebook.json", b'{"dim": "4", "num_clusters": 3}', "codebook.json: has no number dim"),
        ("codebook.json", b"[3, 4]", "codebook.json: not a JSON object"),
        ("codebook.json", b"{", "codebook.json: not valid JSON"),
        ("codebook.safetensors", b"", "codebook.safetensors: damaged"),
        ("codebook.safetensors", b"\xff" * 99, "codebook.safetensors: damaged"),
        ("codebook.safetensors", save({"x": torch.ones(3, 4)}), "safetensors: has no centroids"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, file, content, message):
    save_codebook(Codebook(centroids(), DESCRIPTION), tmp_path / "book")
    (tmp_path / "book" / file).write_bytes(content)
    with pytest.raises(SpireError, match=f"{message}.*make") as caught:
        load_codebook(tmp_path / "book")
    assert "\n" not in str(caught.value)
    if file == "codebook.json":
        with pytest.raises(SpireError, match=message):
            codebook_identity(tmp_path / "book")


def test_a_file_cut_short(tmp_path):
    save_codebook(Codebook(centroids(), DESCRIPTION), tmp_path / "book")
    path = tmp_path / "book/codebook.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SpireError, match="codebook.safetensors: damaged"):
        load_codebook(tmp_path / "book")
    (tmp_path / "book/codebook.json").unlink()
    with pytest.raises(SpireError, match="codebook.json: no such file"):
        load_codebook(tmp_path / "book")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_type", "wavlm"),
        ("layer", 21),
        ("normalization", "none"),
        ("normalization_eps", 1e-5),
        ("frame_rate", 25.0),
        ("dim", 8),
        ("pooling", "mean"),
        ("pool_frames", 2),
    ],
)
def test_another_encoder_is_refused_and_both_are_named(name, value):
    other = {**DESCRIPTION, "encoder": "exp/other", name: value}
    with pytest.raises(SpireError) as caught:
        Codebook(centroids(), DESCRIPTION).check_encoder(other)
    message = str(caught.value)
    # a codebook.json of before pooling was a setting has no such lines
    ours = {"pooling": "none", "pool_frames": 1, **DESCRIPTION}[name]
    for part in (name, str(ours), str(value), "exp/hubert", "exp/other"):
        assert part in message


KNOWN = {**DESCRIPTION, "weights": "0a1b"}


def test_the_encoder_may_move(caplog):
    Codebook(centroids(), KNOWN).check_encoder({**KNOWN, "encoder": "/elsewhere"})
    assert not caplog.records


def test_other_weights_are_refused_and_both_encoders_are_named():
    """One fine-tuned from the other: type, width, layer and all the rest are the same."""
    other = {**KNOWN, "encoder": "exp/tuned", "weights": "0a1c"}
    message = "learned with exp/hubert, the encoder is exp/tuned: .* their weights differ"
    with pytest.raises(SpireError, match=message):
        Codebook(centroids(), KNOWN).check_encoder(other)
    with pytest.raises(SpireError, match="exp/hubert, the encoder is exp/hubert: .*weights differ"):
        Codebook(centroids(), KNOWN).check_encoder({**other, "encoder": "exp/hubert/"})
    nameless = Codebook(centroids(), {**KNOWN, "encoder": None})
    with pytest.raises(SpireError, match="an encoder whose name is unknown, .*weights differ"):
        nameless.check_encoder(other)


@pytest.mark.parametrize("weights", [(None, "0a1b"), ("0a1b", None), (None, None)])
def test_another_name_is_said_where_weights_are_not_known(caplog, weights):
    codebook = Codebook(centroids(), {**KNOWN, "weights": weights[0]})
    theirs = {**KNOWN, "weights": weights[1]}
    codebook.check_encoder({**theirs, "encoder": "exp/hubert//"})
    assert not caplog.records
    other = {**theirs, "encoder": f"exp/{weights}"}  # each once
    codebook.check_encoder(other)
    codebook.check_encoder(other)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"learned with exp/hubert, the encoder is exp/{weights}" in record.getMessage()


def test_mfcc_has_no_weights(caplog):
    mfcc = {**DESCRIPTION, "encoder": "mfcc", "encoder_type": "mfcc", "weights": None}
    Codebook(centroids(), mfcc).check_encoder(mfcc)
    assert not caplog.records


def test_what_an_imported_codebook_does_not_know_is_not_compared(caplog):
    unknown = dict.fromkeys(DESCRIPTION) | {"dim": 4, "layer": 22, "pooling": None}
    codebook = Codebook(centroids(), unknown)
    other = {**DESCRIPTION, "encoder": "exp/unseen", "pooling": "mean", "pool_frames": 1}
    codebook.check_encoder(other)
    codebook.check_encoder(other)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    names = "encoder_type, normalization, normalization_eps, frame_rate, pooling"
    assert f"with which {names} it was learned" in caplog.text and "exp/unseen" in caplog.text
    # what it does know still is
    for name, value in (("dim", 8), ("layer", 21), ("pool_frames", 2)):
        with pytest.raises(SpireError, match=f"{name} .*encoder unknown.*gives {value}"):
            codebook.check_encoder({**other, name: value})


def test_known_encoders_give_no_warning(caplog):
    new = {**DESCRIPTION, "pooling": "none", "pool_frames": 1}
    for ours in (DESCRIPTION, new):
        for theirs in (DESCRIPTION, new):
            Codebook(centroids(), ours).check_encoder(theirs)
    assert not caplog.records


def test_identity(tmp_path):
    save_codebook(Codebook(centroids(), DESCRIPTION), tmp_path / "book")
    digest = hashlib.sha256((tmp_path / "book/codebook.safetensors").read_bytes()).hexdigest()
    assert codebook_identity(tmp_path / "book") == {**DESCRIPTION, "sha256": digest}
    save_codebook(Codebook(centroids() + 1, DESCRIPTION), tmp_path / "book")
    assert codebook_identity(tmp_path / "book")["sha256"] != digest
    with pytest.raises(SpireError, match="learn_kmeans makes a codebook"):
        codebook_identity(tmp_path)
