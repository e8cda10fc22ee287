"""Train the baseline HuBERT+CTC on transcribed speech."""

from espnet_spire.utils.cli import ArgumentParser, default_device, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="YAML, see espnet_spire/baselines/ctc_config.py")
    parser.add_argument(
        "--encoder", default="facebook/hubert-large-ll60k", help="directory or hub name"
    )
    parser.add_argument("--train_data_dir", required=True, help="Kaldi data directory")
    parser.add_argument("--valid_data_dir", required=True, help="the best checkpoint is by its CER")
    parser.add_argument("--output_dir", required=True, help="the model goes to OUTPUT_DIR/hf")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.baselines.ctc_config import CtcConfig
    from espnet_spire.utils.config import read_config

    config = read_config(args.config, CtcConfig)
    device = default_device(args.device)
    from espnet_spire.baselines.ctc_train import train_ctc

    train_ctc(
        args.encoder,
        args.train_data_dir,
        args.valid_data_dir,
        args.output_dir,
        config,
        device=device,
    )


if __name__ == "__main__":
    run(main)
