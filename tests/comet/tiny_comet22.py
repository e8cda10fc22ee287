"""Make a COMET-22 of 20 thousand parameters, and score with it by COMET's own means.

Runs in COMET's environment (``make comet-env``):

    tiny_comet22.py make DIR
    tiny_comet22.py score DIR      # samples as JSON on stdin, scores as JSON on stdout
"""

import sys
from pathlib import Path

from tiny_kiwi import make_encoder, score


def make(out: Path) -> None:
    """A random one of wmt22-comet-da's kind (a regression on source, reference and translation)."""
    import pytorch_lightning
    import torch
    import yaml
    from comet.models import RegressionMetric

    make_encoder(out / "encoder")
    torch.manual_seed(3)
    hparams = {
        "encoder_model": "XLM-RoBERTa",
        "pretrained_model": str(out / "encoder"),
        "layer": "mix",
        "layer_transformation": "sparsemax",
        "layer_norm": False,
        "pool": "avg",
        "hidden_sizes": [48, 16],
        "activations": "Tanh",
        "nr_frozen_epochs": 0.3,
        "dropout": 0.1,
    }
    model = RegressionMetric(**hparams, load_pretrained_weights=True, local_files_only=True)
    trainer = pytorch_lightning.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(out / "checkpoints" / "model.ckpt")
    hparams = {**hparams, "class_identifier": "regression_metric"}
    (out / "hparams.yaml").write_text(yaml.safe_dump(hparams), encoding="utf-8")


if __name__ == "__main__":
    {"make": make, "score": score}[sys.argv[1]](Path(sys.argv[2]))
