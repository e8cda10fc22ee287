"""Make a data directory of one or several of another Kaldi or ESPnet recipe (stage 1)."""

from espnet_spire.corpus.options import add_import_options, add_set_options, import_choice
from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data_dir",
        nargs="+",
        action="extend",
        required=True,
        help="data/<set> or dump/raw/<set> of a recipe; several become one",
    )
    add_set_options(parser)
    add_import_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.kaldi import import_data_dirs

    import_data_dirs(
        args.data_dir,
        args.out,
        import_choice(args),
        whole=args.test_set,
        max_rejected=args.max_rejected,
    )


if __name__ == "__main__":
    run(main)
