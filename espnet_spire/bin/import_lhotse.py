"""Make a data directory of lhotse's manifests, or by one of its recipes (stage 1)."""

from espnet_spire.corpus.options import add_set_options
from espnet_spire.utils.cli import ArgumentParser, assignment, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", help="manifest, .jsonl.gz to be read item by item")
    parser.add_argument("--supervisions", help="manifest of what is said in them")
    parser.add_argument("--cuts", help="manifest of cuts, in place of the two others")
    parser.add_argument("--recipe", help="NAME of lhotse.recipes.prepare_NAME, e.g. librispeech")
    parser.add_argument("--corpus_dir", help="of the recipe: the corpus")
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        type=assignment,
        default=[],
        metavar="NAME=VALUE",
        help="of the recipe, as YAML, e.g. language=en num_jobs=4 dataset_parts=[dev-clean]",
    )
    parser.add_argument("--part", help="of what the recipe makes, e.g. dev-clean, or en/test")
    parser.add_argument(
        "--text_field", default="text", help="of supervisions, e.g. custom.orig_text"
    )
    parser.add_argument(
        "--translation",
        nargs="+",
        action="extend",
        type=assignment,
        default=[],
        metavar="LANG=FIELD",
        help="field with the translation, e.g. de=custom.translation_de",
    )
    add_set_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.lhotse_manifests import (
        Fields,
        import_manifests,
        open_manifests,
        run_recipe,
    )
    from espnet_spire.utils.atomic import scratch_dir
    from espnet_spire.utils.errors import SpireError

    pair = args.recordings and args.supervisions
    if [bool(pair), bool(args.cuts), bool(args.recipe)].count(True) != 1:
        raise SpireError("name --recordings and --supervisions, or --cuts, or --recipe")
    if args.recipe and not args.corpus_dir:
        raise SpireError("--recipe needs --corpus_dir: the corpus")
    fields = Fields(args.text_field, dict(args.translation))
    with scratch_dir(f"{args.out}.lhotse") as work:
        if args.recipe:
            options = dict(args.option)
            manifests = run_recipe(args.recipe, args.corpus_dir, options, args.part, work)
        else:
            manifests = open_manifests(args.recordings, args.supervisions, args.cuts)
        import_manifests(
            manifests, args.out, fields, whole=args.test_set, max_rejected=args.max_rejected
        )


if __name__ == "__main__":
    run(main)
