"""What the tests of readers have in common: a corpus in, its tables out."""

import subprocess
import sys

import pytest

from espnet_spire.bin.prepare_corpus import main
from espnet_spire.utils.datadir import read_table, validate_data_dir
from espnet_spire.utils.errors import SpireError


def prepare(corpus: str, root, split: str, out, *options: str) -> dict:
    """Run ``prepare_corpus``; the tables it left, by file name."""
    main(["--corpus", corpus, "--root", str(root), "--split", split, "--out", str(out), *options])
    validate_data_dir(out)
    names = [path.name for path in out.iterdir() if path.suffix not in (".json", ".tsv")]
    return {name: read_table(out / name, allow_empty_value=True) for name in names}


def rejected(out) -> dict:
    """Key → reason, of what was rejected."""
    lines = (out / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def error_of(corpus: str, root, split: str, out, *options: str) -> str:
    """The message of the error that preparing ends with; nothing is left at ``out``."""
    with pytest.raises(SpireError) as raised:
        prepare(corpus, root, split, out, *options)
    assert not out.exists()
    return str(raised.value)


def run_prepare(corpus: str, root, split: str, out, *options: str) -> subprocess.CompletedProcess:
    """The same as a user does it, for what is printed and the exit status."""
    command = [sys.executable, "-m", "espnet_spire.bin.prepare_corpus", "--corpus", corpus]
    command += ["--root", str(root), "--split", split, "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True)
