"""Command line options that the importers of data share."""

import argparse

from espnet_spire.utils.cli import assignment
from espnet_spire.utils.datadir import translation_file


def add_max_rejected(parser: argparse.ArgumentParser) -> None:
    """How many utterances may be unusable."""
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.001,
        help="share of utterances that may be unusable before this is an error; 0 in test sets",
    )


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """The set that is written, and what is to be done with utterances that cannot be used."""
    parser.add_argument("--out", required=True, help="data directory to write")
    parser.add_argument("--test_set", action="store_true", help="a test set: whole, or not at all")
    add_max_rejected(parser)


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """What of Kaldi's data directories is taken."""
    parser.add_argument(
        "--src_lang", help="language that is spoken: its text.tc.<lang>, if there, is the text"
    )
    parser.add_argument("--text", help="table of the transcripts, another than that")
    parser.add_argument(
        "--tgt_langs",
        nargs="*",
        help="languages of translations, in text.tc.<lang>; by default all that are there",
    )
    parser.add_argument(
        "--translation",
        nargs="+",
        action="extend",
        type=assignment,
        default=[],
        metavar="LANG=TABLE",
        help="a translation that is in another table, e.g. de=text.lc.de",
    )
    parser.add_argument(
        "--recipe_dir",
        help="what relative paths are relative to; by default the nearest directory above the data"
        " that has a path.sh, else the current one",
    )


def import_choice(args: argparse.Namespace):
    """What the options say, as :class:`espnet_spire.corpus.kaldi.Choice`."""
    from espnet_spire.corpus.kaldi import Choice

    translations = None
    if args.tgt_langs is not None or args.translation:
        translations = {lang: translation_file(lang) for lang in args.tgt_langs or []}
        translations.update(args.translation)
    return Choice(args.text, args.src_lang, translations, args.recipe_dir)
