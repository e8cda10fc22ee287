"""The one exception that means: the user can fix this."""


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
