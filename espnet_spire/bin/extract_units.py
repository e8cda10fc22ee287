"""Turn audio into units (stage 4): Kaldi text, ``<utt> 12 7 4999 …``, repeats merged."""

from espnet_spire.units.options import (
    add_encoder_options,
    batch_seconds,
    check_encoder_options,
    describe_features,
    encoder_from,
)
from espnet_spire.utils.cli import ArgumentParser, add_shard_options, check_shard, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    add_encoder_options(parser)
    parser.add_argument("--codebook", required=True, help="codebook directory")
    parser.add_argument("--out", nargs="+", required=True, help="unit file for each data dir")
    parser.add_argument("--keep_repeats", action="store_true", help="do not merge repeats")
    add_shard_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.units.assign import Assigner
    from espnet_spire.units.codebook import load_codebook
    from espnet_spire.units.extract import Job, Options, join_jobs, settings_of
    from espnet_spire.utils.errors import SpireError

    check_shard(args.num_shards, args.shard)
    if len(args.out) != len(args.data_dir):
        raise SpireError(f"{len(args.data_dir)} --data_dir need as many --out")
    check_encoder_options(args)
    sets = list(zip(args.data_dir, args.out, strict=True))
    codebook = load_codebook(args.codebook)
    options = Options(args.keep_repeats, batch_seconds(args), args.num_workers)
    if args.merge:
        description = describe_features(args)
        description.update(window_seconds=args.window_seconds, dtype=args.dtype)
        settings = settings_of(description, codebook, options)
        if args.batch_seconds is None:
            # it depends on the device of the jobs, which need not be this one
            del settings["batch_seconds"]
    else:
        encoder = encoder_from(args)
        job = Job(encoder, Assigner(codebook, encoder.device), codebook, options)
        settings = job.settings
    problems = []
    for data_dir, out in sets:
        if not args.merge:
            job.run(data_dir, out, num_shards=args.num_shards, shard=args.shard)
        if args.merge or args.num_shards == 1:
            try:
                summary = join_jobs(
                    data_dir,
                    out,
                    args.num_shards,
                    max_rejected=args.max_rejected,
                    settings=settings,
                )
                print(f"{out}: {summary.line()}")
            except SpireError as error:  # the other sets are finished all the same
                problems.append(error)
    if problems:
        raise problems[0]


if __name__ == "__main__":
    run(main)
