"""The one exception that means: the user can fix this."""

import os
from typing import Union


class SpireError(Exception):
    """Bad input, a missing file, an impossible option.

    The message is one line that names the file, line or key at fault and says what to do.
    Entry points print it without a traceback and exit with ``exit_code``; anything else that
    escapes is a bug of ours and keeps its traceback.
    """

    exit_code = 1


class Stopped(SpireError):
    """A signal ended the work, what was done is saved, and the same command goes on from there.

    Its status is EX_TEMPFAIL: a scheduler may start the job again.
    """

    exit_code = 75


def model_error(name: Union[str, os.PathLike], error: Exception) -> SpireError:
    """What to raise for a model that transformers cannot load: its first line, or that a directory
    is not there, which transformers takes for a malformed name on the hub."""
    name = str(name)
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if is_path and not os.path.isdir(name):
        reason = "no such directory"
    return SpireError(f"--model {name}: {reason}")
