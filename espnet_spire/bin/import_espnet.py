"""Run a recipe of ESPnet's local/data.sh in place, and import what it leaves (stage 1)."""

import os
import shlex

from espnet_spire.corpus.options import add_import_options, add_max_rejected, import_choice
from espnet_spire.utils.cli import ArgumentParser, run, split_command


def get_parser():
    parser = ArgumentParser(
        description=__doc__, epilog="Words after -- are given to ESPnet's local/data.sh."
    )
    parser.add_argument(
        "--espnet_root",
        default=os.environ.get("ESPNET_ROOT"),
        help="ESPnet's checkout; by default what the variable ESPNET_ROOT says",
    )
    parser.add_argument("--recipe", required=True, help="of egs2, e.g. covost2/st1")
    parser.add_argument("--recipe_opts", default="", help="for its local/data.sh, as one word")
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="THEIRS:OURS",
        help="sets to import and what they are called here; ONE+TWO:OURS joins two",
    )
    parser.add_argument(
        "--test_sets", nargs="*", default=[], help="those of ours that are test sets: whole"
    )
    parser.add_argument(
        "--where",
        default="auto",
        choices=["auto", "data", "dump"],
        help="where sets are looked for: data/<set>, dump/raw/<set>, or in this order in both",
    )
    parser.add_argument(
        "--skip_recipe", action="store_true", help="do not run it: import what is there"
    )
    parser.add_argument("--out", default="data", help="where the sets go")
    parser.add_argument("--expdir", default="exp", help="where the log goes")
    parser.add_argument(
        "--nj", type=int, help="as stage 1 gives it; ESPnet's recipes have their own"
    )
    add_import_options(parser)
    add_max_rejected(parser)
    return parser


def main(cmd=None):
    ours, more = split_command(cmd)
    args = get_parser().parse_args(ours)
    from espnet_spire.corpus.espnet_recipe import (
        find_recipe,
        has_sets,
        import_recipe,
        parse_sets,
        run_recipe,
    )
    from espnet_spire.utils.errors import SpireError

    if not args.espnet_root:
        raise SpireError("--espnet_root is missing, and ESPNET_ROOT not set: ESPnet's checkout")
    sets = parse_sets(args.sets)
    directory = find_recipe(args.espnet_root, args.recipe)
    if not args.skip_recipe:
        missing = not has_sets(directory, sets, args.where)
        options = [*shlex.split(args.recipe_opts), *more]
        run_recipe(directory, options, args.expdir, again=missing)
    import_recipe(
        directory,
        sets,
        args.out,
        import_choice(args),
        where=args.where,
        test_sets=" ".join(args.test_sets).split(),
        max_rejected=args.max_rejected,
    )


if __name__ == "__main__":
    run(main)
