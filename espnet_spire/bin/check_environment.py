"""Check, without importing them, that the packages the recipes need are installed."""

import importlib.util
import sys

from espnet_spire.utils.cli import ArgumentParser, run
from espnet_spire.utils.errors import SpireError

PACKAGES = (
    "espnet2",
    "torch",
    "torchaudio",
    "transformers",
    "deepspeed",
    "datasets",
    "sentencepiece",
    "sklearn",
    "soundfile",
    "jiwer",
    "sacrebleu",
    "whisper_normalizer",
)


def get_parser():
    return ArgumentParser(description=__doc__)


def main(cmd=None):
    get_parser().parse_args(cmd)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SpireError(
            f"{sys.executable} lacks {', '.join(missing)}; run 'pip install -e .' in the project"
        )


if __name__ == "__main__":
    run(main)
