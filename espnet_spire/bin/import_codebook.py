"""Make a codebook of a k-means model of scikit-learn, fairseq or ESPnet (joblib, pickle, .npy)."""

from espnet_spire.units.options import add_feature_options, describe_features
from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--joblib", required=True, help="file of a fitted k-means, or K x D .npy")
    parser.add_argument(
        "--trust_pickle",
        action="store_true",
        help="you know where the file comes from: a pickle can run code, which a .npy cannot",
    )
    parser.add_argument("--out", required=True, help="codebook directory to write")
    encoder = parser.add_argument_group("the encoder that it was learned with, where it is known")
    add_feature_options(encoder, required=False)
    return parser


def _encoder(args):
    from espnet_spire.units.encoder import MFCC
    from espnet_spire.utils.errors import SpireError

    if args.encoder is None:
        if args.layer is not None or args.normalization_eps is not None or args.pool_frames != 1:
            raise SpireError("--layer, --normalization_eps and --pool_frames need --encoder")
        return None
    if args.layer is None and args.encoder != MFCC:
        raise SpireError("--encoder needs --layer: the block whose output was clustered")
    return describe_features(args)


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.units.codebook import save_codebook
    from espnet_spire.units.codebook_formats import import_codebook

    codebook = import_codebook(args.joblib, trust_pickle=args.trust_pickle, encoder=_encoder(args))
    save_codebook(codebook, args.out)
    print(f"{args.out}: {codebook.num_clusters} clusters of {codebook.description['dim']}")


if __name__ == "__main__":
    run(main)
