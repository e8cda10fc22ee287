"""Prompts to token ids: a mixture file to memory-mapped examples (stages 7 and 9)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mixture", required=True, help="YAML, see espnet_spire/train/mixture.py")
    parser.add_argument("--model", required=True, help="extended model directory (tokenizer)")
    parser.add_argument("--units_name", required=True, help="unit file's name in a data dir")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--variant", default="", help="ablation: leaves out sources by not_in")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from transformers import AutoTokenizer

    from espnet_spire.text.vocabulary import read_spire_json
    from espnet_spire.train.mixture import build_examples, load_mixture, report_table

    read_spire_json(args.model)
    report = build_examples(
        load_mixture(args.mixture),
        AutoTokenizer.from_pretrained(args.model),
        args.out,
        units_name=args.units_name,
        variant=args.variant,
    )
    print(report_table(report))


if __name__ == "__main__":
    run(main)
