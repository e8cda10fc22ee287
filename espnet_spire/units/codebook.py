"""A codebook: centroids and everything that must match for its units to mean the same."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError

CENTROIDS = "codebook.safetensors"
DESCRIPTION = "codebook.json"
# What must be equal for two feature streams to be interchangeable. The encoder's name is a path
# that may move, so its type and width are compared in its place, and the digest of its weights.
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
# Hexadecimal; only loaded encoders and codebooks learned from them know it, mfcc has none.
WEIGHTS = "weights"
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

        What the codebook does not know of its encoder (an imported one) cannot be compared, nor
        can weights where only one side knows them: a warning says so, once.
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
        self._check_weights(description)

    def _check_weights(self, description: Dict[str, Any]) -> None:
        ours, theirs = (
            str(book.get("encoder") or "").rstrip("/") for book in (self.description, description)
        )
        digests = [book.get(WEIGHTS) for book in (self.description, description)]
        if None in digests:
            if ours and ours != theirs:
                _warn_another_name(ours, theirs)
        elif digests[0] != digests[1]:
            raise SpireError(
                f"the codebook was learned with {ours or 'an encoder whose name is unknown'}, the"
                f" encoder is {theirs}: both are of one kind, but their weights differ; use the one"
                " it was learned with"
            )


@lru_cache(maxsize=None)  # once, however many data directories there are
def _warn_unchecked(names: str, encoder: str) -> None:
    logging.warning(
        "the codebook does not say with which %s it was learned: make sure yourself that %s is"
        " right (import_codebook --encoder … --layer … writes it down)",
        names,
        encoder,
    )


@lru_cache(maxsize=None)
def _warn_another_name(ours: str, theirs: str) -> None:
    logging.warning(
        "the codebook was learned with %s, the encoder is %s; whether their weights are the same"
        " is not known: make sure yourself that they are",
        ours,
        theirs,
    )


def codebook_identity(path: PathLike) -> Dict[str, Any]:
    """What tells a codebook directory from another: its description and its centroids' hash."""
    return {**_description(Path(path)), "sha256": file_sha256(Path(path) / CENTROIDS)}


def _description(path: Path) -> Dict[str, Any]:
    """What stands in the codebook.json of a codebook that is whole."""
    if not (path / CENTROIDS).exists():
        raise SpireError(f"{path / CENTROIDS}: no such file; learn_kmeans makes a codebook")
    description = read_json(path / DESCRIPTION)
    if not isinstance(description, dict):
        raise SpireError(f"{path / DESCRIPTION}: not a JSON object; make the codebook again")
    for name in ("num_clusters", "dim"):
        if not isinstance(description.get(name), int):
            raise SpireError(f"{path / DESCRIPTION}: has no number {name}; make the codebook again")
    return description


def save_codebook(codebook: Codebook, out: PathLike) -> None:
    """Write a codebook directory, atomically."""
    with atomic_dir(out) as aside:
        save_file({"centroids": codebook.centroids.contiguous().float()}, aside / CENTROIDS)
        write_json(aside / DESCRIPTION, codebook.description)


def load_codebook(path: PathLike) -> Codebook:
    """Read a codebook directory.

    Raises:
        SpireError: one of its files is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    description = _description(path)
    try:
        centroids = load_file(path / CENTROIDS)["centroids"]
    except (SafetensorError, KeyError) as error:
        what = "has no centroids" if isinstance(error, KeyError) else f"damaged ({error})"
        raise SpireError(f"{path / CENTROIDS}: {what}; copy or make the codebook again") from None
    if list(centroids.shape) != [description["num_clusters"], description["dim"]]:
        raise SpireError(f"{path}: {CENTROIDS} and {DESCRIPTION} do not belong together")
    return Codebook(centroids, description)
