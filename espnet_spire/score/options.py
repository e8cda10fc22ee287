"""The options of everything that scores."""

from pathlib import Path

from espnet_spire.score.entities import TOWER_TYPES
from espnet_spire.score.metrics import MEASURES, TASK_METRICS, Settings
from espnet_spire.score.quality import MODELS, QualityModels
from espnet_spire.score.resampling import RESAMPLES, SEED
from espnet_spire.score.translation import BLEU_TOKENIZERS
from espnet_spire.utils.cli import assignment


def add_scoring_options(parser) -> None:
    """How texts are scored; :func:`settings_of` reads them."""
    usual = "; ".join(f"{task}: {' '.join(names)}" for task, (_, names) in TASK_METRICS.items())
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=MEASURES,
        default=["default"],
        help=f"what to score by; each task takes those made for it (default: {usual}; spbleu where"
        " its file is here)",
    )
    parser.add_argument(
        "--tokenize",
        choices=BLEU_TOKENIZERS,
        help="BLEU's tokenizer (None: 13a, or the target language's own)",
    )
    parser.add_argument(
        "--spm_model",
        type=Path,
        help="of spbleu: FLORES-200's SentencePiece model (None: in sacreBLEU's directory)",
    )
    parser.add_argument(
        "--ner_types", nargs="+", default=TOWER_TYPES, help="of f1: types of entities that count"
    )
    parser.add_argument(
        "--comet_models",
        nargs="+",
        type=assignment,
        default=[],
        metavar="METRIC=MODEL",
        help="hub name, directory or .ckpt file in place of "
        + ", ".join(f"{name}={model}" for name, model in MODELS.items()),
    )
    parser.add_argument(
        "--comet_python",
        help="Python that has COMET ($SPIRE_COMET_PYTHON, else that of make comet-env)",
    )
    parser.add_argument("--comet_device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--comet_batch_size", type=int, default=16, help="samples of a batch")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="of the 95 %% bootstrap intervals"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of those draws; sacreBLEU's")


def settings_of(args) -> Settings:
    """The settings that these options are; close ``settings.quality`` in the end."""
    return Settings(
        metrics=args.metrics,
        tokenize=args.tokenize,
        spm_model=args.spm_model,
        ner_types=tuple(args.ner_types),
        quality=QualityModels(
            dict(args.comet_models),
            python=args.comet_python,
            device=args.comet_device,
            batch_size=args.comet_batch_size,
        ),
        resamples=args.resamples,
        seed=args.seed,
    )
