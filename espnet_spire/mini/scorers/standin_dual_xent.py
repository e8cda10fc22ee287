"""STAND-IN for CometKiwi: dual cross-entropy of the translating LM itself."""

from typing import Any

from espnet_spire.corpus.scorers import Scorer


def add_options(parser) -> None:
    """It has none."""


def identity(args) -> Any:
    """The translating LM, and how exactly it computes."""
    from espnet_spire.decode.answers import model_identity

    return {"dual_xent": model_identity(args.model), "dtype": args.dtype}


def make(args, device: str, local_model) -> Scorer:
    """Score with the translating LM, in this process."""
    from espnet_spire.mini.quality import DualCrossEntropy

    return DualCrossEntropy(local_model())
