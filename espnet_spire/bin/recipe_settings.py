"""Print options of spire.sh (name=value lines) that follow from a recipe's corpora."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="YAML, such as conf/full_corpora.yaml")
    parser.add_argument("--corpora", default="all", help="names of corpora, or all")
    parser.add_argument(
        "--mixtures",
        nargs="*",
        default=[],
        help="OPTION=FILE: options that name mixtures, which are rewritten where corpora are left"
        " out",
    )
    parser.add_argument("--out", required=True, help="directory for rewritten mixtures")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.corpus.recipe import (
        choose,
        load_recipe,
        select_mixture,
        settings,
        write_mixture,
    )

    recipe = load_recipe(args.recipe)
    chosen = choose(recipe, args.corpora)
    values = settings(chosen)
    for entry in args.mixtures:
        name, _, path = entry.partition("=")
        if not path or len(chosen) == len(recipe):
            values[name] = path
            continue
        mixture = select_mixture(path, recipe, chosen)
        values[name] = ""
        if mixture is not None:
            values[name] = str(Path(args.out) / Path(path).name)
            write_mixture(values[name], mixture, path)
    for name, value in values.items():
        print(f"{name}={value}")


if __name__ == "__main__":
    run(main)
