"""What a stage could not use: a line of the list for each, and how many there may be."""

from typing import Optional, Tuple

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError


def rejected_line(key: str, reason: str) -> str:
    """A line of ``rejected.tsv``: key, tab, reason, whose white space becomes single spaces."""
    return f"{key}\t{_one_line(reason)}\n"


def check_rejected(
    rejected: int,
    total: int,
    max_rejected: float,
    *,
    first: Optional[Tuple[str, str]],
    listed: Optional[PathLike] = None,
    where: str = "",
    what: str = "utterances",
    advice: str = "mend them and start again: only they are done again",
) -> None:
    """Raise if more than a share of all is unusable.

    Args:
        rejected: how many of ``total`` are.
        max_rejected: share that may be, 0 to 1.
        first: of them, key and reason; ``None`` if there is none.
        listed: file that has them all.
        where: begins the message.
        what: they are, of which there are ``total``.
        advice: ends the message.
    """
    if rejected <= max_rejected * total:
        return
    key, reason = first
    in_file = f"all in {listed}; " if listed is not None else ""
    raise SpireError(
        f"{where}{rejected} of {total} {what} are unusable, first {key}: {_one_line(reason)}"
        f" ({in_file}--max_rejected allows a share; {advice})"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
