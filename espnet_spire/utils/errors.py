"""The one exception that means: the user can fix this."""


class SpireError(Exception):
    """Bad input, a missing file, an impossible option.

    The message is one line that names the file, line or key at fault and says what to do.
    Entry points print it without a traceback and exit with status 1; anything else that
    escapes is a bug of ours and keeps its traceback.
    """
