"""Translate transcripts, score the translations, keep the good ones (stage 6)."""

import logging

from espnet_spire.utils.cli import (
    ArgumentParser,
    add_generation_options,
    add_server_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)

# Where scorers are found; a later one's stand-ins are named as such.
SCORER_PACKAGES = ("espnet_spire.corpus.scorers", "espnet_spire.mini.scorers")


def get_parser():
    from espnet_spire.corpus.scorers import describe, find_scorers

    scorers = find_scorers(SCORER_PACKAGES)
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", required=True, help="causal LM that translates; of a server's, its tokenizer"
    )
    parser.add_argument(
        "--prompt_style",
        default="chatml",
        choices=["chatml", "plain"],
        help="chatml for instruction-tuned models, plain for base models",
    )
    parser.add_argument("--data_dir", nargs="+", required=True, help="with transcripts in text")
    parser.add_argument(
        "--max_utterances",
        type=int,
        help="of each data directory, drawn at random; a larger number keeps what a smaller kept",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--src_lang", default="en")
    parser.add_argument("--tgt_langs", nargs="+", required=True)
    parser.add_argument("--out", required=True, help="results go to OUT/<data dir's name>.<lang>")
    parser.add_argument(
        "--scorer", default="cometkiwi", choices=sorted(scorers), help=describe(scorers)
    )
    parser.add_argument("--threshold", type=float, default=0.85, help="least score to keep")
    for scorer in scorers.values():
        scorer.add_options(parser)
    add_generation_options(parser)
    add_server_options(parser)
    add_shard_options(parser)
    return parser


def _check(args):
    from pathlib import Path

    from espnet_spire.utils.errors import SpireError

    check_shard(args.num_shards, args.shard)
    if args.max_utterances is not None and args.max_utterances < 1:
        raise SpireError(f"--max_utterances {args.max_utterances}: at least 1 is needed")
    names = [Path(data_dir).name for data_dir in args.data_dir]
    for name in names:
        if names.count(name) > 1:
            raise SpireError(f"--data_dir: two are named {name}, so their results would be one")


def _settings(args, scorer):
    from espnet_spire.corpus.pseudo import Settings
    from espnet_spire.decode.answers import load_tokenizer, model_identity
    from espnet_spire.train.examples import special_tokens

    # Where it runs makes no difference; by which arithmetic, it does.
    how = {"server_model": _server_model(args)} if args.server else {"dtype": args.dtype}
    return Settings(
        src=args.src_lang,
        style=args.prompt_style,
        translator={"model": model_identity(args.model), **how},
        scorer=scorer.identity(args),
        max_new_tokens=args.max_new_tokens,
        special_tokens=special_tokens(load_tokenizer(args.model)),
    )


def _server_model(args):
    return args.server_model or args.model


def _local_model(args):
    from espnet_spire.decode.generate import Generator

    return Generator(
        args.model,
        device=default_device(args.device, args.shard),
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
        max_new_tokens=args.max_new_tokens,
    )


def _server(args):
    from espnet_spire.decode.server import ServerGenerator, server_settings

    return ServerGenerator.of_model(
        args.model, server_settings(args), max_new_tokens=args.max_new_tokens
    )


def _label(args, settings, scorer, texts):
    from functools import cache

    from espnet_spire.corpus.pseudo import label

    local_model = cache(lambda: _local_model(args))
    made = []

    def make_scorer():
        if not made:
            device = default_device(args.device, args.shard)
            made.append(scorer.make(args, device, local_model))
        return made[0]

    try:
        label(
            settings,
            texts,
            args.out,
            args.tgt_langs,
            cache(lambda: _server(args)) if args.server else local_model,
            make_scorer,
            num_shards=args.num_shards,
            shard=args.shard,
        )
    finally:
        for scorer in made:
            scorer.close()


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    _check(args)
    from espnet_spire.corpus.pseudo import read_texts, select
    from espnet_spire.corpus.pseudo_report import write_report
    from espnet_spire.corpus.scorers import find_scorers
    from espnet_spire.utils.errors import SpireError

    scorer = find_scorers(SCORER_PACKAGES)[args.scorer]
    settings = _settings(args, scorer)
    corpora = {}
    for data_dir in args.data_dir:
        texts, total = read_texts(data_dir, settings, args.max_utterances, args.seed)
        logging.info("%s: %d of %d utterances are translated", data_dir, len(texts), total)
        corpora[data_dir] = texts, total
    if not args.merge:
        texts = (text for table, _ in corpora.values() for text in table.values())
        _label(args, settings, scorer, texts)
    if not args.merge and args.num_shards > 1:
        return
    rows = []
    for lang in args.tgt_langs:
        for data_dir, (texts, total) in corpora.items():
            counts = select(
                settings,
                data_dir,
                texts,
                args.out,
                lang,
                threshold=args.threshold,
                utterances=total,
            )
            share = 100 * counts.kept / max(1, counts.selected)
            logging.info("%s.%s: %.1f %% kept", counts.corpus, lang, share)
            rows.append(counts)
    about = {
        **{"threshold": args.threshold, "scorer": args.scorer, "seed": args.seed},
        **{"max_utterances": args.max_utterances, "model": args.model},
        **{"translator": settings.translator, "scored_by": settings.scorer},
    }
    write_report(rows, args.out, about)
    for counts in rows:
        if not counts.kept:
            where = f"{args.out}/{counts.corpus}.{counts.lang}"
            raise SpireError(
                f"{where}: no translation scores {args.threshold}; see {where}/rejected.tsv,"
                f" {args.out}/report.md and --threshold"
            )


if __name__ == "__main__":
    run(main)
