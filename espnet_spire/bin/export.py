"""Write a finished training as a Hugging Face model directory (stages 8 and 11)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--train_dir", required=True, help="--output_dir of spire_train")
    parser.add_argument("--start_model", required=True, help="model that training started from")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--instruct", action="store_true", help="<|im_end|> ends an answer")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.model.export import export

    export(args.train_dir, args.start_model, args.out, instruct=args.instruct, dtype=args.dtype)


if __name__ == "__main__":
    run(main)
