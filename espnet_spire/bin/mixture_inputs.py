"""Print the files that a mixture reads, one a line."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mixture", required=True, help="YAML, see espnet_spire/train/mixture.py")
    parser.add_argument("--units_name", required=True, help="unit file's name in a data dir")
    parser.add_argument("--variant", default="", help="ablation")
    parser.add_argument("--dumpdir", default="dump", help="what {dumpdir} in a mixture stands for")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.train.mixture import load_mixture, sources_of
    from espnet_spire.train.sources import mixture_files

    mixture = load_mixture(args.mixture, args.dumpdir)
    print("\n".join(mixture_files(sources_of(mixture, args.variant), args.units_name)))


if __name__ == "__main__":
    run(main)
