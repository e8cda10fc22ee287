"""Make the data directory of a corpus's split (stage 1)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    from espnet_spire.corpus.registry import SPEECH

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, choices=SPEECH)
    parser.add_argument("--root", help="where it lies; by default what its variable of db.sh says")
    parser.add_argument("--split", required=True, help="official name")
    parser.add_argument("--targets", nargs="*", help="languages of translations; by default all")
    parser.add_argument("--out", help="data directory to write")
    parser.add_argument(
        "--rules",
        nargs="*",
        default=[],
        help="what is left out, in this order: max_per_speaker=N, max_speakers_per_transcript=N,"
        " min_seconds=X, without_overlap=TABLE",
    )
    parser.add_argument("--seed", type=int, default=0, help="of rules that draw")
    parser.add_argument("--nj", type=int, default=1, help="headers of audio read at a time")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.001,
        help="share of utterances that may be unusable before this is an error; 0 in test sets",
    )
    parser.add_argument(
        "--print_index",
        action="store_true",
        help="make nothing: print the corpus's files that say what there is, one a line",
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.prepare import Request, prepare_split
    from espnet_spire.corpus.registry import corpus_root, speech_corpus
    from espnet_spire.corpus.rules import parse_rule
    from espnet_spire.utils.errors import SpireError

    corpus = speech_corpus(args.corpus)
    root = corpus_root(corpus, args.root)
    if args.nj < 1:
        raise SpireError(f"--nj {args.nj}: must be at least 1")
    targets = corpus.targets if args.targets is None else args.targets
    for lang in targets:
        if lang not in corpus.targets:
            have = ", ".join(corpus.targets) or "none"
            raise SpireError(f"{corpus.name} has no translations into {lang!r}; it has {have}")
    corpus.split(args.split)
    if args.print_index:
        print("\n".join(map(str, corpus.index(root, args.split, targets))))
        return
    if not args.out:
        raise SpireError("--out is missing: the data directory to write")
    rules = [parse_rule(text) for text in args.rules]
    request = Request(root, args.split, targets, rules, args.seed, args.nj, args.max_rejected)
    prepare_split(corpus, request, args.out)


if __name__ == "__main__":
    run(main)
