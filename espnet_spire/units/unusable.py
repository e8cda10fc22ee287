"""Why an utterance has no features, as the lists of what was rejected say it."""

from typing import Optional

import numpy as np

NOT_FINITE = "its features are not finite"


def too_short(num_samples: int) -> str:
    return f"{num_samples} samples are shorter than one frame"


def why_unusable(encoder, samples: Optional[np.ndarray], reason: Optional[str]) -> Optional[str]:
    """Why an utterance cannot be encoded, ``None`` if it can.

    Args:
        encoder: its ``num_frames`` is asked.
        samples: (samples,), or ``None`` with the ``reason`` why it could not be read.
    """
    if samples is None:
        return reason
    return None if encoder.num_frames(len(samples)) >= 1 else too_short(len(samples))
