"""Write a mixture's examples as JSON lines for other trainers: Axolotl, LLaMA-Factory, TRL.

Exactly the examples that make_examples kept, in their order, repeats too. Units are characters of
the extended tokenizer (U+F0000 …), so give the trainer the model directory that the examples were
made for.

format: chatml → ShareGPT, {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]}
  Axolotl        datasets: [{path: F.jsonl, type: chat_template, field_messages: conversations,
                   message_property_mappings: {role: from, content: value}}]
                 special_tokens: {eos_token: "<|im_end|>"}; the model's own chat template is used
  LLaMA-Factory  dataset_info.json: {"spire": {"file_name": "F.jsonl", "formatting": "sharegpt"}}
                 stage: sft, template: cpm3 (ChatML with BOS); chatml for bases without BOS (Qwen)
                 it learns the newline after each <|im_end|> too, which make_examples does not
format: plain → {"text": …}
  Axolotl        datasets: [{path: F.jsonl, type: completion, field: text}]
  LLaMA-Factory  dataset_info.json: {"spire": {"file_name": "F.jsonl",
                   "columns": {"prompt": "text"}}}; stage: pt
Each object has the example's key, task and lang as well. What is exported can be read back: task
chat, with_units: true.
"""

import argparse

from espnet_spire.utils.cli import ArgumentParser, add_mixture_options, run


def get_parser():
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mixture_options(parser)
    parser.add_argument("--examples", required=True, help="directory that make_examples wrote")
    parser.add_argument("--out", required=True, help="JSON lines to write")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.train.export_examples import export_examples
    from espnet_spire.train.mixture import load_mixture

    mixture = load_mixture(args.mixture, args.dumpdir, dict(args.words))
    count = export_examples(mixture, args.units_name, args.examples, args.out)
    print(f"{count} examples in {args.out}")


if __name__ == "__main__":
    run(main)
