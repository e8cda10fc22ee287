"""Progress bars that are readable in a terminal and harmless in a log file."""

import sys
from typing import Iterable, Optional

from tqdm import tqdm


def progress(
    iterable: Optional[Iterable] = None,
    *,
    total: Optional[int] = None,
    desc: str = "",
    unit: str = "it",
    initial: int = 0,
    disable: bool = False,
) -> tqdm:
    """A tqdm bar on stderr; outside a terminal it speaks up at most every ten seconds."""
    terminal = sys.stderr.isatty()
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        disable=disable,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        mininterval=0.2 if terminal else 10.0,
        file=sys.stderr,
    )
