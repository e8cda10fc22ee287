"""Where clustering stands, under which settings, and the file that keeps it."""

import json
import logging
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from espnet_spire.utils.atomic import atomic_write
from espnet_spire.utils.errors import SpireError


class Settings(NamedTuple):
    """How to cluster; ``dtype`` is that of the products (torch back-end).

    ``frames`` tells what is clustered from other frames.
    """

    num_clusters: int
    backend: str
    passes: int = 10
    tol: float = 1e-4
    full_batch: bool = False
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    seed: int = 0
    frames: str = ""


class State(NamedTuple):
    """Where clustering stands.

    ``centres``: float32, (K, D); ``counts``: frames that each had in the last pass, float32, (K,);
    ``square_radius``: mean square distance then; ``history``: one entry a pass, seeding is pass 0.
    """

    centres: Tensor
    counts: Tensor
    square_radius: float
    history: List[Dict[str, Any]]
    finished: bool = False

    @property
    def passes(self) -> int:
        return len(self.history) - 1


def write_checkpoint(path: Optional[Path], state: State, settings: Settings) -> None:
    """Write a state, atomically; nowhere without a path."""
    if path is None:
        return
    about = {
        "settings": _as_json(settings),
        "square_radius": state.square_radius,
        "history": state.history,
        "finished": state.finished,
    }
    tensors = {"centres": state.centres.contiguous(), "counts": state.counts}
    with atomic_write(path, "wb") as stream:
        stream.write(save(tensors, metadata={"state": json.dumps(about)}))


def read_checkpoint(path: Optional[Path], settings: Settings) -> Optional[State]:
    """What :func:`write_checkpoint` wrote; ``None`` where nothing is, or of other frames.

    Raises:
        SpireError: it was written under other settings; it names the first that differs.
    """
    if path is None or not path.exists():
        return None
    with safe_open(path, "pt") as stream:
        about = json.loads(stream.metadata()["state"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}
    if about["settings"]["frames"] != settings.frames:
        logging.warning("k-means: frames have changed since %s was written; clustered anew", path)
        return None
    for name, value in _as_json(settings).items():
        if about["settings"][name] != value:
            raise SpireError(
                f"{path}: begun with {name} {about['settings'][name]}, now {value}; go on with"
                " what it was begun with, or remove the file to cluster anew"
            )
    logging.info("k-means: going on after pass %d", len(about["history"]) - 1)
    return State(
        tensors["centres"],
        tensors["counts"],
        about["square_radius"],
        about["history"],
        about["finished"],
    )


def _as_json(settings: Settings) -> Dict[str, Any]:
    return {
        **settings._asdict(),
        "dtype": str(settings.dtype).removeprefix("torch."),
        # One GPU gives what another does.
        "device": torch.device(settings.device).type,
    }
