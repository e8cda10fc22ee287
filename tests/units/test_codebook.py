import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

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


def test_nearest_by_hand():
    codebook = Codebook(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 1.0]]), {})
    # (6, 0) is nearer to the long centroid, (4, 0) to the origin: the norms count
    features = torch.tensor([[6.0, 0.0], [4.0, 0.0], [0.0, 0.6], [0.0, 0.4]])
    result = codebook.nearest(features)
    assert result.tolist() == [1, 0, 2, 0]
    assert result.dtype == torch.int64


def test_nearest_is_the_brute_force_one():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.2, 3, 40)[:, None]
    book = torch.randn(40, 16, generator=generator) * scale
    features = torch.randn(500, 16, generator=generator)
    distance = np.linalg.norm(features.numpy()[:, None] - book.numpy()[None], axis=2)
    result = Codebook(book, {}).nearest(features)
    assert result.numpy().tolist() == distance.argmin(axis=1).tolist()
    assert result.equal(torch.cdist(features, book).argmin(dim=1))
    assert len(set(result.tolist())) > 10


def test_bfloat16_features_are_widened():
    codebook = Codebook(centroids(), {})
    features = centroids().to(torch.bfloat16)
    assert codebook.nearest(features).tolist() == [0, 1, 2]


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


def test_the_encoder_may_move():
    Codebook(centroids(), DESCRIPTION).check_encoder({**DESCRIPTION, "encoder": "/elsewhere"})


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
