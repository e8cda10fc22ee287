"""DeepSpeed training by steps, exact in loss and in resume, on CPU (gloo) and GPU (NCCL)."""

import logging
import math
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch

from espnet_spire.train.checkpoints import read_pointer
from espnet_spire.train.collate import PackedRows, collate
from espnet_spire.train.distributed import Ranks, end_process_group, init_process_group
from espnet_spire.train.engine import (
    build_engine,
    read_deepspeed_config,
    unclipped_norm,
    zero_stage,
)
from espnet_spire.train.losses import GroupLosses
from espnet_spire.train.options import TrainingOptions
from espnet_spire.train.plan import Plan, PlanSettings, micro_batches, share_of_rank
from espnet_spire.train.records import Records
from espnet_spire.train.saving import find_start, load, save
from espnet_spire.train.schedule import learning_rate
from espnet_spire.train.store import ExampleStore, documents_of
from espnet_spire.train.throughput import memory_gib, model_size, peak_flops, step_flops
from espnet_spire.utils.ahead import one_ahead
from espnet_spire.utils.atomic import read_json, write_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

PLAN = "plan.json"
# What decides the course of a run: a checkpoint is taken up with the same values only.
COURSE = (
    *("seed", "dtype", "lora", "num_epochs", "max_steps", "sequence_length", "packing"),
    *("batch_sequences", "learning_rate", "warmup_steps", "final_lr_ratio", "weight_decay"),
    *("adam_beta1", "adam_beta2", "adam_eps", "clip_grad_norm"),
)


class Piece(NamedTuple):
    """One forward pass of one rank: its rows and the examples in them, in order."""

    rows: PackedRows
    indices: np.ndarray


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
        pointer = read_pointer(options.output_dir) if options.resume else None
        if pointer is not None and pointer.finished:
            logging.info("%s is finished already", options.output_dir)
            return
        init_process_group(options.ngpu, distributed_option.local_rank)
        _Run(options, train_iter_factory, valid_iter_factory).train()
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


class _Run:
    """One training: model, engine, data, and the loop over steps."""

    def __init__(self, options: TrainingOptions, train_iter_factory, valid_iter_factory) -> None:
        self.options = options
        self.output_dir = Path(options.output_dir)
        self.device = torch.device("cuda" if options.ngpu > 0 else "cpu")
        self.ranks = Ranks(self.device)
        if self.ranks.rank != 0:
            _be_quiet()
        self.pad_id = train_iter_factory.pad_id
        self.store, self.valid = train_iter_factory.store, valid_iter_factory.store
        self.plan = self._plan(self.store, options.num_epochs, "train")
        self.valid_plan = self._plan(self.valid, 1.0, "valid") if self.valid else None
        self.total_steps = min(self.plan.total_steps, options.max_steps or self.plan.total_steps)
        self.settings = {name: getattr(options, name) for name in COURSE}
        self.settings.update(examples=self.store.fingerprint, total_steps=self.total_steps)

        config = read_deepspeed_config(
            options.deepspeed_config, dtype=options.dtype, clip=options.clip_grad_norm
        )
        self.stage = zero_stage(config)
        start = self.ranks.on_first(
            lambda: find_start(
                self.output_dir,
                resume=options.resume,
                settings=self.settings,
                stage=self.stage,
                world_size=self.ranks.world_size,
            )
        )
        if start.reshaped:
            config["checkpoint"] = {"load_universal": True}
        self.engine = build_engine(options, config, self.device)
        load(self.engine, self.output_dir, start, strict=options.lora is None)
        # Where in the data the run is: the rest follows from the plan.
        self.steps_taken = start.step
        if start.tag is not None:
            logging.info("resumed at step %d of %d", self.steps_taken, self.total_steps)
        lm = self.engine.module.lm
        logging.info("%s", describe(lm, self.stage, self.ranks.world_size))
        self.size = model_size(lm)
        dtype = getattr(torch, options.dtype)
        self.peak = peak_flops(self.device, dtype, options.peak_tflops) * self.ranks.world_size
        self.groups = sorted({*self.store.groups, *(self.valid.groups if self.valid else ())})
        # A signal reaches one rank; all agree on it after a step, since saving is collective.
        self.signalled = self.stopping = False
        self.records: Optional[Records] = None
        self.valid_loss: Optional[float] = None  # of the step just taken, if it was validated
        self.best_loss = self._best_so_far()

    def _plan(self, store: ExampleStore, num_epochs: float, name: str) -> Plan:
        options = self.options
        settings = PlanSettings(
            sequence_length=options.sequence_length,
            batch_sequences=options.batch_sequences,
            packing=options.packing,
            seed=options.seed,
            num_epochs=num_epochs,
        )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        plan = make_plan(store, settings, self.output_dir / f"{name}_{PLAN}", self.ranks)
        logging.info(
            "%s: %d examples, %d steps, packing efficiency %s",
            *(name, len(store), plan.total_steps),
            f"{plan.efficiency:.2%}" if plan.efficiency is not None else "none (--packing false)",
        )
        return plan

    def _best_so_far(self) -> float:
        pointer = read_pointer(self.output_dir)
        return pointer.best.valid_loss if pointer and pointer.best else math.inf

    # The loop -----------------------------------------------------------------------------

    def train(self) -> None:
        """Take all steps that are left."""
        options = self.options
        if self.ranks.rank == 0:
            self.records = Records(
                self.output_dir,
                step=self.steps_taken,
                interval=options.save_interval_steps,
                log_interval=options.log_interval,
                tensorboard=options.use_tensorboard,
            )
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        # Closed also when an error ends the loop: the error's line is to be the last.
        with progress(
            total=self.total_steps,
            initial=self.steps_taken,
            desc=self.output_dir.name,
            unit="step",
            disable=self.ranks.rank != 0,
        ) as bar:
            for sequences in self.plan.batches(self.steps_taken):
                if self.steps_taken >= self.total_steps:
                    break
                entry = self._step(sequences)
                self.steps_taken += 1
                self._add({"step": self.steps_taken, **entry})
                bar.set_postfix_str(_postfix(entry), refresh=False)
                bar.update()
                self._after_step()
        self._save(finished=True)
        if self.records is not None:
            self.records.close()

    def _after_step(self) -> None:
        """Validate, save and stop, where it is time for it."""
        options, step = self.options, self.steps_taken
        last = step == self.total_steps
        self.valid_loss = None
        if self.valid_plan is not None and (last or step % options.eval_interval_steps == 0):
            entry = self._validate()
            self._add({"step": step, **entry})
            self.valid_loss = entry["valid_loss"]
        best = self.valid_loss is not None and self.valid_loss < self.best_loss
        self.best_loss = min(self.best_loss, self.valid_loss if best else math.inf)
        if not last and (self.stopping or best or step % options.save_interval_steps == 0):
            self._save()
        if self.stopping and not last:
            raise SpireError(
                f"stopped by a signal at step {step}; start the same command again to go on"
            )

    def _on_signal(self, _number: int, _frame) -> None:
        self.signalled = True

    def _add(self, entry: Dict[str, Any]) -> None:
        if self.records is not None:
            self.records.add(entry)

    def _save(self, *, finished: bool = False) -> None:
        save(
            self.engine,
            self.ranks,
            self.output_dir,
            step=self.steps_taken,
            facts={
                "settings": self.settings,
                "zero_stage": self.stage,
                "start_model": self.options.model,
            },
            only_trained=self.options.lora is not None,
            keep=self.options.keep_checkpoints,
            valid_loss=self.valid_loss,
            finished=finished,
        )
        if self.records is not None:
            self.records.draw()

    # One step -----------------------------------------------------------------------------

    def _step(self, sequences: List[np.ndarray]) -> Dict[str, Any]:
        """One optimizer step; the loss is a mean over the target tokens of the global batch."""
        options, started = self.options, time.perf_counter()
        rate = learning_rate(
            self.steps_taken,
            total_steps=self.total_steps,
            warmup_steps=options.warmup_steps,
            peak=options.learning_rate,
            final_ratio=options.final_lr_ratio,
        )
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        # Dropout (LoRA has it) depends on the step alone: nothing random has to be saved.
        state = np.random.SeedSequence([options.seed, self.steps_taken, self.ranks.rank])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0] >> 1))
        everything = np.concatenate(sequences)
        lengths = self.store.lengths(everything)
        num_targets = int(self.store.num_targets(everything).sum())
        self.engine.train()
        done = []
        pieces = self._pieces(self.store, sequences)
        for number, piece in enumerate(one_ahead(self._collated(self.store, pieces))):
            output = self._forward(piece)
            last = number == len(pieces) - 1
            self.engine.set_gradient_accumulation_boundary(last)
            # DeepSpeed averages gradients over ranks; the sum over ranks is wanted.
            self.engine.backward(output.loss_sum * (self.ranks.world_size / num_targets))
            done.append((piece.indices, output.document_loss))
            if last:
                report = self._report(self.store, done)
                norm = unclipped_norm(self.engine) if self.stage == 0 else None
            self.engine.step()
        if norm is None:
            norm = float(self.engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise SpireError(
                f"gradient norm is {norm} at step {self.steps_taken + 1}, although the loss is"
                " finite; the last checkpoint is intact: lower --learning_rate"
            )
        memory, stop = self.ranks.max([memory_gib(self.device), float(self.signalled)])
        self.stopping = bool(stop)
        seconds = time.perf_counter() - started
        flops = step_flops(self.size, lengths, num_targets)
        return {
            **report,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": round(float(lengths.sum()) / seconds, 1),
            "target_tokens_per_second": round(num_targets / seconds, 1),
            "share_of_peak": round(flops / seconds / self.peak, 4) if self.peak else None,
            "memory_gib": round(memory, 3),
        }

    def _pieces(self, store: ExampleStore, sequences: List[np.ndarray]) -> List[List[np.ndarray]]:
        """The forward passes of this rank."""
        world_size = self.ranks.world_size
        lengths = np.array([store.lengths(sequence).sum() for sequence in sequences])
        pieces = micro_batches(
            sequences, lengths, self.options.micro_batch_tokens, world_size=world_size
        )
        return share_of_rank(pieces, self.ranks.rank, world_size)

    def _collated(self, store: ExampleStore, pieces: List[List[np.ndarray]]) -> Iterator[Piece]:
        for piece in pieces:
            indices = np.concatenate(piece) if piece else np.array([], dtype=np.int64)
            yield Piece(collate(documents_of(store, piece), self.pad_id), indices)

    def _forward(self, piece: Piece):
        tensors = {k: v.to(self.device) for k, v in piece.rows._asdict().items()}
        return self.engine(**tensors, num_documents=len(piece.indices))

    def _report(
        self, store: ExampleStore, done: List[Tuple[np.ndarray, torch.Tensor]]
    ) -> Dict[str, float]:
        """Losses over all ranks; one that is not finite ends the run before a step is taken.

        Args:
            done: the examples of each forward pass and their losses, which stay on the device
                until here: waiting for them after each pass would leave it idle.
        """
        losses = GroupLosses(self.groups)
        numbers = [self.groups.index(group) for group in store.groups]
        for indices, document_loss in done:
            losses.add(
                [numbers[store.group(index)] for index in indices],
                document_loss.cpu().numpy(),
                store.num_targets(indices),
                keys=lambda which, indices=indices: [store.key(indices[n]) for n in which],
            )
        losses.sums = self.ranks.sum(torch.from_numpy(losses.sums)).numpy()
        if not np.isfinite(losses.sums).all():
            bad = self.ranks.gather(losses.not_finite)
            named = "; ".join(
                f"rank {rank}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
                for rank, keys in enumerate(bad)
                if keys
            )
            raise SpireError(
                f"loss is not finite at step {self.steps_taken + 1}: {named}; the last checkpoint"
                " is intact: look at these examples, or lower --learning_rate"
            )
        return losses.report()

    @torch.no_grad()
    def _validate(self) -> Dict[str, Any]:
        """Loss over the whole validation set."""
        self.engine.eval()
        done = []
        for sequences in self.valid_plan.batches(0):
            pieces = self._pieces(self.valid, sequences)
            for piece in one_ahead(self._collated(self.valid, pieces)):
                done.append((piece.indices, self._forward(piece).document_loss))
        return {f"valid_{name}": v for name, v in self._report(self.valid, done).items()}


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
