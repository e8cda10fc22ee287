"""Learning rate as a pure function of the step."""

import math


def learning_rate(
    step: int, *, total_steps: int, warmup_steps: int, peak: float, final_ratio: float
) -> float:
    """Linear warm-up to ``peak``, then a cosine down to ``final_ratio · peak``.

    Args:
        step: the step about to be taken, from 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak * (final_ratio + (1 - final_ratio) * cosine)
