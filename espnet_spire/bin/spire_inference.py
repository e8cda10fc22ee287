"""Decode ASR, MT, direct ST and self-cascade ST (stage 12)."""

from espnet_spire.utils.cli import (
    ArgumentParser,
    add_generation_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="directory or hub name")
    parser.add_argument("--task", choices=["asr", "mt", "st", "st_cascade"])
    parser.add_argument("--src_lang", default="en", help="with --task")
    parser.add_argument("--tgt_lang", help="with --task; the source language for asr")
    parser.add_argument("--jobs", nargs="+", default=[], help="several: TASK.SRC-TGT …")
    parser.add_argument("--data_dir", required=True, help="Kaldi data directory")
    parser.add_argument("--units", help="its unit file, for speech tasks")
    parser.add_argument("--speech_lang", default="en", help="language that is spoken")
    parser.add_argument("--out", required=True, help="results go to OUT/TASK.SRC-TGT/text")
    add_generation_options(parser)
    add_shard_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.decode.run import decode, merge
    from espnet_spire.text.jobs import Job, check_job, parse_job
    from espnet_spire.utils.errors import SpireError

    check_shard(args.num_shards, args.shard)
    jobs = [parse_job(name) for name in args.jobs]
    if args.task:
        jobs.append(check_job(Job(args.task, args.src_lang, args.tgt_lang or args.src_lang)))
    if not jobs:
        raise SpireError("nothing to decode: give --task or --jobs")
    if args.merge:
        merge(
            jobs,
            data_dir=args.data_dir,
            out=args.out,
            num_shards=args.num_shards,
            speech_lang=args.speech_lang,
        )
        return

    def make_generator():
        from espnet_spire.decode.generate import Generator

        return Generator(
            args.model,
            device=default_device(args.device, args.shard),
            dtype=args.dtype,
            batch_tokens=args.batch_tokens,
            max_new_tokens=args.max_new_tokens,
        )

    decode(
        make_generator,
        jobs,
        data_dir=args.data_dir,
        units=args.units,
        out=args.out,
        speech_lang=args.speech_lang,
        num_shards=args.num_shards,
        shard=args.shard,
    )


if __name__ == "__main__":
    run(main)
