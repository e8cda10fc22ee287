"""Print the files that a mixture reads, one a line."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mixture", required=True, help="YAML, see espnet_spire/train/mixture.py")
    parser.add_argument("--units_name", required=True, help="unit file's name in a data dir")
    parser.add_argument("--variant", default="", help="ablation")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.train.mixture import load_mixture, source_files, sources_of

    files = {
        str(file)
        for source in sources_of(load_mixture(args.mixture), args.variant)
        for file in source_files(source, args.units_name)
    }
    print("\n".join(sorted(files)))


if __name__ == "__main__":
    run(main)
