"""Decode test sets with a baseline: HuBERT+CTC, Whisper or SeamlessM4T, greedily."""

from espnet_spire.utils.cli import (
    MAX_NEW_TOKENS,
    ArgumentParser,
    add_compute_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--system", required=True, choices=["ctc", "whisper", "seamless_m4t"])
    parser.add_argument("--model", required=True, help="directory or hub name")
    parser.add_argument(
        "--jobs", nargs="+", required=True, help="TASK.SRC-TGT … of asr, st, mt and st_cascade"
    )
    parser.add_argument("--data_dir", required=True, help="Kaldi data directory")
    parser.add_argument("--speech_lang", default="en", help="language that is spoken")
    parser.add_argument("--out", required=True, help="results go to OUT/TASK.SRC-TGT/text")
    parser.add_argument(
        "--max_new_tokens", type=int, default=MAX_NEW_TOKENS, help="of an answer; not of ctc"
    )
    parser.add_argument("--batch_seconds", type=float, default=240, help="of audio, padded")
    parser.add_argument("--batch_characters", type=int, default=8192, help="of texts, padded")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that decode audio")
    add_compute_options(parser)
    add_shard_options(parser)
    return parser


def _system(args):
    common = {"device": default_device(args.device, args.shard), "dtype": args.dtype}
    if args.system == "ctc":
        from espnet_spire.baselines.ctc import Ctc

        return Ctc(args.model, speech_lang=args.speech_lang, **common)
    common["max_new_tokens"] = args.max_new_tokens
    if args.system == "whisper":
        from espnet_spire.baselines.whisper import Whisper

        return Whisper(args.model, **common)
    from espnet_spire.baselines.seamless import Seamless

    return Seamless(args.model, **common)


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.baselines.run import decode
    from espnet_spire.decode.answers import model_identity
    from espnet_spire.decode.results import merge
    from espnet_spire.text.jobs import parse_job

    check_shard(args.num_shards, args.shard)
    jobs = [parse_job(name) for name in args.jobs]
    common = {"data_dir": args.data_dir, "out": args.out, "speech_lang": args.speech_lang}
    if args.merge:
        merge(jobs, **common, num_shards=args.num_shards)
        return
    from transformers.utils import logging

    logging.set_verbosity_error()  # of parts of a checkpoint that are not needed, and the like
    logging.disable_progress_bar()
    identity = [args.system, model_identity(args.model), args.dtype, args.max_new_tokens]
    decode(
        lambda: _system(args),
        jobs,
        **common,
        identity=identity,
        batch_seconds=args.batch_seconds,
        batch_characters=args.batch_characters,
        num_workers=args.num_workers,
        num_shards=args.num_shards,
        shard=args.shard,
    )


if __name__ == "__main__":
    run(main)
