"""DeepSpeed training by steps, exact in loss and in resume, on CPU (gloo) and GPU (NCCL)."""

import logging
from pathlib import Path
from typing import Any, Dict, Optional

import torch

from espnet_spire.model.lora import lora_settings
from espnet_spire.train.distributed import Ranks, end_process_group, init_process_group
from espnet_spire.train.engine import build_engine, read_deepspeed_config, zero_stage
from espnet_spire.train.options import TrainingOptions
from espnet_spire.train.plan import Plan, PlanSettings
from espnet_spire.train.records import Records
from espnet_spire.train.saving import Start, find_start, load, save
from espnet_spire.train.stepping import Stepper
from espnet_spire.train.store import ExampleStore
from espnet_spire.utils.atomic import disk_errors, read_json, write_json
from espnet_spire.utils.digest import bytes_sha256, sampled_sha256
from espnet_spire.utils.errors import SpireError, Stopped
from espnet_spire.utils.lock import lock
from espnet_spire.utils.progress import progress
from espnet_spire.utils.stopping import stop_wanted

PLAN = "plan.json"
LOCK = ".lock"
# What decides the course of a run: a checkpoint is taken up with the same values only.
COURSE = (
    *("seed", "dtype", "sequence_length", "packing", "batch_sequences"),
    *("learning_rate", "warmup_steps", "final_lr_ratio", "weight_decay"),
    *("adam_beta1", "adam_beta2", "adam_eps", "clip_grad_norm"),
)


class SpireTrainer:
    """Trainer class of :class:`espnet_spire.tasks.spire.SpireTask`.

    ESPnet calls :meth:`build_options` and :meth:`run`; the latter builds the LLM, so that no
    full float32 copy of it is ever made by AbsTask.
    """

    @classmethod
    def add_arguments(cls, parser) -> None:
        """SpireTask has all options; AbsTask asks each trainer all the same."""

    @classmethod
    def build_options(cls, args) -> TrainingOptions:
        """Take the fields of :class:`TrainingOptions` from parsed arguments."""
        names = TrainingOptions.__dataclass_fields__
        return TrainingOptions(**{name: getattr(args, name) for name in names})

    @classmethod
    def run(
        cls,
        model,
        optimizers,
        schedulers,
        train_iter_factory,
        valid_iter_factory,
        plot_attention_iter_factory,
        trainer_options: TrainingOptions,
        distributed_option,
    ) -> None:
        """Train until the plan is done, from the newest whole checkpoint if there is one."""
        options = trainer_options
        if options.ngpu > 1:
            raise SpireError(
                f"--ngpu {options.ngpu} in one process: start one process a GPU, with torchrun"
                f" --nproc_per_node {options.ngpu} … --ngpu 1 or --multiprocessing_distributed true"
            )
        init_process_group(options.ngpu, distributed_option.local_rank)
        try:
            _Run(options, train_iter_factory, valid_iter_factory).train()
        except Stopped:  # all ranks raise it at the same step; of other errors none may wait
            end_process_group()
            raise
        end_process_group()


def make_plan(store: ExampleStore, settings: PlanSettings, path: Path, ranks: Ranks) -> Plan:
    """Which sequences make which step; the first rank counts them once and keeps the counts."""
    made_for = {**settings._asdict(), "examples": store.fingerprint}

    def count() -> Dict[str, Any]:
        kept = read_json(path) if path.exists() else {}
        if kept.get("made_for") == made_for:
            return kept["plan"]
        plan = Plan.build(store.lengths, len(store), settings)
        write_json(path, {"made_for": made_for, "plan": plan.to_json()})
        return plan.to_json()

    return Plan.from_json(store.lengths, len(store), settings, ranks.on_first(count))


def model_digest(directory: str) -> str:
    """Tells the model that a run starts from from others: its weights (sampled) and settings."""
    kinds = ("*.safetensors", "*.bin", "config.json", "spire.json")
    files = sorted(path for kind in kinds for path in Path(directory).glob(kind))
    return bytes_sha256("".join(map(sampled_sha256, files)).encode())


class _Run:
    """One training: where it starts, its plan, and the loop over steps."""

    def __init__(
        self,
        options: TrainingOptions,
        train_iter_factory,
        valid_iter_factory,
    ) -> None:
        self.options = options
        self.output_dir = Path(options.output_dir)
        self.stopping = False
        self.ranks = Ranks(torch.device("cuda" if options.ngpu > 0 else "cpu"))
        if self.ranks.rank != 0:
            _be_quiet()
        self.lock = None
        self.ranks.on_first(self._hold)
        self.pad_id = train_iter_factory.pad_id
        self.store, self.valid = train_iter_factory.store, valid_iter_factory.store
        self.plan = self._plan(self.store, options.num_epochs, "train")
        self.valid_plan = self._plan(self.valid, 1.0, "valid") if self.valid else None
        self.total_steps = min(self.plan.total_steps, options.max_steps or self.plan.total_steps)
        self.config = read_deepspeed_config(
            options.deepspeed_config, dtype=options.dtype, clip=options.clip_grad_norm
        )
        self.facts: Dict[str, Any] = {
            "settings": {name: getattr(options, name) for name in COURSE},
            "zero_stage": zero_stage(self.config),
            "start_model": options.model,
            "valid_examples": self.valid.fingerprint if self.valid else None,
        }
        self.facts["settings"].update(
            lora=options.lora and lora_settings(options.lora)._asdict(),
            examples=self.store.fingerprint,
            start_model=self.ranks.on_first(lambda: model_digest(options.model)),
            total_steps=self.total_steps,
        )
        if self.store.has_pairs:  # others do not depend on them
            self.facts["settings"]["kd_weights"] = [float(value) for value in options.kd_weights]
        self.start: Start = self.ranks.on_first(
            lambda: find_start(
                self.output_dir,
                resume=options.resume,
                restart_if_changed=options.restart_if_changed,
                settings=self.facts["settings"],
                stage=self.facts["zero_stage"],
                valid_examples=self.facts["valid_examples"],
                world_size=self.ranks.world_size,
            )
        )
        self.records: Optional[Records] = None
        # Where in the data the run is: the rest follows from the plan.
        self.steps_taken = self.start.step
        self.best_loss = self.start.best_loss
        self.valid_loss: Optional[float] = None  # of the step just taken, if it was validated

    def _hold(self) -> None:
        """Two trainings in one directory would delete each other's checkpoints."""
        with disk_errors(self.output_dir):
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.output_dir / LOCK, "ab")
        lock(self.lock, self.output_dir)

    def _plan(self, store: ExampleStore, num_epochs: float, name: str) -> Plan:
        options = self.options
        settings = PlanSettings(
            sequence_length=options.sequence_length,
            batch_sequences=options.batch_sequences,
            packing=options.packing,
            seed=options.seed,
            num_epochs=num_epochs,
        )
        plan = make_plan(store, settings, self.output_dir / f"{name}_{PLAN}", self.ranks)
        logging.info(
            "%s: %d examples, %d steps, packing efficiency %s",
            *(name, len(store), plan.total_steps),
            f"{plan.efficiency:.2%}" if plan.efficiency is not None else "none (--packing false)",
        )
        return plan

    def train(self) -> None:
        """Take all steps that are left."""
        if self.start.finished:
            logging.info("%s is finished already", self.output_dir)
            return
        self._build()
        try:
            self._take_steps()
        finally:
            if self.records is not None:
                self.records.close()
        self._save(finished=True)

    def _take_steps(self) -> None:
        # Closed also when an error ends the loop: the error's line is to be the last.
        with progress(
            total=self.total_steps,
            initial=self.steps_taken,
            desc=self.output_dir.name,
            unit="step",
            disable=self.ranks.rank != 0,
        ) as bar:
            self._stop_if_told()
            for sequences in self.plan.batches(self.steps_taken):
                if self.steps_taken >= self.total_steps:
                    break
                entry = self.stepper.step(self.store, sequences, self.steps_taken, self.total_steps)
                self.steps_taken += 1
                self._add(entry)
                bar.set_postfix_str(_postfix(entry), refresh=False)
                bar.update()
                self._after_step()

    def _build(self) -> None:
        """The engine, from where the run starts, and what takes steps with it."""
        options = self.options
        if self.start.reshaped:
            self.config["checkpoint"] = {"load_universal": True}
        self.engine = build_engine(options, self.config, self.ranks.device)
        load(self.engine, self.output_dir, self.start, strict=options.lora is None)
        lm = self.engine.module.lm
        logging.info("%s", describe(lm, self.facts["zero_stage"], self.ranks.world_size))
        if self.start.tag is not None:
            logging.info("resumed at step %d of %d", self.steps_taken, self.total_steps)
        if options.warmup_steps >= self.total_steps:
            logging.warning(
                "--warmup_steps %d: the run has %d steps, so its rate never gets to the peak",
                *(options.warmup_steps, self.total_steps),
            )
        groups = sorted({*self.store.groups, *(self.valid.groups if self.valid else ())})
        self.stepper = Stepper(self.engine, self.ranks, options, groups, self.pad_id)
        if self.ranks.rank == 0:
            self.records = Records(
                self.output_dir,
                step=self.steps_taken,
                interval=options.save_interval_steps,
                log_interval=options.log_interval,
                tensorboard=options.use_tensorboard,
            )

    def _after_step(self) -> None:
        """Validate, save and stop, where it is time for it."""
        options, step = self.options, self.steps_taken
        last = step == self.total_steps
        self.valid_loss = None
        if self.valid_plan is not None and (last or step % options.eval_interval_steps == 0):
            entry = self.stepper.validate(self.valid, self.valid_plan.batches(0), step)
            self._add(entry)
            self.valid_loss = entry["valid_loss"]
        best = self.valid_loss is not None and self.valid_loss < self.best_loss
        if best:
            self.best_loss = self.valid_loss
        if last:
            return
        if self._told_to_stop():
            self._save()
            self._stop_if_told()
        if best or step % options.save_interval_steps == 0:
            self._save()

    def _told_to_stop(self) -> bool:
        """Whether any rank got a signal: all must agree, since saving is collective."""
        self.stopping = bool(self.ranks.max([float(self.stopping or stop_wanted())])[0])
        return self.stopping

    def _stop_if_told(self) -> None:
        if self._told_to_stop():
            raise Stopped(
                f"stopped by a signal at step {self.steps_taken}; start the same command again to"
                " go on"
            )

    def _add(self, entry: Dict[str, Any]) -> None:
        if self.records is not None:
            self.records.add({"step": self.steps_taken, **entry})

    def _save(self, *, finished: bool = False) -> None:
        if self.records is not None:
            self.records.draw()
        save(
            self.engine,
            self.ranks,
            self.output_dir,
            step=self.steps_taken,
            facts=self.facts,
            only_trained=self.options.lora is not None,
            keep=self.options.keep_checkpoints,
            valid_loss=self.valid_loss,
            finished=finished,
        )


def _be_quiet() -> None:
    """What all ranks would say, the first one says."""
    from transformers.utils.logging import disable_progress_bar

    logging.getLogger().setLevel(logging.ERROR)
    disable_progress_bar()


def describe(lm, stage: int, world_size: int) -> str:
    """One line of what is trained: AbsTask's summary knows a placeholder only."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in lm.parameters()]
    whole, trained = sum(n for n, _ in sizes), sum(n for n, wanted in sizes if wanted)
    return (
        f"{type(lm).__name__}: {whole:,} parameters, {trained:,} trained, attention"
        f" {lm.config._attn_implementation}, ZeRO {stage}, {world_size} ranks"
    )


def _postfix(entry: Dict[str, Any]) -> str:
    share = entry["share_of_peak"]
    return f"loss={entry['loss']:.3f}, {entry['tokens_per_second']:.0f} tok/s" + (
        f", {share:.0%} of peak" if share else ""
    )
