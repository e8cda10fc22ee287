"""Make the data directories of a recipe's corpora (stage 1)."""

import os

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="YAML, such as conf/full_corpora.yaml")
    parser.add_argument("--corpora", default="all", help="names of corpora, or all")
    parser.add_argument("--sets", nargs="*", help="only these sets of them")
    parser.add_argument("--out", default="data", help="where data directories are made")
    parser.add_argument("--expdir", default="exp", help="where the time that steps took is kept")
    parser.add_argument("--nj", type=int, default=1, help="headers of audio read at a time")
    parser.add_argument("--seed", type=int, default=0, help="of rules that draw")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.001,
        help="share of a training set that may be unusable before this is an error",
    )
    parser.add_argument(
        "--set_rules",
        nargs="*",
        default=[],
        help="SET=RULE,RULE: other rules for a set than the recipe's; SET= for none",
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.corpus.prepare_recipe import Options, parse_set_rules, prepare_recipe
    from espnet_spire.corpus.recipe import choose, load_recipe
    from espnet_spire.utils.errors import SpireError

    recipe = load_recipe(args.recipe)
    sets = choose(recipe, args.corpora)
    rules = parse_set_rules(args.set_rules, recipe)
    if args.sets is not None:
        unknown = set(args.sets) - {one.set for one in sets}
        if unknown:
            raise SpireError(f"--sets: {sorted(unknown)[0]!r} is no set of these corpora")
        sets = [one for one in sets if one.set in args.sets]
    options = Options(
        Path(args.out), Path(args.expdir), args.nj, args.seed, args.max_rejected, rules
    )
    prepare_recipe(sets, options, os.environ)


if __name__ == "__main__":
    run(main)
