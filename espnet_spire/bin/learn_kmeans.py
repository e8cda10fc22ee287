"""Learn a codebook of speech units by k-means (stage 3)."""

from espnet_spire.utils.cli import ArgumentParser, add_compute_options, default_device, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    parser.add_argument("--encoder", required=True, help="directory, hub name, or mfcc")
    parser.add_argument("--layer", type=int, required=True, help="transformer block, from 1")
    parser.add_argument("--num_clusters", type=int, required=True, help="K, 5000 in the paper")
    parser.add_argument("--out", required=True, help="codebook directory to write")
    parser.add_argument("--hours", type=float, default=720.0, help="audio to learn from")
    parser.add_argument("--max_per_speaker", type=int, help="utterances of one speaker at most")
    parser.add_argument("--passes", type=int, default=10, help="over the frames")
    parser.add_argument("--batch_seconds", type=float, default=40.0, help="padded audio a batch")
    parser.add_argument("--max_gib", type=float, default=4.0, help="memory for frames")
    parser.add_argument("--seed", type=int, default=0)
    add_compute_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.units.codebook import save_codebook
    from espnet_spire.units.encoder import load_encoder
    from espnet_spire.units.kmeans import learn_codebook

    encoder = load_encoder(
        args.encoder, args.layer, device=default_device(args.device), dtype=args.dtype
    )
    codebook = learn_codebook(
        encoder,
        args.data_dir,
        num_clusters=args.num_clusters,
        hours=args.hours,
        max_per_speaker=args.max_per_speaker,
        seed=args.seed,
        # Half for the frames, half for what shuffling and clustering copy.
        max_bytes=int(args.max_gib * 2**30 / 2),
        batch_seconds=args.batch_seconds,
        passes=args.passes,
    )
    save_codebook(codebook, args.out)
    shown = ("frames", "inertia", "held_out_inertia", "dead_share", "perplexity")
    # fewer than 20 frames leave none to hold out
    known = {name: codebook.description[name] for name in shown}
    print(", ".join(f"{name} {value:.6g}" for name, value in known.items() if value is not None))


if __name__ == "__main__":
    run(main)
