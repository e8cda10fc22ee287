"""Make the spoken toy corpus of the mini recipe with eSpeak NG (stage 1)."""

import logging

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    from espnet_spire.mini.toy_corpus import Sizes

    size = Sizes()
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="gets the Kaldi data directories")
    parser.add_argument("--downloads", required=True, help="gets wav/<set>/<utterance>.wav")
    parser.add_argument("--speech_lang", default="en", help="what is spoken: en, de or fr")
    parser.add_argument("--num_train", type=int, default=size.num_train, help="utterances")
    parser.add_argument("--num_dev", type=int, default=size.num_dev, help="utterances")
    parser.add_argument("--num_test", type=int, default=size.num_test, help="utterances")
    for name in ("cpt", "it", "st"):
        parser.add_argument(
            f"--{name}_percent",
            type=float,
            default=getattr(size, f"{name}_percent"),
            help=f"share of --num_train that is train_{name}",
        )
    parser.add_argument(
        "--num_mono", type=int, default=size.num_mono, help="sentences of text in each language"
    )
    parser.add_argument(
        "--num_parallel", type=int, default=size.num_parallel, help="sentences in all languages"
    )
    parser.add_argument("--num_blocks", type=int, default=size.num_blocks, help="instructions")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    return parser


def main(cmd=None):
    args = vars(get_parser().parse_args(cmd))
    from espnet_spire.mini.toy_corpus import Sizes, make_toy_corpus

    sizes = Sizes(**{name: args[name] for name in Sizes._fields})
    counts = make_toy_corpus(
        args["out"],
        args["downloads"],
        sizes=sizes,
        seed=args["seed"],
        nj=args["nj"],
        speech_lang=args["speech_lang"],
    )
    logging.info("%s: %s", args["out"], ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    run(main)
