"""What a corpus of text is, and what can be asked of one."""

from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.text.languages import LANGUAGES
from espnet_spire.train.selection import Limits
from espnet_spire.utils.errors import SpireError

# Beside the tables: how many texts there were and were kept, and of what; what was not wanted.
PREPARATION = "preparation.json"
LEFT_OUT = "left_out.tsv"
# Of training texts, where the user does not say.
MAX_REJECTED = 0.001


class TextRequest(NamedTuple):
    """The options of ``prepare_text``, where a corpus takes them; see its ``--help``."""

    root: Optional[Path] = None
    split: Optional[str] = None
    langs: Sequence[str] = tuple(LANGUAGES)
    files: Sequence[str] = ()
    columns: Sequence[int] = (1, 2)
    max_files: Optional[int] = None
    splits: Sequence[str] = ()
    limits: Limits = Limits(None, None)
    seed: int = 0
    nj: int = 1
    max_rejected: Optional[float] = None

    @property
    def share(self) -> float:
        """How much may be unusable."""
        return MAX_REJECTED if self.max_rejected is None else self.max_rejected


class TextCorpus(NamedTuple):
    """A corpus of text.

    ``name``: of the command. ``variable``: of ``db.sh``, which says where it is; empty where
    ``--files`` must. ``source``: where it comes from, for those who have not got it. ``splits``:
    names of what one call makes, or what such a name is. ``options``: those of
    :class:`TextRequest` that it takes beside ``root`` and ``split``. ``index(request)``: the files
    that are read. ``prepare(request, out)`` makes ``out``, as a whole or not at all, and returns
    what ``preparation.json`` says.
    """

    name: str
    variable: str
    source: str
    splits: str
    options: Tuple[str, ...]
    index: Callable[[TextRequest], List[Path]]
    prepare: Callable[[TextRequest, Path], Dict[str, Any]]


def first_there(root: Path, below: Sequence[str], what: str) -> Path:
    """The first of some places below ``root`` that is there."""
    for name in below:
        if (root / name).exists():
            return root / name
    raise SpireError(f"{root}: no {what} there ({' or '.join(below)})")
