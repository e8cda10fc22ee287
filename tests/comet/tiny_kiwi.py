"""Make a CometKiwi of 20 thousand parameters, and score with it by COMET's own means.

Runs in COMET's environment (``make comet-env``):

    tiny_kiwi.py make DIR       # DIR/hparams.yaml, DIR/checkpoints/model.ckpt, DIR/encoder
    tiny_kiwi.py score DIR      # pairs as JSON on stdin, scores as JSON on stdout
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

SENTENCES = [
    "the old farmer feeds a brown horse",
    "my sister paints the red door today",
    "der alte Bauer füttert ein braunes Pferd",
    "meine Schwester streicht heute die rote Tür",
    "das Kind liest das blaue Buch 老农夫喂一匹棕色的马",
] * 4


def make_encoder(out: Path) -> None:
    """An XLM-R with a SentencePiece tokenizer, in the files that the hub has of it."""
    import sentencepiece
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    out.mkdir(parents=True)
    text = out / "text"
    text.write_text("\n".join(SENTENCES), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(out / "sentencepiece.bpe"),
        vocab_size=120,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = XLMRobertaTokenizerFast(vocab_file=str(out / "sentencepiece.bpe.model"))
    tokenizer.save_pretrained(out)
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=130,
        type_vocab_size=1,
        initializer_range=0.5,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(out)


def make(out: Path) -> None:
    """A random one with wmt22-cometkiwi-da's hyper-parameters but for its sizes."""
    import pytorch_lightning
    import torch
    import yaml
    from comet.models import UnifiedMetric

    make_encoder(out / "encoder")
    torch.manual_seed(2)
    hparams = {
        "encoder_model": "XLM-RoBERTa",
        "pretrained_model": str(out / "encoder"),
        "sent_layer": "mix",
        "word_layer": 2,
        "layer_transformation": "sparsemax",
        "layer_norm": False,
        "hidden_sizes": [48, 16],
        "activations": "Tanh",
        "input_segments": ["mt", "src"],
        "word_level_training": False,
        "nr_frozen_epochs": 0.3,
        "dropout": 0.1,
    }
    model = UnifiedMetric(**hparams, load_pretrained_weights=True, local_files_only=True)
    trainer = pytorch_lightning.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(out / "checkpoints" / "model.ckpt")
    hparams = {**hparams, "class_identifier": "unified_metric"}
    (out / "hparams.yaml").write_text(yaml.safe_dump(hparams), encoding="utf-8")


def score(directory: Path) -> None:
    """As COMET's documentation does it, one pair a batch."""
    import comet

    model = comet.load_from_checkpoint(directory / "checkpoints" / "model.ckpt")
    samples = json.load(sys.stdin)
    scores = model.predict(samples, batch_size=1, gpus=0, progress_bar=False).scores
    print(json.dumps(scores))


if __name__ == "__main__":
    {"make": make, "score": score}[sys.argv[1]](Path(sys.argv[2]))
