"""Write a checkpoint of a training as a Hugging Face model directory (stages 8 and 11)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--train_dir", required=True, help="--output_dir of spire_train")
    parser.add_argument("--start_model", required=True, help="model that training started from")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--instruct", action="store_true", help="<|im_end|> ends an answer")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--checkpoint",
        metavar="last|best|step_N",
        help="also of a training that goes on; by default the last of a finished one",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="the last checkpoint, finished or not"
    )
    parser.add_argument("--shard_size", default="4GB", help="of one file of weights, e.g. 4GB")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.model.export import export

    export(
        args.train_dir,
        args.start_model,
        args.out,
        instruct=args.instruct,
        dtype=args.dtype,
        checkpoint=args.checkpoint,
        unfinished=args.unfinished,
        shard_size=args.shard_size,
    )


if __name__ == "__main__":
    run(main)
