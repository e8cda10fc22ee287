"""Learn subwords of units with SentencePiece (stage 4, optional)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--units", nargs="+", required=True, help="unit files to learn from")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--codebook", help="directory of the codebook whose units they are")
    size.add_argument("--num_units", type=int, help="its K, where there is no codebook")
    parser.add_argument("--vocab_size", type=int, required=True, help="V: K units and V-K merges")
    parser.add_argument("--out", required=True, help="model directory to write")
    parser.add_argument(
        "--max_utterances",
        type=int,
        default=20000,
        help="drawn to learn from; 20000 of 400 units take 1.5 GB and 3 minutes",
    )
    parser.add_argument("--max_piece_units", type=int, default=16, help="units in a piece at most")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.units.codebook import codebook_identity
    from espnet_spire.units.subwords import learn_unit_bpe

    codebook = codebook_identity(args.codebook) if args.codebook else None
    learned = learn_unit_bpe(
        args.units,
        codebook["num_clusters"] if codebook else args.num_units,
        args.vocab_size,
        args.out,
        max_utterances=args.max_utterances,
        max_piece_units=args.max_piece_units,
        seed=args.seed,
        codebook=codebook,
    )
    print(
        f"unit BPE: {learned['vocab_size']} pieces from {learned['utterances']} of"
        f" {learned['of_utterances']} utterances, which become"
        f" {1 - learned['numbers'] / learned['units']:.1%} shorter"
    )


if __name__ == "__main__":
    run(main)
