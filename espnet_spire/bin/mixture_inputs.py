"""Print the files that a mixture reads, one a line."""

from espnet_spire.utils.cli import ArgumentParser, add_mixture_options, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    add_mixture_options(parser)
    parser.add_argument("--variant", default="", help="ablation")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.train.mixture import load_mixture, sources_of
    from espnet_spire.train.sources import mixture_files

    mixture = load_mixture(args.mixture, args.dumpdir, dict(args.words))
    print("\n".join(mixture_files(sources_of(mixture, args.variant), args.units_name)))


if __name__ == "__main__":
    run(main)
