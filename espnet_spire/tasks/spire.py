"""SpireTask: continued pre-training and instruction tuning as an ESPnet task."""

import argparse
import math
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool

from espnet_spire.model.attention import IMPLEMENTATIONS
from espnet_spire.model.shell import SpireShell
from espnet_spire.text.vocabulary import read_spire_json
from espnet_spire.train.pairs import GMU_WEIGHTS
from espnet_spire.train.store import ExampleStore
from espnet_spire.train.trainer import SpireTrainer
from espnet_spire.utils.errors import SpireError

# Options of AbsTask that do nothing here; they would mislead, so they are hidden and refused.
UNUSED = (
    "accum_grad adapter adapter_conf allow_multi_rates allow_variable_data_keys batch_bins"
    " batch_size batch_type best_model_criterion category_sample_size category_upsampling_factor"
    " chunk_default_fs chunk_discard_short_samples chunk_excluded_key_prefixes chunk_length"
    " chunk_max_abs_length chunk_shift_ratio collect_stats create_graph_in_tensorboard"
    " dataset_scaling_factor dataset_upsampling_factor ddp_comm_hook drop_last_iter"
    " early_stopping_criterion exclude_weight_decay exclude_weight_decay_conf freeze_param"
    " grad_clip grad_clip_type grad_noise gradient_as_bucket_view ignore_init_mismatch init_param"
    " keep_nbest_models max_batch_size max_cache_fd max_cache_size max_epoch min_batch_size"
    " multi_task_dataset multiple_iterator nbest_averaging_interval no_forward_run num_att_plot"
    " num_cache_chunks num_iters_per_epoch num_workers optim optim_conf patience save_strategy"
    " scheduler scheduler_conf sharded_ddp shuffle_within_batch sort_batch sort_in_batch"
    " train_data_path_and_name_and_type train_dtype unused_parameters upsampling_factor use_adapter"
    " use_amp use_deepspeed use_matplotlib use_wandb val_scheduler_criterion"
    " valid_batch_bins valid_batch_size valid_batch_type valid_data_path_and_name_and_type"
    " valid_iterator_type valid_max_cache_size wandb_entity wandb_id wandb_model_log_interval"
    " wandb_name wandb_project write_collected_feats train_shape_file valid_shape_file"
    " pretrain_path fold_length"
).split()

PAD = "<PAD>"
_POSITIVE = (
    *("num_epochs", "max_steps", "sequence_length", "batch_sequences", "micro_batch_tokens"),
    *("learning_rate", "save_interval_steps", "eval_interval_steps", "keep_checkpoints"),
    *("log_interval", "loss_chunk_tokens", "peak_tflops", "adam_eps"),
)
_FROM_ZERO = ("seed", "clip_grad_norm", "warmup_steps", "weight_decay", "final_lr_ratio")
# Which values of an option can be used, and the words for it.
RANGES: Dict[str, Tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(_POSITIVE, (lambda value: value > 0, "above 0")),
    **dict.fromkeys(_FROM_ZERO, (lambda value: value >= 0, "at least 0")),
    **dict.fromkeys(
        ("adam_beta1", "adam_beta2"), (lambda value: 0 <= value < 1, "at least 0 and below 1")
    ),
}


def _are_weights(values: object) -> bool:
    """A config can say anything."""
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values)
        and any(values)
    )


class ExampleIterFactory(AbsIterFactory):
    """Hands examples to the trainer, which plans its batches by global step.

    Args:
        store: the examples, ``None`` where there are none (no validation).
        pad_id: id that fills up rows.
    """

    def __init__(self, store: Optional[ExampleStore], pad_id: int) -> None:
        self.store = store
        self.pad_id = pad_id

    def build_iter(self, epoch: int, shuffle: bool = None):
        raise RuntimeError("SpireTrainer iterates by steps, not by epochs")


class SpireTask(AbsTask):
    """An LLM over units and text, trained by :class:`SpireTrainer` with DeepSpeed."""

    num_optimizers = 1
    trainer = SpireTrainer
    class_choices_list: List = []

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("SPIRE")
        add = group.add_argument
        add("--model", help="extended model directory to start from")
        add("--train_examples", help="directory made by make_examples")
        add("--valid_examples", help="the same for validation (optional)")
        add("--dtype", default="float32", choices=["float32", "bfloat16"])
        add(
            "--attention",
            default="auto",
            choices=["auto", *IMPLEMENTATIONS],
            help="over packed rows; auto: flash_attention_2 where it is installed and can be used",
        )
        add("--fused_loss", type=str2bool, default=False, help="Liger's (pip install liger-kernel)")
        add(
            "--loss_chunk_tokens",
            type=int_or_none,
            help="target tokens whose logits exist at one time; the others are recomputed",
        )
        add(
            "--kd_weights",
            type=float,
            nargs=3,
            default=list(GMU_WEIGHTS),
            metavar=("ST", "MT", "KD"),
            help="of tasks st_kd: losses of ST and MT, divergence of ST from MT",
        )
        add("--gradient_checkpointing", type=str2bool, default=False, help="recompute activations")
        add(
            "--lora",
            action=NestedDictAction,
            default=None,
            help="adapters instead of all weights, e.g. --lora r=64 --lora alpha=128; the rows of"
            " new tokens are trained too",
        )
        add("--num_epochs", type=float, default=1.0, help="passes over the examples")
        add("--max_steps", type=int_or_none, help="stop there, with the schedule ending there")
        add("--sequence_length", type=int, default=4096, help="tokens that are packed together")
        add("--packing", type=str2bool, default=True, help="false: one example a sequence")
        add("--batch_sequences", type=int, help="sequences a step, over all ranks")
        add("--micro_batch_tokens", type=int_or_none, help="tokens a forward pass of one rank")
        add("--learning_rate", type=float, default=3e-5, help="peak")
        add("--warmup_steps", type=int, default=100)
        add("--final_lr_ratio", type=float, default=0.1, help="last rate over peak (cosine)")
        add("--weight_decay", type=float, default=0.1, help="of matrices")
        add("--adam_beta1", type=float, default=0.9)
        add("--adam_beta2", type=float, default=0.95)
        add("--adam_eps", type=float, default=1e-5)
        add("--clip_grad_norm", type=float, default=1.0, help="0 for no clipping")
        add("--save_interval_steps", type=int, default=500)
        add("--eval_interval_steps", type=int, default=500)
        add("--keep_checkpoints", type=int, default=2, help="the last k; the best stays besides")
        add(
            "--restart_if_changed",
            type=str2bool,
            default=False,
            help="a run of other settings or data in --output_dir is set aside, not an error",
        )
        add("--peak_tflops", type=float, help="of one device, where its name does not tell")
        parser.set_defaults(
            iterator_type="task",
            num_att_plot=0,
            dist_backend=None,
            log_interval=50,
            resume=True,
            required=[
                *("output_dir", "model", "train_examples", "deepspeed_config", "batch_sequences")
            ],
        )

    @classmethod
    def get_parser(cls) -> argparse.ArgumentParser:
        parser = super().get_parser()
        parser.allow_abbrev = False
        for action in parser._actions:
            if action.dest in UNUSED:
                action.help = argparse.SUPPRESS
        return parser

    @classmethod
    def check_required_command_args(cls, args: argparse.Namespace) -> None:
        parser = cls.get_parser()
        for name in UNUSED:
            if hasattr(args, name) and getattr(args, name) != parser.get_default(name):
                raise SpireError(
                    f"--{name} does nothing in SpireTask; see --help for what it obeys"
                )
        if args.log_interval is None:  # ESPnet's word for its own choice
            args.log_interval = parser.get_default("log_interval")
        for name, (fits, words) in RANGES.items():
            value = getattr(args, name)
            if value is not None and not fits(value):
                raise SpireError(f"--{name} {value}: must be {words}")
        if not _are_weights(args.kd_weights):
            raise SpireError(
                f"--kd_weights {args.kd_weights}: three numbers of at least 0, and not all 0"
            )
        if args.ngpu > 0 and not torch.cuda.is_available():
            raise SpireError(f"--ngpu {args.ngpu}: torch sees no GPU here; use --ngpu 0")
        if args.dist_backend is None:
            args.dist_backend = "nccl" if args.ngpu > 0 else "gloo"
        super().check_required_command_args(args)
        if Path(args.output_dir).is_file():
            raise SpireError(f"--output_dir {args.output_dir}: is a file")

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        return None

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        return None

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> Tuple[str, ...]:
        return ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> Tuple[str, ...]:
        return ()

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> SpireShell:
        read_spire_json(args.model)
        return SpireShell(args.model)

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model) -> List:
        return []

    @classmethod
    def build_model_from_file(cls, config_file=None, model_file=None, device: str = "cpu"):
        raise SpireError(
            "a trained SPIRE model is a Hugging Face directory: make it with"
            " espnet_spire.bin.export and load it with AutoModelForCausalLM"
        )

    @classmethod
    def build_iter_factory(cls, args, distributed_option, mode: str, kwargs: dict = None):
        from transformers import AutoTokenizer

        path = args.train_examples if mode == "train" else args.valid_examples
        pad_id = AutoTokenizer.from_pretrained(args.model).convert_tokens_to_ids(PAD)
        return ExampleIterFactory(None if path is None else ExampleStore(path), pad_id)
