"""Codebooks of other tools, made here with scikit-learn, joblib and pickle themselves."""

import hashlib
import io
import os
import pickle
import sys
import types

import joblib
import numpy as np
import pytest
import torch
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.pipeline import make_pipeline

from espnet_spire.units.assign import Assigner
from espnet_spire.units.codebook import Codebook, load_codebook, save_codebook
from espnet_spire.units.codebook_formats import (
    export_codebook,
    import_codebook,
    read_foreign_centroids,
)
from espnet_spire.utils.errors import SpireError


@pytest.fixture(scope="module")
def fitted():
    """As fairseq's and ESPnet's scripts fit it."""
    points = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    return MiniBatchKMeans(7, n_init=1, random_state=0, compute_labels=False).fit(points)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblib(fitted, tmp_path, compress):
    joblib.dump(fitted, tmp_path / "km.bin", compress=compress)
    centroids = read_foreign_centroids(tmp_path / "km.bin", trust_pickle=True)
    assert centroids.dtype == torch.float32
    assert centroids.numpy().tobytes() == fitted.cluster_centers_.tobytes()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_pickle(tmp_path, protocol, kind):
    points = np.random.default_rng(1).normal(size=(50, 3))
    model = kind(4, n_init=1, random_state=np.random.RandomState(3)).fit(points)
    (tmp_path / "km.pkl").write_bytes(pickle.dumps(model, protocol))
    centroids = read_foreign_centroids(tmp_path / "km.pkl", trust_pickle=True)
    assert centroids.tolist() == model.cluster_centers_.astype(np.float32).tolist()


@pytest.mark.parametrize("dump", [joblib.dump, lambda value, f, protocol: pickle.dump(value, f, 2)])
def test_old_scikit_learn(monkeypatch, tmp_path, dump):
    """Module paths of 0.19, a numpy of then, a random state as it was kept then."""
    old = types.ModuleType("sklearn.cluster.k_means_")
    old.MiniBatchKMeans = type("MiniBatchKMeans", (), {"__module__": old.__name__})
    model = old.MiniBatchKMeans()
    model.cluster_centers_ = np.arange(6.0).reshape(3, 2)
    model.counts_ = np.ones(3, np.int32)
    model.random_state_ = np.random.RandomState(0)
    model.inertia_ = np.float64(1.5)
    stream = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, old.__name__, old)
        dump(model, stream, protocol=2)
    data = stream.getvalue()
    assert b"cnumpy._core" in data and b"csklearn.cluster.k_means_\n" in data
    data = data.replace(b"cnumpy._core", b"cnumpy.core")
    data = data.replace(b"cjoblib.", b"csklearn.externals.joblib.")
    (tmp_path / "km.bin").write_bytes(data)
    centroids = read_foreign_centroids(tmp_path / "km.bin", trust_pickle=True)
    assert centroids.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert "sklearn.cluster.k_means_" not in sys.modules


def test_arrays(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    np.save(tmp_path / "c.npy", array)
    joblib.dump(array, tmp_path / "c.joblib")
    expected = [[0, 1, 2], [3, 4, 5]]
    # numbers alone: no trust needed
    assert read_foreign_centroids(tmp_path / "c.npy").tolist() == expected
    assert read_foreign_centroids(tmp_path / "c.joblib", trust_pickle=True).tolist() == expected


def test_trust_is_asked_for(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "km.bin")
    with pytest.raises(SpireError, match=r"km\.bin: a joblib file is a pickle.*--trust_pickle"):
        read_foreign_centroids(tmp_path / "km.bin")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["root", "attribute", "object array", "nested object array"])
def test_foreign_code_does_not_run(fitted, tmp_path, where):
    evil = Evil(tmp_path / "ran")
    model = MiniBatchKMeans(7)
    model.cluster_centers_ = fitted.cluster_centers_
    model.init = {"attribute": evil, "object array": np.array([evil], dtype=object)}.get(where)
    value = {"root": evil, "nested object array": [np.array([[evil]], dtype=object)]}
    joblib.dump(value.get(where, model), tmp_path / "km.bin")
    with pytest.raises(SpireError, match=r"km\.bin: it holds (posix\.system|an array of Python)"):
        read_foreign_centroids(tmp_path / "km.bin", trust_pickle=True)
    assert not (tmp_path / "ran").exists()


def unfitted():
    return KMeans(3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (unfitted, "no cluster_centers_: it was never fitted"),
        (lambda: make_pipeline(unfitted()), "holds a sklearn.pipeline.Pipeline; only KMeans"),
        (BisectingKMeans, "_bisect_k_means.BisectingKMeans; only KMeans and MiniBatchKMeans"),
        (lambda: {"a": 1}, "holds a dict"),
        (lambda: torch.nn.Linear(2, 2), "holds torch.nn.modules.linear.Linear"),
        (lambda: np.zeros(3), r"shape \(3,\), \(K, D\) was expected"),
        (lambda: np.zeros((0, 3)), r"shape \(0, 3\)"),
        (lambda: np.array([["a"]]), "are <U1, not an array of real numbers"),
        (lambda: np.array([[1.0, 2.0], [np.nan, 0.0]]), "centroid 1 is not finite"),
        (lambda: np.array([[1e300]]), "centroid 0 is not finite in float32"),
        (lambda: np.zeros((70000, 1)), "70000 centroids, 65534 are the most"),
    ],
)
def test_something_else(tmp_path, make, said):
    joblib.dump(make(), tmp_path / "km.bin")
    with pytest.raises(SpireError, match=said) as caught:
        read_foreign_centroids(tmp_path / "km.bin", trust_pickle=True)
    assert str(tmp_path / "km.bin") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_files(fitted, tmp_path):
    whole = tmp_path / "km.bin"
    joblib.dump(fitted, whole, compress=3)
    data = whole.read_bytes()
    plain = pickle.dumps(fitted)
    np.savez(tmp_path / "c.npz", c=np.zeros((2, 2)))
    for content in (b"", b"words", data[:200], plain[: len(plain) // 2], b"\x93NUMPY\x01"):
        whole.write_bytes(content)
        with pytest.raises(SpireError, match="not a readable joblib, pickle or .npy file"):
            read_foreign_centroids(whole, trust_pickle=True)
    with pytest.raises(SpireError, match="zip archive.*numpy.save"):
        read_foreign_centroids(tmp_path / "c.npz", trust_pickle=True)
    with pytest.raises(SpireError, match="nowhere: no such file"):
        read_foreign_centroids(tmp_path / "nowhere", trust_pickle=True)


def test_description(fitted, tmp_path):
    path = tmp_path / "km.bin"
    joblib.dump(fitted, path)
    description = import_codebook(path, trust_pickle=True).description
    unknown = ("encoder", "encoder_type", "layer", "normalization", "normalization_eps")
    unknown += ("frame_rate", "pooling", "pool_frames", "seed", "frames", "inertia")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert description == {
        **dict.fromkeys(unknown),
        **{"dim": 6, "num_clusters": 7, "imported_from": {"file": "km.bin", "sha256": digest}},
    }
    encoder = {"encoder": "hubert", "layer": 3, "dim": 6}
    described = import_codebook(path, trust_pickle=True, encoder=encoder).description
    assert described == {**description, **encoder}
    with pytest.raises(SpireError, match="6 dimensions, the features of --encoder hubert have 8"):
        import_codebook(path, trust_pickle=True, encoder={**encoder, "dim": 8})


def awkward():
    """Equal centroids, one at the origin, one that nothing is near to."""
    book = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    book[3] = book[8]
    book[5] = 0
    book[7] = 1e4
    return Codebook(book, {"num_clusters": 12, "dim": 5})


def test_round_trip(tmp_path):
    export_codebook(awkward(), tmp_path / "km.bin")
    back = import_codebook(tmp_path / "km.bin", trust_pickle=True)
    assert back.centroids.numpy().tobytes() == awkward().centroids.numpy().tobytes()
    save_codebook(back, tmp_path / "book")
    assert load_codebook(tmp_path / "book").centroids.equal(awkward().centroids)
    export_codebook(awkward(), tmp_path / "km64.bin", "float64")
    back = import_codebook(tmp_path / "km64.bin", trust_pickle=True)
    assert back.centroids.numpy().tobytes() == awkward().centroids.numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exported_model_predicts_our_units(tmp_path, dtype):
    codebook = awkward()
    export_codebook(codebook, tmp_path / "km.bin", dtype)
    model = joblib.load(tmp_path / "km.bin")
    assert type(model) is KMeans and model.n_clusters == 12
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(1)) * 2
    units = model.predict(features.numpy().astype(dtype))
    distances = np.linalg.norm(features.numpy()[:, None] - codebook.centroids.numpy()[None], axis=2)
    assert units.tolist() == distances.argmin(axis=1).tolist()
    assert units.tolist() == Assigner(codebook)(features).units.tolist()
    assert {3, 5} <= set(units.tolist()) and 7 not in units
    assert model.transform(features.numpy().astype(dtype)).shape == (400, 12)
    assert len(model.get_feature_names_out()) == 12


def test_exported_model_in_apply_kmeans(tmp_path):
    """fairseq's and ESPnet's scripts: squared distances with torch, from cluster_centers_."""
    codebook = awkward()
    export_codebook(codebook, tmp_path / "km.bin")
    centres = torch.from_numpy(joblib.load(tmp_path / "km.bin").cluster_centers_.transpose())
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    distances = (x**2).sum(1, keepdim=True) - 2 * x @ centres + (centres**2).sum(0, keepdim=True)
    assert distances.argmin(dim=1).tolist() == Assigner(codebook)(x).units.tolist()
