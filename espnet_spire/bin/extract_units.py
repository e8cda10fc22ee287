"""Turn audio into units (stage 4): Kaldi text, ``<utt> 12 7 4999 …``, repeats merged."""

import logging

from espnet_spire.utils.cli import (
    ArgumentParser,
    add_compute_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    parser.add_argument("--encoder", required=True, help="directory, hub name, or mfcc")
    parser.add_argument("--layer", type=int, required=True, help="transformer block, from 1")
    parser.add_argument("--codebook", required=True, help="codebook directory")
    parser.add_argument("--out", nargs="+", required=True, help="unit file for each data dir")
    parser.add_argument("--keep_repeats", action="store_true", help="do not merge repeats")
    parser.add_argument("--batch_seconds", type=float, default=40.0, help="padded audio a batch")
    add_compute_options(parser)
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.0,
        help="share of utterances that may be unusable before the exit status says failure",
    )
    add_shard_options(parser)
    return parser


def _finish(out, units, rejected, max_rejected):
    from espnet_spire.utils.datadir import write_rejected, write_table
    from espnet_spire.utils.errors import SpireError

    write_rejected(f"{out}.rejected.tsv", rejected)
    for key, reason in rejected.items():
        logging.warning("rejected %s: %s", key, reason)
    if len(rejected) > max_rejected * (len(units) + len(rejected)):
        key, reason = next(iter(rejected.items()))
        raise SpireError(
            f"{len(rejected)} of {len(units) + len(rejected)} utterances are unusable, first"
            f" {key}: {reason} (all in {out}.rejected.tsv; --max_rejected allows a share)"
        )
    if not units:
        raise SpireError(f"{out}: no utterance is usable")
    write_table(out, units)


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.utils.datadir import read_rejected, write_rejected, write_table
    from espnet_spire.utils.errors import SpireError
    from espnet_spire.utils.shards import join_tables, remove_shards, shard_file, shard_files

    check_shard(args.num_shards, args.shard)
    if len(args.out) != len(args.data_dir):
        raise SpireError(f"{len(args.data_dir)} --data_dir need as many --out")
    if args.merge:
        for out in args.out:
            units = join_tables(out, args.num_shards)
            rejected_out = f"{out}.rejected.tsv"
            rejected = {}
            for path in shard_files(rejected_out, args.num_shards):
                rejected.update(read_rejected(path))
            _finish(out, units, rejected, args.max_rejected)
            remove_shards([out, rejected_out], args.num_shards)
        return

    from espnet_spire.units.codebook import load_codebook
    from espnet_spire.units.encoder import load_encoder
    from espnet_spire.units.extract import extract_units

    codebook = load_codebook(args.codebook)
    encoder = load_encoder(
        args.encoder, args.layer, device=default_device(args.device), dtype=args.dtype
    )
    for data_dir, out in zip(args.data_dir, args.out, strict=True):
        units, rejected = extract_units(
            encoder,
            codebook,
            data_dir,
            keep_repeats=args.keep_repeats,
            batch_seconds=args.batch_seconds,
            num_shards=args.num_shards,
            shard=args.shard,
        )
        if args.num_shards == 1:
            _finish(out, units, rejected, args.max_rejected)
        else:
            rejected_out = shard_file(f"{out}.rejected.tsv", args.num_shards, args.shard)
            write_rejected(rejected_out, rejected)
            write_table(shard_file(out, args.num_shards, args.shard), units)


if __name__ == "__main__":
    run(main)
