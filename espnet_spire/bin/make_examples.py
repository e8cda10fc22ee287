"""Prompts to token ids: a mixture file to memory-mapped examples (stages 7 and 9).

Killed or interrupted, the same command goes on where it stopped. The result is the same for any
number of processes.
"""

from espnet_spire.utils.cli import ArgumentParser, add_mixture_options, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    add_mixture_options(parser)
    parser.add_argument("--model", required=True, help="extended model directory (tokenizer)")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--variant", default="", help="ablation: leaves out sources by not_in")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.text.vocabulary import load_tokenizer, read_spire_json
    from espnet_spire.train.build import build_examples
    from espnet_spire.train.examples import encoder_of
    from espnet_spire.train.mixture import load_mixture
    from espnet_spire.train.mixture_report import report_table
    from espnet_spire.utils.errors import SpireError

    mixture = load_mixture(args.mixture, args.dumpdir, dict(args.words))
    num_units = read_spire_json(args.model)["num_units"]
    tokenizer = load_tokenizer(args.model)
    found = encoder_of(tokenizer).num_units
    if found != num_units:
        raise SpireError(
            f"{args.model}: the tokenizer has {found} units, spire.json says {num_units}; make the"
            " model again with extend_vocabulary"
        )
    report = build_examples(
        mixture,
        tokenizer,
        args.out,
        units_name=args.units_name,
        variant=args.variant,
        nj=args.nj,
    )
    print(report_table(report))


if __name__ == "__main__":
    run(main)
