"""What the tests of corpora of text have in common: a corpus in, its tables out."""

import subprocess
import sys

import pytest

from espnet_spire.bin.prepare_text import main
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError


def prepare_text(corpus: str, out, *options) -> dict:
    """Run ``prepare_text``; the tables it left, by file name."""
    main(["--corpus", corpus, "--out", str(out), *map(str, options)])
    return {path.name: read_table(path) for path in sorted(out.glob("text.*"))}


def listed(path) -> dict:
    """Key → reason, of a list of what was not taken."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return dict(line.split("\t") for line in lines)


def error_of(*options) -> str:
    """The message of a run that fails."""
    with pytest.raises(SpireError) as caught:
        main([str(option) for option in options])
    return str(caught.value)


def run_prepare_text(*options) -> subprocess.CompletedProcess:
    """As a user does it, for what is printed and the exit status."""
    command = [sys.executable, "-m", "espnet_spire.bin.prepare_text", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)
