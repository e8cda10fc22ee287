"""Make the tables of a corpus of text: training text, or a test set of text alone (stage 1)."""

from espnet_spire.utils.cli import ArgumentParser, run

# Options that not all corpora take, by what they are called in requests.
_OPTIONS = {
    "langs": "langs",
    "files": "files",
    "columns": "columns",
    "splits": "splits",
    "max_files": "max_files",
    "max_bytes": "limits",
    "max_documents": "limits",
    "seed": "seed",
    "nj": "nj",
    "max_rejected": "max_rejected",
}


def get_parser():
    from espnet_spire.corpus.registry import TEXT

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, choices=TEXT)
    parser.add_argument("--root", help="where it lies; by default what its variable of db.sh says")
    parser.add_argument("--split", help="which part of it; of parallel, wmt23, ape a pair: en-de")
    parser.add_argument("--out", help="directory to write (of towerblocks: the file)")
    parser.add_argument(
        "--langs", nargs="+", help="of mc4, mono, flores200; by default SPIRE's ten languages"
    )
    parser.add_argument(
        "--files",
        nargs="+",
        help="of mono: files or patterns with {lang} in them; of parallel: TSV files, archives of"
        " OPUS, or Moses pairs without .en and .de behind them",
    )
    parser.add_argument(
        "--columns", nargs=2, type=int, help="of parallel: both languages in TSV files, from 1"
    )
    parser.add_argument(
        "--splits", nargs="+", help="of towerblocks: take what was made of these splits alone"
    )
    parser.add_argument(
        "--max_files", type=int, help="of mc4, mono: so many files a language, drawn; others unread"
    )
    parser.add_argument("--max_bytes", type=int, help="of text a language or pair, drawn")
    parser.add_argument("--max_documents", type=int, help="a language or pair, drawn")
    parser.add_argument("--seed", type=int, help="of what is drawn; by default 0")
    parser.add_argument("--nj", type=int, help="of mc4, mono: languages at a time; by default 1")
    parser.add_argument(
        "--max_rejected",
        type=float,
        help="of training text: share that may be unusable, by default 0.001; if given, what came"
        " before the end of an archive that was cut off is used",
    )
    parser.add_argument(
        "--print_index", action="store_true", help="make nothing: print the files that are read"
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.corpus.registry import corpus_root, text_corpus
    from espnet_spire.corpus.text_corpus import TextRequest
    from espnet_spire.train.selection import Limits
    from espnet_spire.utils.errors import SpireError

    corpus = text_corpus(args.corpus)
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    for name, value in given.items():
        if _OPTIONS[name] not in corpus.options:
            raise SpireError(f"--{name} is no option of --corpus {corpus.name}")
        if name in ("max_files", "max_bytes", "max_documents", "nj") and value < 1:
            raise SpireError(f"--{name} {value}: must be at least 1")
    limits = Limits(given.pop("max_bytes", None), given.pop("max_documents", None))
    if args.files and args.root:
        raise SpireError("--files and --root: one of them")
    needed = corpus.variable and not args.files
    root = corpus_root(corpus, args.root) if needed else None
    request = TextRequest(root=root, split=args.split, limits=limits, **given)
    if args.print_index:
        print("\n".join(map(str, corpus.index(request))))
        return
    if not args.out:
        raise SpireError("--out is missing: the directory to write")
    corpus.prepare(request, Path(args.out))


if __name__ == "__main__":
    run(main)
