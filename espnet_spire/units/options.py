"""Options of the commands that turn audio into features, and the encoder that they name."""

import argparse
from typing import Any, Dict

from espnet_spire.utils.cli import add_compute_options, default_device
from espnet_spire.utils.errors import SpireError


def add_feature_options(parser, *, required: bool = True) -> None:
    """What decides which features there are, for a parser or a group of its options."""
    parser.add_argument("--encoder", required=required, help="directory, hub name, or mfcc")
    parser.add_argument("--layer", type=int, required=required, help="transformer block, from 1")
    parser.add_argument(
        "--normalization_eps",
        type=float,
        help="ε of zero mean and unit variance, by default transformers' 1e-7; fairseq has 1e-5",
    )
    parser.add_argument(
        "--pooling", default="mean", choices=["mean", "max"], help="how frames are joined"
    )
    parser.add_argument(
        "--pool_frames", type=int, default=1, help="frames that become one: 2 for 25 Hz, 4 for 12.5"
    )


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that runs an encoder over data directories."""
    add_feature_options(parser)
    parser.add_argument(
        "--window_seconds", type=float, default=100.0, help="longer audio is encoded in such parts"
    )
    parser.add_argument(
        "--batch_seconds",
        type=float,
        help="padded audio a batch, by default 40 on a CPU and 400 on a GPU",
    )
    parser.add_argument("--num_workers", type=int, default=2, help="threads that decode audio")
    add_compute_options(parser)
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.001,
        help="share of utterances that may be unusable before the exit status says failure",
    )


def check_encoder_options(args: argparse.Namespace) -> None:
    """Raise for an option out of its range, before anything is read or written."""
    from espnet_spire.units.encoder import check_dtype

    if args.num_workers < 0:
        raise SpireError(f"--num_workers {args.num_workers}: must be 0 or more")
    if not 0 <= args.max_rejected <= 1:
        raise SpireError(f"--max_rejected {args.max_rejected}: must be between 0 and 1")
    check_dtype(args.encoder, args.dtype)


def batch_seconds(args: argparse.Namespace) -> float:
    """``--batch_seconds``, or what keeps the device busy."""
    if args.batch_seconds is None:
        return 400.0 if _is_gpu(args.device) else 40.0
    if not args.batch_seconds > 0:
        raise SpireError(f"--batch_seconds {args.batch_seconds}: must be more than 0")
    return args.batch_seconds


def _is_gpu(device: str) -> bool:
    """As it is asked for: who merges may have none here."""
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def describe_features(args: argparse.Namespace) -> Dict[str, Any]:
    """``describe_encoder`` of :func:`add_feature_options`."""
    from espnet_spire.units.encoder import describe_encoder

    return describe_encoder(args.encoder, args.layer, **_features(args))


def encoder_from(args: argparse.Namespace):
    """``load_encoder`` of :func:`add_encoder_options`, on the device of the job ``args.shard``."""
    from espnet_spire.units.encoder import load_encoder

    return load_encoder(
        args.encoder,
        args.layer,
        device=default_device(args.device, args.shard),
        dtype=args.dtype,
        window_seconds=args.window_seconds,
        **_features(args),
    )


def _features(args: argparse.Namespace) -> Dict[str, Any]:
    from espnet_spire.units.encoder import Pooling

    pooling = Pooling(args.pooling, args.pool_frames)
    return {"normalization_eps": args.normalization_eps, "pooling": pooling}
