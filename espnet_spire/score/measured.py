"""What goes into a metric and what comes out of it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from espnet_spire.score.resampling import Interval, signature_with
from espnet_spire.utils.errors import SpireError


@dataclass(frozen=True)
class Texts:
    """N utterances to score: parallel sequences of raw text.

    Attributes:
        keys: of the utterances.
        references: what should have come out.
        hypotheses: what did; an empty one is an answer like any other.
        lang: the shortest ISO 639 code of both.
        sources: what was translated; ``None`` for an utterance of which it is not known.
    """

    keys: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    lang: str
    sources: Optional[Sequence[Optional[str]]] = None

    def __post_init__(self) -> None:
        sides = {"references": self.references, "hypotheses": self.hypotheses}
        if self.sources is not None:
            sides["sources"] = self.sources
        for name, side in sides.items():
            if len(side) != len(self.keys):
                raise ValueError(f"{len(self.keys)} keys but {len(side)} {name}")
        if not self.keys:
            raise SpireError("there is no reference to score against")


@dataclass(frozen=True)
class Measured:
    """What a metric found.

    Attributes:
        value: percentage, 0-100 (error rates can exceed 100).
        signature: how it was made, in sacreBLEU's notation.
        counts: what the value was computed from, and what else is to be known of it.
        statistics: shape (N, S), sufficient statistics of each utterance.
        compared: N references and N hypotheses as they were compared, if not as they were given.
        details: N dictionaries with what else there is to say of each utterance.
    """

    value: float
    signature: str
    counts: Dict[str, Any]
    statistics: np.ndarray
    compared: Optional[Sequence[Sequence[str]]] = None
    details: List[Dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """One number and what it stands on.

    Attributes:
        metric: its name in options and files, e.g. ``wer``.
        value, signature, counts: see :class:`Measured`.
        utterances: number of references.
        interval: 95 % bootstrap interval.
    """

    metric: str
    value: float
    signature: str
    counts: Dict[str, Any]
    utterances: int
    interval: Interval

    def as_dict(self) -> Dict[str, Any]:
        """The score as JSON takes it."""
        content = asdict(self)
        how = {"bs": self.interval.resamples, "seed": self.interval.seed}
        content["interval"]["signature"] = signature_with(self.signature, how)
        return content
