"""Format audio to 16 kHz mono and filter training sets by duration (stage 2)."""

import logging

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    parser.add_argument("--out", nargs="+", required=True, help="data directory to write for each")
    parser.add_argument(
        "--unfiltered", nargs="*", default=[], help="those of --data_dir that are never filtered"
    )
    parser.add_argument(
        "--src_lang", help="language that is spoken: its text.tc.<lang>, if there, is the text"
    )
    parser.add_argument("--audio_format", default="flac", choices=["flac", "wav"])
    parser.add_argument("--min_wav_duration", type=float, help="seconds")
    parser.add_argument("--max_wav_duration", type=float, help="seconds")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.001,
        help="share of utterances that may be unreadable before this is an error",
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.format import Limits, converters, format_data_dir
    from espnet_spire.utils.errors import SpireError

    if len(args.out) != len(args.data_dir):
        raise SpireError(f"{len(args.data_dir)} --data_dir need as many --out")
    limits = Limits(args.min_wav_duration, args.max_wav_duration)
    with converters(args.nj) as pool:
        for data_dir, out in zip(args.data_dir, args.out, strict=True):
            # A test set is scored whole or not at all.
            whole = data_dir in args.unfiltered
            rejected = format_data_dir(
                data_dir,
                out,
                limits=Limits() if whole else limits,
                pool=pool,
                audio_format=args.audio_format,
                max_rejected=0.0 if whole else args.max_rejected,
                src_lang=args.src_lang,
            )
            logging.info("%s: %d utterances left out", out, len(rejected))


if __name__ == "__main__":
    run(main)
