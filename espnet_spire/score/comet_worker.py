"""COMET as a process: pairs in, scores out; runs in COMET's environment, imports nothing of ours.

COMET (unbabel-comet) pins numpy below 2 and transformers below 5, so it has an environment of its
own; :mod:`espnet_spire.score.comet` starts this file there. Each line on stdin is a request
``{"samples": [{"src": …, "mt": …[, "ref": …]}, …]}``; each line on stdout one of

* ``{"ready": {"comet": version, "torch": version, "class": name, "needs_reference": bool}}``,
  once, when the model is loaded;
* ``{"scores": […]}`` in the order of a request, and ``"metadata"`` where the model gives any;
* ``{"error": …}``, after which the process ends.

The end of stdin ends it. What COMET prints goes to stderr.
"""

import argparse
import json
import logging
import os
import sys
import warnings


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="…/checkpoints/model.ckpt")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--batch_size", type=int, default=16)
    return parser


def load(checkpoint):
    """The model, and what there is to say about it."""
    # COMET asks the hub whether the encoder has changed; it is in the cache.
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    import comet
    import torch

    model = comet.load_from_checkpoint(checkpoint, local_files_only=True)
    about = {
        "comet": comet.__version__,
        "torch": torch.__version__,
        "class": type(model).__name__,
        "needs_reference": bool(model.requires_references()),
    }
    return model, about


def predict(model, samples, args):
    """Scores of samples, and what else the model says of them (lists, one entry a sample)."""
    kind, _, number = args.device.partition(":")
    gpus = int(kind == "cuda")
    output = model.predict(
        samples,
        batch_size=args.batch_size,
        gpus=gpus,
        devices=[int(number or 0)] if gpus else None,
        accelerator="gpu" if gpus else "cpu",
        progress_bar=False,
        # Processes that prepare batches start anew for each request, and that takes longer.
        num_workers=0,
    )
    answer = {"scores": [float(score) for score in output.scores]}
    if "metadata" in output:
        answer["metadata"] = {key: list(value) for key, value in output.metadata.items()}
    return answer


def main():
    args = get_parser().parse_args()
    # Libraries print; what is not an answer must not look like one.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)

    def say(message):
        out.write(json.dumps(message, ensure_ascii=False) + "\n")
        out.flush()

    try:
        model, about = load(args.checkpoint)
        say({"ready": about})
        for line in sys.stdin.buffer:
            samples = json.loads(line)["samples"]
            say(predict(model, samples, args) if samples else {"scores": []})
    except ImportError as error:
        say({"error": f"{error}", "missing": True})
        return 1
    except Exception as error:
        # The caller shows one line of it; the log has it all.
        logging.exception("COMET failed")
        say({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
