"""What the tests of corpora of text have in common: a corpus in, its tables out."""

import subprocess
import sys

from espnet_spire.bin.prepare_text import main
from espnet_spire.utils.datadir import read_table


def prepare_text(corpus: str, out, *options) -> dict:
    """Run ``prepare_text``; the tables it left, by file name."""
    main(["--corpus", corpus, "--out", str(out), *map(str, options)])
    return {path.name: read_table(path) for path in sorted(out.glob("text.*"))}


def listed(path) -> dict:
    """Key → reason, of a list of what was not taken."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return dict(line.split("\t") for line in lines)


def run_prepare_text(*options) -> subprocess.CompletedProcess:
    """The same as a user does it, for what is printed and the exit status."""
    command = [sys.executable, "-m", "espnet_spire.bin.prepare_text", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def error_of(*options) -> str:
    """The last line that a run which fails prints."""
    done = run_prepare_text(*options)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("error: ")
