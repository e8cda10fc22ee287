"""Draw how often each unit is used (stage 4)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--codebook", required=True, help="codebook directory")
    parser.add_argument("--units", nargs="+", required=True, help="unit files")
    parser.add_argument("--out", required=True, help="PNG to write")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.units.codebook import DESCRIPTION
    from espnet_spire.units.notation import unit_counts
    from espnet_spire.utils.atomic import read_json
    from espnet_spire.utils.plots import plot_unit_use

    num_clusters = read_json(Path(args.codebook) / DESCRIPTION)["num_clusters"]
    counts = unit_counts(args.units, num_clusters)
    use = plot_unit_use(
        counts, args.out, f"Use of {num_clusters} units ({Path(args.codebook).name})"
    )
    print(f"units: {100 * use.dead:.1f} % never used, perplexity {use.perplexity:.1f}")


if __name__ == "__main__":
    run(main)
