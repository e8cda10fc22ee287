"""Translate transcripts, score the translations, keep the good ones (stage 6)."""

import logging

from espnet_spire.utils.cli import (
    ArgumentParser,
    add_generation_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)

SCORERS = ("standin_dual_xent",)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="causal LM that translates")
    parser.add_argument(
        "--prompt_style",
        default="chatml",
        choices=["chatml", "plain"],
        help="chatml for instruction-tuned models, plain for base models",
    )
    parser.add_argument("--data_dir", nargs="+", required=True, help="with transcripts in text")
    parser.add_argument("--src_lang", default="en")
    parser.add_argument("--tgt_langs", nargs="+", required=True)
    parser.add_argument("--out", required=True, help="results go to OUT/<data dir's name>.<lang>")
    parser.add_argument(
        "--scorer",
        default=SCORERS[0],
        choices=SCORERS,
        help="standin_dual_xent: the translating LM itself, a stand-in for CometKiwi",
    )
    parser.add_argument("--threshold", type=float, default=0.85, help="least score to keep")
    add_generation_options(parser)
    add_shard_options(parser)
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.corpus import pseudo

    check_shard(args.num_shards, args.shard)
    outs = {
        data_dir: {
            lang: Path(args.out) / f"{Path(data_dir).name}.{lang}" for lang in args.tgt_langs
        }
        for data_dir in args.data_dir
    }
    if not args.merge:
        from espnet_spire.decode.generate import Generator
        from espnet_spire.mini.quality import DualCrossEntropy

        generator = Generator(
            args.model,
            device=default_device(args.device, args.shard),
            dtype=args.dtype,
            batch_tokens=args.batch_tokens,
            max_new_tokens=args.max_new_tokens,
        )
        for data_dir in args.data_dir:
            pseudo.label(
                generator,
                DualCrossEntropy(generator),
                data_dir,
                outs[data_dir],
                src=args.src_lang,
                style=args.prompt_style,
                num_shards=args.num_shards,
                shard=args.shard,
            )
    if args.merge or args.num_shards == 1:
        for data_dir in args.data_dir:
            for lang, out in outs[data_dir].items():
                share = pseudo.select(
                    data_dir, out, lang, threshold=args.threshold, num_shards=args.num_shards
                )
                logging.info("%s: %.1f %% kept", out, 100 * share)


if __name__ == "__main__":
    run(main)
