"""Print what a recipe's stages will cost: hours, units, tokens, GPU time, disk (--dry_run true)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="YAML, such as conf/full_corpora.yaml")
    parser.add_argument("--corpora", default="all", help="names of corpora, or all")
    parser.add_argument(
        "--set_rules", nargs="*", default=[], help="as prepare_corpora: other rules for a set"
    )
    parser.add_argument("--stage", type=int, default=1, help="first stage")
    parser.add_argument("--stop_stage", type=int, default=13, help="last stage")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--kmeans_hours", type=float, default=720)
    parser.add_argument("--base_model", required=True)
    parser.add_argument("--pseudo_model", required=True)
    parser.add_argument("--pseudo_langs", nargs="*", default=[])
    parser.add_argument("--pseudo_max_utterances", type=int, default=0, help="0: all")
    parser.add_argument("--cpt_mixture", default="")
    parser.add_argument("--cpt_config", required=True)
    parser.add_argument("--it_config", required=True)
    parser.add_argument("--jobs", nargs="*", default=[])
    parser.add_argument("--text_jobs", nargs="*", default=[])
    parser.add_argument("--variant", default="spirefull")
    parser.add_argument("--gpus", type=int, default=8, help="that work together")
    parser.add_argument("--gpu_tflops", type=float, default=312, help="bfloat16 peak: A100 312")
    parser.add_argument("--train_share", type=float, default=0.4, help="of peak, in training")
    parser.add_argument("--encode_share", type=float, default=0.3, help="of peak, for units")
    parser.add_argument("--decode_share", type=float, default=0.05, help="of peak, in decoding")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.estimate import Machine, Work, estimate, table
    from espnet_spire.corpus.prepare_recipe import parse_set_rules
    from espnet_spire.corpus.recipe import choose, load_recipe
    from espnet_spire.score.report import plain_table

    recipe = load_recipe(args.recipe)
    rules = parse_set_rules(args.set_rules, recipe)
    sets = [one.with_rules(rules.get(one.set)) for one in choose(recipe, args.corpora)]
    work = Work(
        sets,
        args.encoder,
        args.layer,
        args.kmeans_hours,
        args.base_model,
        args.pseudo_model,
        len(args.pseudo_langs),
        args.pseudo_max_utterances,
        args.cpt_mixture,
        args.cpt_config,
        args.it_config,
        len(args.jobs),
        len(args.text_jobs),
        args.variant,
    )
    machine = Machine(
        max(1, args.gpus), args.gpu_tflops, args.train_share, args.encode_share, args.decode_share
    )
    rows, remarks = estimate(work, machine)
    rows = [row for row in rows if args.stage <= row.stage <= args.stop_stage]
    print(plain_table(table(rows, machine)))
    print(
        f"Estimates, right within a factor of two: {machine.gpus} GPUs of {machine.tflops:g}"
        f" TFLOP/s, of which training reaches {machine.train:.0%}, encoding {machine.encode:.0%},"
        f" decoding {machine.decode:.0%}."
    )
    for remark in remarks:
        print(f"Note: {remark}.")


if __name__ == "__main__":
    run(main)
