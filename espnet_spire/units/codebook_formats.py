"""Codebooks of other tools: joblib and pickle files of scikit-learn's k-means, ``.npy``.

fairseq's and ESPnet's ``learn_kmeans.py`` dump a fitted ``MiniBatchKMeans`` with joblib.

Such a file is a pickle: a program that builds objects. Here it may build numpy arrays and
nothing else. Whatever scikit-learn has in it becomes a plain holder of attributes, so files of
any version of scikit-learn load, and none of their code runs; every other name is an error.
"""

import bz2
import gzip
import inspect
import io
import lzma
import pickle
import zlib
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch

from espnet_spire.units.codebook import MUST_MATCH, Codebook
from espnet_spire.units.notation import MAX_UNITS
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError

# Those whose units are nearest centroids: BisectingKMeans, for one, walks down a tree.
ESTIMATORS = ("KMeans", "MiniBatchKMeans")
_NPY_MAGIC = b"\x93NUMPY"
_DECOMPRESS = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
    (b"]\x00\x00", lzma.decompress),
    (b"\x78", zlib.decompress),
)
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_ZIP_MAGIC = b"PK"
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_JOBLIB_MODULES = ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")


class _Holder:
    """Takes the place of an object whose class stays unloaded."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Holder":
        self = super().__new__(cls)
        self.attributes = {}
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


def _old_reconstructor(kind: type, base: type, state: Any) -> Any:
    """``copyreg._reconstructor`` of pickle protocols 0 and 1, for holders alone."""
    if not (isinstance(kind, type) and issubclass(kind, _Holder)):
        raise pickle.UnpicklingError("an object of a kind that a k-means model does not have")
    return kind()


def _numpy_globals() -> Dict[tuple, Any]:
    """The names that numpy's own pickles of arrays and numbers use, under old paths and new."""
    multiarray = np.zeros(1).__reduce__()[0], np.float32(0).__reduce__()[0]
    frombuffer = np.zeros(1).__reduce_ex__(5)[0]
    allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    # joblib notes that an array was memory-mapped; it is read as an ordinary one.
    for module in ("numpy", "numpy.core.memmap", "numpy._core.memmap"):
        allowed[module, "memmap"] = np.ndarray
    for module in _NUMPY_MODULES:
        allowed[module, "_reconstruct"], allowed[module, "scalar"] = multiarray
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        allowed[module, "_frombuffer"] = frombuffer
    for module in ("copyreg", "copy_reg"):
        allowed[module, "_reconstructor"] = _old_reconstructor
    # bytes under protocols 0 to 2
    allowed["_codecs", "encode"] = lambda text, _: text.encode("latin1")
    for module in ("builtins", "__builtin__"):
        allowed[module, "object"] = object
    return allowed


def _make_unpickler(stream: io.BytesIO):
    """joblib's unpickler with ``find_class`` closed."""
    from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

    class Wrapper(NumpyArrayWrapper):
        def read(self, *args: Any, **kwargs: Any) -> np.ndarray:
            # joblib reads an array of objects as a pickle of its own.
            if self.dtype.hasobject:
                raise SpireError("it holds an array of Python objects")
            return super().read(*args, **kwargs)

    allowed = _numpy_globals()
    allowed.update({(module, "NumpyArrayWrapper"): Wrapper for module in _JOBLIB_MODULES})

    class Restricted(NumpyUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in allowed:
                return allowed[module, name]
            # numpy.random: the random state that a model was fitted with
            if module.split(".")[0] == "sklearn" or module.startswith("numpy.random"):
                return type(name, (_Holder,), {"name": f"{module}.{name}"})
            raise SpireError(f"it holds {module}.{name}, which is no part of a k-means model")

    options: Dict[str, Any] = {"filename": "", "file_handle": stream}
    if "ensure_native_byte_order" in inspect.signature(NumpyUnpickler.__init__).parameters:
        options["ensure_native_byte_order"] = True
    unpickler = Restricted(**options)
    unpickler.encoding = "latin1"  # arrays pickled by Python 2
    return unpickler


def _decompressed(data: bytes) -> bytes:
    for magic, decompress in _DECOMPRESS:
        if data.startswith(magic):
            return decompress(data)
    if data.startswith(_LZ4_MAGIC):
        try:
            from lz4.frame import decompress as lz4_decompress
        except ImportError:
            raise SpireError("it is compressed with LZ4: pip install lz4") from None
        return lz4_decompress(data)
    return data


def _unpickle(data: bytes) -> Any:
    if data.startswith(_ZIP_MAGIC):
        raise SpireError(
            "it is a zip archive (.npz, torch); write the centroids to a .npy with numpy.save"
        )
    return _make_unpickler(io.BytesIO(_decompressed(data))).load()


def _centroids_of(value: Any) -> Any:
    """The centroids in what a file held."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, _Holder):
        raise SpireError(f"it holds a {type(value).__name__}, not a k-means model or an array")
    if value.name.rpartition(".")[2] not in ESTIMATORS:
        raise SpireError(f"it holds a {value.name}; only {' and '.join(ESTIMATORS)} are read")
    if "cluster_centers_" not in value.attributes:
        raise SpireError(f"its {value.name} has no cluster_centers_: it was never fitted")
    return value.attributes["cluster_centers_"]


def _checked(centroids: Any) -> torch.Tensor:
    if not isinstance(centroids, np.ndarray) or centroids.dtype.kind not in "fiu":
        kind = getattr(centroids, "dtype", type(centroids).__name__)
        raise SpireError(f"its centroids are {kind}, not an array of real numbers")
    if centroids.ndim != 2 or 0 in centroids.shape:
        raise SpireError(f"its centroids have shape {centroids.shape}, (K, D) was expected")
    if len(centroids) > MAX_UNITS:
        raise SpireError(f"it has {len(centroids)} centroids, {MAX_UNITS} are the most")
    with np.errstate(over="ignore"):
        narrowed = centroids.astype(np.float32, order="C")
    for index in np.flatnonzero(~np.isfinite(narrowed).all(axis=1))[:1]:
        raise SpireError(f"its centroid {index} is not finite in float32")
    return torch.from_numpy(narrowed)


def read_foreign_centroids(path: PathLike, *, trust_pickle: bool = False) -> torch.Tensor:
    """Centroids of a joblib, pickle or ``.npy`` file.

    Args:
        path: a fitted KMeans or MiniBatchKMeans, or an array of shape (K, D).
        trust_pickle: the user says that he knows where the file comes from; a ``.npy`` holds
            numbers alone and needs no trust.

    Returns:
        float32, shape (K, D), finite.

    Raises:
        SpireError: not such a file, not trusted, something else in it, not K finite vectors.
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise SpireError(f"{path}: no such file") from None
    try:
        if data.startswith(_NPY_MAGIC):
            return _checked(np.load(io.BytesIO(data), allow_pickle=False))
        if not trust_pickle:
            raise SpireError(
                "a joblib file is a pickle, which can run code of whoever made it; if you know"
                " where it comes from, add --trust_pickle, else have it as a .npy"
            )
        return _checked(_centroids_of(_unpickle(data)))
    except SpireError as error:
        raise SpireError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpireError(f"{path}: not a readable joblib, pickle or .npy file ({reason})") from None


def import_codebook(
    path: PathLike, *, trust_pickle: bool = False, encoder: Optional[Dict[str, Any]] = None
) -> Codebook:
    """Read a codebook of another tool; see :func:`read_foreign_centroids`.

    Args:
        encoder: what is known of the encoder, keys as in ``codebook.json``; what is not there
            is noted as unknown (null).
    """
    centroids = read_foreign_centroids(path, trust_pickle=trust_pickle)
    count, dim = centroids.shape
    known = {name: None for name in ("encoder", *MUST_MATCH)}
    known.update(encoder or {})
    if known["dim"] not in (None, dim):
        raise SpireError(
            f"{path}: its centroids have {dim} dimensions, the features of --encoder"
            f" {known['encoder']} have {known['dim']}; it was learned with another one"
        )
    description = {
        **known,
        "dim": dim,
        "num_clusters": count,
        "seed": None,
        "frames": None,
        "inertia": None,
        "imported_from": {"file": Path(path).name, "sha256": file_sha256(path)},
    }
    return Codebook(centroids, description)


def to_estimator(codebook: Codebook, dtype: str = "float32"):
    """A fitted scikit-learn ``KMeans`` whose ``predict`` gives the codebook's units.

    Args:
        codebook: centroids of shape (K, D); equal or unused ones stay as they are.
        dtype: of ``cluster_centers_``. scikit-learn's ``predict`` takes samples of this type
            alone, and torch's products in fairseq's and ESPnet's ApplyKmeans want float32.
    """
    from sklearn.cluster import KMeans

    centroids = codebook.centroids.numpy().astype(dtype)
    count, dim = centroids.shape
    # Fitted to one point, it has whatever this version of scikit-learn keeps beside the
    # centroids; a fit to all of them would move those that are equal.
    estimator = KMeans(n_clusters=1, n_init=1, random_state=0).fit(np.zeros((1, dim), dtype))
    estimator.set_params(n_clusters=count)
    estimator.cluster_centers_ = centroids
    estimator.labels_ = np.arange(count, dtype=np.int32)
    estimator._n_features_out = count
    return estimator


def export_codebook(codebook: Codebook, path: PathLike, dtype: str = "float32") -> None:
    """Write :func:`to_estimator` with joblib, atomically."""
    import joblib

    estimator = to_estimator(codebook, dtype)
    with atomic_write(path, "wb") as stream:
        joblib.dump(estimator, stream)
