"""Format audio to 16 kHz mono and filter training sets by duration (stage 2)."""

import logging

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="Kaldi data directory")
    parser.add_argument("--out", required=True, help="data directory to write")
    parser.add_argument("--audio_format", default="flac", choices=["flac", "wav"])
    parser.add_argument("--min_wav_duration", type=float, help="seconds; never for test sets")
    parser.add_argument("--max_wav_duration", type=float, help="seconds; never for test sets")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.0,
        help="share of utterances that may be unreadable before this is an error",
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.corpus.format import Limits, format_data_dir

    rejected = format_data_dir(
        args.data_dir,
        args.out,
        limits=Limits(args.min_wav_duration, args.max_wav_duration),
        audio_format=args.audio_format,
        nj=args.nj,
        max_rejected=args.max_rejected,
    )
    logging.info("%s: %d utterances left out", args.out, len(rejected))


if __name__ == "__main__":
    run(main)
