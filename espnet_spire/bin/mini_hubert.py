"""Train the mini recipe's stand-in for HuBERT: ``python -m espnet_spire.bin.mini_hubert``."""

import time
from typing import Optional, Sequence

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="mini_hubert",
        description="Train a small HuBERT by masked prediction of MFCC k-means labels.",
    )
    parser.add_argument(
        "--data_dir", required=True, nargs="+", help="Kaldi data directories with wav.scp"
    )
    parser.add_argument("--out", required=True, help="the Hugging Face directory to write")
    parser.add_argument("--config", help="YAML settings, see conf/mini_hubert.yaml")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same model")
    parser.add_argument(
        "--num_threads", type=int, default=0, help="threads of torch; 0 leaves its own choice"
    )
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Parse, train, print the masked-prediction accuracy."""
    args = get_parser().parse_args(cmd)
    import torch

    from espnet_spire.mini.small_hubert import SmallHubertConfig, train
    from espnet_spire.utils.config import read_config

    start = time.monotonic()
    config = read_config(args.config, SmallHubertConfig)
    if args.num_threads > 0:
        torch.set_num_threads(args.num_threads)
    result = train(args.data_dir, args.out, config, args.seed)
    print(
        f"{args.out}: masked prediction on held-out utterances: accuracy"
        f" {100 * result.accuracy:.1f} %, loss {result.loss:.3f};"
        f" {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    run(main)
