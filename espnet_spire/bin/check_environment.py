"""Check, without importing them, that the packages the recipes need are installed."""

import importlib.util
import sys

from espnet_spire.utils.cli import ArgumentParser, run
from espnet_spire.utils.errors import SpireError

PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "datasets",
    "sentencepiece",
    "sklearn",
    "soundfile",
    "jiwer",
    "sacrebleu",
    "whisper_normalizer",
)
TRAINING_PACKAGES = ("espnet2", "deepspeed", "accelerate", "tensorboard")


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--training", action="store_true", help="those of training, too")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    packages = PACKAGES + (TRAINING_PACKAGES if args.training else ())
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SpireError(
            f"{sys.executable} lacks {', '.join(missing)}; run 'pip install -e .' in the project"
        )


if __name__ == "__main__":
    run(main)
