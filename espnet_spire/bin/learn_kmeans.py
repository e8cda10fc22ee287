"""Learn a codebook of speech units by k-means (stage 3).

What is done so far is kept in OUT.work: start the same command again and it goes on.
"""

from espnet_spire.units.options import (
    add_encoder_options,
    batch_seconds,
    check_encoder_options,
    describe_features,
    encoder_from,
)
from espnet_spire.utils.cli import (
    ArgumentParser,
    add_shard_options,
    check_shard,
    default_device,
    run,
)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    add_encoder_options(parser)
    parser.add_argument("--num_clusters", type=int, required=True, help="K, 5000 in the paper")
    parser.add_argument("--out", required=True, help="codebook directory to write")
    parser.add_argument("--hours", type=float, default=720.0, help="audio to learn from")
    parser.add_argument(
        "--max_per_speaker",
        type=int,
        nargs="+",
        default=[],
        help="utterances of one speaker at most: one number, or one for each data directory; 0 is"
        " no limit",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max_gib",
        type=float,
        default=4.0,
        help="memory of the process while it clusters; frames are thinned out to fit",
    )
    parser.add_argument("--passes", type=int, default=10, help="over the frames at most")
    parser.add_argument(
        "--tol", type=float, default=1e-4, help="stop when held-out inertia falls by a lesser share"
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "sklearn", "torch"],
        help="auto: scikit-learn with few clusters, unless an option is torch's alone",
    )
    parser.add_argument(
        "--full_batch", action="store_true", help="Lloyd's passes, not mini-batches (torch only)"
    )
    parser.add_argument(
        "--kmeans_dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="of the torch back-end's products; auto: bfloat16 where the hardware has it",
    )
    parser.add_argument(
        "--keep_frames", action="store_true", help="leave the work directory in place"
    )
    add_shard_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    import logging

    from espnet_spire.units.kmeans import (
        Options,
        cluster,
        collect,
        is_published,
        plan_learning,
        publish,
    )
    from espnet_spire.units.workdir import (
        finish_removal,
        only_one,
        removal_begun,
        remove_work,
        work_directory,
    )

    check_shard(args.num_shards, args.shard)
    check_encoder_options(args)
    description = describe_features(args)
    options = Options(
        num_clusters=args.num_clusters,
        hours=args.hours,
        max_per_speaker=tuple(args.max_per_speaker),
        seed=args.seed,
        passes=args.passes,
        tol=args.tol,
        full_batch=args.full_batch,
        backend=args.backend,
        kmeans_dtype=args.kmeans_dtype,
        max_gib=args.max_gib,
        batch_seconds=args.batch_seconds,
    )
    about_encoder = {"dtype": args.dtype, "window_seconds": args.window_seconds}
    work = work_directory(args.out)
    last = args.merge or args.num_shards == 1
    if removal_begun(work):
        if is_published(args.out, description, args.data_dir, options, about_encoder):
            logging.info("%s: was finished with these settings, only %s was left", args.out, work)
            if last:
                finish_removal(work)
            return
        finish_removal(work)
    plan = plan_learning(
        description,
        args.data_dir,
        options,
        work,
        about_encoder,
        # Who merges runs no encoder, perhaps on a machine without its GPU.
        usual_batch_seconds=None if args.merge else batch_seconds(args),
    )
    if not args.merge:
        encoder = encoder_from(args)
        collect(
            encoder,
            plan,
            work,
            num_shards=args.num_shards,
            shard=args.shard,
            num_workers=args.num_workers,
        )
        del encoder  # its memory is for clustering
    if not last:
        return
    with only_one(work):
        learned = cluster(
            plan,
            work,
            num_shards=args.num_shards,
            device=default_device(args.device) if plan.options.backend == "torch" else "cpu",
            rejected_file=f"{args.out}.rejected.tsv",
            max_rejected=args.max_rejected,
        )
        publish(learned, args.out)
        if not args.keep_frames:
            remove_work(work)
    shown = ("frames", "inertia", "held_out_inertia", "dead_share", "perplexity")
    # fewer than 20 frames leave none to hold out
    known = {name: learned.codebook.description[name] for name in shown}
    print(", ".join(f"{name} {value:.6g}" for name, value in known.items() if value is not None))


if __name__ == "__main__":
    run(main)
