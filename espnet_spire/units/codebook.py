"""A codebook: centroids and everything that must match for its units to mean the same."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError

CENTROIDS = "codebook.safetensors"
DESCRIPTION = "codebook.json"
# What must be equal for two feature streams to be interchangeable. The encoder's name is a path
# that may move, so its type and width are compared in its place.
MUST_MATCH = (
    "encoder_type",
    "layer",
    "normalization",
    "normalization_eps",
    "frame_rate",
    "dim",
    "pooling",
    "pool_frames",
)
# What a codebook.json means that was written before these were settings.
_BEFORE = {"pooling": "none", "pool_frames": 1}


class Codebook(NamedTuple):
    """``centroids``: float32, shape (K, D); ``description``: what stands in codebook.json."""

    centroids: torch.Tensor
    description: Dict[str, Any]

    @property
    def num_clusters(self) -> int:
        return len(self.centroids)

    def check_encoder(self, description: Dict[str, Any]) -> None:
        """Raise unless features so described are those that the centroids were learned from.

        What the codebook does not know of its encoder (an imported one) cannot be compared; a
        warning says so, once.
        """
        unknown = []
        for name in MUST_MATCH:
            ours, theirs = (
                book.get(name, _BEFORE.get(name)) for book in (self.description, description)
            )
            if ours is None:
                unknown.append(name)
            elif ours != theirs:
                raise SpireError(
                    f"the codebook was learned with {name} {ours}"
                    f" ({self.description.get('encoder') or 'encoder unknown'}), the encoder"
                    f" gives {theirs} ({description['encoder']}); use the one it was learned with"
                )
        if unknown:
            _warn_unchecked(", ".join(unknown), str(description["encoder"]))

    def nearest(self, features: torch.Tensor) -> torch.Tensor:
        """Index of the nearest centroid: argmax(x·c - ½‖c‖²), in float32.

        Args:
            features: shape (frames, D).

        Returns:
            int64, shape (frames,).
        """
        centroids = self.centroids.to(features.device)
        half_norms = 0.5 * (centroids * centroids).sum(dim=1)
        return (features.float() @ centroids.T - half_norms).argmax(dim=1)


@lru_cache(maxsize=None)  # once, however many data directories there are
def _warn_unchecked(names: str, encoder: str) -> None:
    logging.warning(
        "the codebook does not say with which %s it was learned: make sure yourself that %s is"
        " right (import_codebook --encoder … --layer … writes it down)",
        names,
        encoder,
    )


def codebook_identity(path: PathLike) -> Dict[str, Any]:
    """What tells a codebook directory from another: its description and its centroids' hash."""
    path = Path(path)
    _require(path)
    return {**read_json(path / DESCRIPTION), "sha256": file_sha256(path / CENTROIDS)}


def _require(path: Path) -> None:
    if not (path / CENTROIDS).exists():
        raise SpireError(f"{path / CENTROIDS}: no such file; learn_kmeans makes a codebook")


def save_codebook(codebook: Codebook, out: PathLike) -> None:
    """Write a codebook directory, atomically."""
    with atomic_dir(out) as aside:
        save_file({"centroids": codebook.centroids.contiguous().float()}, aside / CENTROIDS)
        write_json(aside / DESCRIPTION, codebook.description)


def load_codebook(path: PathLike) -> Codebook:
    """Read a codebook directory."""
    path = Path(path)
    _require(path)
    description = read_json(path / DESCRIPTION)
    centroids = load_file(path / CENTROIDS)["centroids"]
    if list(centroids.shape) != [description["num_clusters"], description["dim"]]:
        raise SpireError(f"{path}: {CENTROIDS} and {DESCRIPTION} do not belong together")
    return Codebook(centroids, description)
