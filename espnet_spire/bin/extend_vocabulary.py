"""Add K units and the ChatML tokens to a causal LM's vocabulary (stage 5).

Bases: SentencePiece BPE with byte fallback (TowerBase, Llama-2, TinyLlama, EuroLLM, Gemma 2 and
so Tower+ 2B and 9B) and byte-level BPE (Qwen 2.5 and so Tower+ 72B, Llama 3). Safetensors files
are rewritten without loading the model.
"""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="causal LM: directory or hub name")
    parser.add_argument(
        "--num_units", type=int, required=True, help="K (5000 in the paper), or V of --unit_bpe"
    )
    parser.add_argument("--out", required=True, help="model directory to write")
    parser.add_argument("--seed", type=int, default=0, help="of the new rows")
    parser.add_argument("--init", default="gaussian", choices=["gaussian", "mean"])
    parser.add_argument("--codebook", help="where the units come from, noted in spire.json")
    parser.add_argument(
        "--unit_bpe", help="directory of learn_unit_bpe where units are subwords, noted too"
    )
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.text.vocabulary import extend_vocabulary

    extend_vocabulary(
        args.base,
        args.num_units,
        args.out,
        seed=args.seed,
        method=args.init,
        codebook=args.codebook,
        unit_bpe=args.unit_bpe,
    )


if __name__ == "__main__":
    run(main)
