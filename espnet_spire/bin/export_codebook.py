"""Write a codebook as a k-means model of scikit-learn, for fairseq's and ESPnet's scripts."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--codebook", required=True, help="codebook directory")
    parser.add_argument("--joblib", required=True, help="file to write")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "float64"],
        help="of the centroids; predict() takes samples of this type alone",
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.units.codebook import load_codebook
    from espnet_spire.units.codebook_formats import export_codebook

    export_codebook(load_codebook(args.codebook), args.joblib, args.dtype)


if __name__ == "__main__":
    run(main)
