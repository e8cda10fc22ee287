"""CometKiwi, as in the paper, in COMET's own environment (make comet-env).

Unbabel/wmt22-cometkiwi-da (Rei et al. 2022) is reference-free and scores from 0 to 1; the paper
keeps 85 and more of 100 (section 3.3.1), which is 0.85 here.
"""

from typing import Any, List, Sequence

from espnet_spire.score.comet import Comet, checkpoint_identity, find_checkpoint, find_python

MODEL = "Unbabel/wmt22-cometkiwi-da"


def add_options(parser) -> None:
    """Which checkpoint, and where COMET is."""
    parser.add_argument(
        "--comet_model", default=MODEL, help="of cometkiwi: hub name, directory or .ckpt file"
    )
    parser.add_argument(
        "--comet_python",
        help="of cometkiwi: Python that has COMET ($SPIRE_COMET_PYTHON, else that of"
        " make comet-env)",
    )
    parser.add_argument(
        "--comet_batch_size", type=int, default=16, help="of cometkiwi: pairs of a batch"
    )


def identity(args) -> Any:
    """The checkpoint, wherever it lies."""
    return {"comet": checkpoint_identity(find_checkpoint(args.comet_model))}


def make(args, device: str, local_model) -> "CometKiwi":
    """Start COMET; the translating model is not needed."""
    checkpoint = find_checkpoint(args.comet_model)
    python = find_python(args.comet_python)
    return CometKiwi(
        Comet(checkpoint, python=python, device=device, batch_size=args.comet_batch_size)
    )


class CometKiwi:
    """A reference-free COMET as a scorer."""

    def __init__(self, comet: Comet) -> None:
        self.comet = comet

    def __call__(
        self, sources: Sequence[str], translations: Sequence[str], src: str, tgt: str
    ) -> List[float]:
        """Score pairs; the languages make no difference."""
        pairs = zip(sources, translations, strict=True)
        return self.comet([{"src": source, "mt": translation} for source, translation in pairs])

    def close(self) -> None:
        """End COMET's process."""
        self.comet.close()
