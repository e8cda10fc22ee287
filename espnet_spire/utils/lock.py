"""One process at a piece of work."""

import errno
import fcntl
from pathlib import Path

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError


def lock(stream, path: PathLike) -> None:
    """Hold ``stream`` (an open file) for this process until it is closed.

    A file system without locks is taken as it is.

    Raises:
        SpireError: another process holds it; it names ``path``.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise SpireError(
                f"{Path(path)}: another process is at this job; wait for it or end it"
            ) from None
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
