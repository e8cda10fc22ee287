"""COMET-22, xCOMET and CometKiwi as metrics: means of what COMET says of each utterance.

COMET runs in an environment of its own (:mod:`espnet_spire.score.comet`). It gives 0 to 1; scores
are printed times 100, as in the paper.
"""

import contextlib
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional

import numpy as np

from espnet_spire.score.comet import Comet, checkpoint_identity, find_checkpoint, find_python
from espnet_spire.score.measured import Measured, Texts
from espnet_spire.utils.errors import SpireError

# Metric → its model on the hub (Rei et al. 2022; Guerreiro et al. 2024; Rei et al. 2022b).
MODELS = {
    "comet22": "Unbabel/wmt22-comet-da",
    "xcomet": "Unbabel/XCOMET-XL",
    "cometkiwi": "Unbabel/wmt22-cometkiwi-da",
}


class Found(NamedTuple):
    """A model as the user named it, its checkpoint here and what tells it from others."""

    name: str
    checkpoint: Path
    identity: str


class QualityModels(contextlib.AbstractContextManager):
    """COMET's models, each loaded when it is first asked and kept until the end.

    Args:
        checkpoints: metric → hub name, directory or ``.ckpt`` file, in place of ``MODELS``.
        python: the Python that has COMET, see :func:`espnet_spire.score.comet.find_python`.
        device: torch device.
        batch_size: samples of a batch.
    """

    def __init__(
        self,
        checkpoints: Optional[Mapping[str, str]] = None,
        *,
        python: Optional[str] = None,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        unknown = sorted(set(checkpoints or {}) - set(MODELS))
        if unknown:
            raise SpireError(
                f"--comet_models: {unknown[0]} is none of COMET's metrics ({', '.join(MODELS)})"
            )
        self._names = {**MODELS, **(checkpoints or {})}
        self._python = python
        self._device = device
        self._batch_size = batch_size
        self._found: Dict[str, Found] = {}
        self._loaded: Dict[str, Comet] = {}

    def find(self, metrics: Iterable[str]) -> None:
        """Insist that what these metrics need is here, before anything is computed.

        Raises:
            SpireError: COMET's environment or a checkpoint is missing; it says what to do.
        """
        for metric in metrics:
            if metric in MODELS and metric not in self._found:
                find_python(self._python)
                name = self._names[metric]
                checkpoint = find_checkpoint(name)
                self._found[metric] = Found(name, checkpoint, checkpoint_identity(checkpoint))

    def measure(self, metric: str, texts: Texts) -> Measured:
        """Score utterances; statistics are (score between 0 and 1, 1).

        Details of xCOMET have its ``error_spans``.

        Raises:
            SpireError: the sources are not known, or COMET failed.
        """
        if texts.sources is None:
            raise SpireError(f"{metric} looks at the source text, and there is none (--src)")
        self.find([metric])
        found = self._found[metric]
        if metric not in self._loaded:
            self._loaded[metric] = Comet(
                found.checkpoint,
                python=find_python(self._python),
                device=self._device,
                batch_size=self._batch_size,
            )
        comet = self._loaded[metric]
        with_reference = metric != "cometkiwi"
        if comet.about["needs_reference"] and not with_reference:
            raise SpireError(f"{found.name} needs references: it is no model for {metric}")
        samples = []
        for key, source, hypothesis, reference in zip(
            texts.keys, texts.sources, texts.hypotheses, texts.references, strict=True
        ):
            if source is None:
                raise SpireError(f"{metric} looks at the source text, and {key} has none")
            sample = {"src": source, "mt": hypothesis}
            samples.append({**sample, "ref": reference} if with_reference else sample)
        answer = comet.predict(samples)
        scores = np.array(answer["scores"], float)
        spans = answer.get("metadata", {}).get("error_spans")
        fields = {
            "nrefs": int(with_reference),
            # A path says nothing elsewhere; the identity tells checkpoints apart.
            "model": found.name if found.name == MODELS[metric] else Path(found.name).name,
            "checkpoint": found.identity[:12],
            "tool": "unbabel-comet",
            "version": comet.about["comet"],
        }
        return Measured(
            value=100.0 * float(scores.mean()),
            signature="|".join(f"{name}:{value}" for name, value in fields.items()),
            counts={"mean": float(scores.mean()), "checkpoint": found.identity},
            statistics=np.stack([scores, np.ones(len(scores))], axis=1),
            details=_details(spans),
        )

    def __exit__(self, *_: Any) -> None:
        for comet in self._loaded.values():
            comet.close()
        self._loaded.clear()


def _details(spans: Optional[Iterable[Any]]):
    return [{"error_spans": some} for some in spans] if spans is not None else []
