"""Train the STAND-IN for TowerBase: a small Llama on toy text."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mono_dir", required=True, help="directory with text.<lang>")
    parser.add_argument("--parallel_dir", required=True, help="directory with text.tc.<lang>")
    parser.add_argument("--langs", nargs="+", default=["en", "de", "fr", "zh"])
    parser.add_argument("--out", required=True, help="Hugging Face model directory to write")
    parser.add_argument("--config", help="YAML with fields of SmallTowerConfig")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.mini.small_tower import SmallTowerConfig, train_small_tower
    from espnet_spire.utils.config import read_config

    config = read_config(args.config, SmallTowerConfig)
    train_small_tower(args.mono_dir, args.parallel_dir, args.langs, args.out, config)


if __name__ == "__main__":
    run(main)
