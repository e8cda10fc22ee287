"""DeepSpeed training by steps, exact in loss and in resume, on CPU (gloo) and GPU (NCCL)."""

import json
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import torch

from espnet_spire.train.batching import BatchBudget, micro_batches, plan_pass, share_of_rank
from espnet_spire.train.checkpoints import (
    advance_pointer,
    forget_checkpoints,
    read_pointer,
    remove_unfinished,
)
from espnet_spire.train.examples import IGNORE
from espnet_spire.train.schedule import learning_rate
from espnet_spire.utils.atomic import atomic_write, read_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

HISTORY = "history.jsonl"


@dataclass
class SpireTrainerOptions:
    """All that the trainer obeys; one field an option of ``spire_train``.

    Units: ``batch_tokens`` and ``batch_examples`` are of one optimizer step over all ranks,
    without padding; ``micro_batch_tokens`` of one forward pass, counting padding.
    """

    output_dir: str
    model: str
    deepspeed_config: str
    seed: int
    dtype: str
    num_epochs: float
    batch_tokens: Optional[int]
    batch_examples: Optional[int]
    micro_batch_tokens: Optional[int]
    learning_rate: float
    warmup_steps: int
    final_lr_ratio: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float
    clip_grad_norm: float
    gradient_checkpointing: bool
    save_interval_steps: int
    eval_interval_steps: int
    keep_checkpoints: int
    resume: bool
    use_tensorboard: bool
    ngpu: int


class ExampleBatches:
    """Examples in Arrow, planned into batches and padded into tensors.

    Args:
        dataset: columns ``input_ids``, ``loss_mask``, ``length``, ``task``, ``key``.
        pad_id: id that fills up.
    """

    def __init__(self, dataset, pad_id: int) -> None:
        self.dataset = dataset.with_format("numpy")
        self.lengths = np.asarray(self.dataset["length"][:])
        self.tasks = sorted(dataset.unique("task"))
        self.pad_id = pad_id

    def collate(self, indices: np.ndarray) -> Dict[str, Any]:
        """Right-padded tensors of shape (B, L) for the given examples.

        An empty selection gives one row of one padding token without loss: a rank with nothing
        to do still takes part in collective operations.
        """
        if len(indices) == 0:
            pad = torch.full((1, 2), self.pad_id)
            return {
                "input_ids": pad,
                "attention_mask": torch.ones_like(pad),
                "labels": torch.full_like(pad, IGNORE),
                "task": [],
                "key": [],
            }
        rows = self.dataset[indices]
        longest = int(self.lengths[indices].max())
        input_ids = torch.full((len(indices), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, IGNORE)
        for row, (ids, mask) in enumerate(zip(rows["input_ids"], rows["loss_mask"], strict=True)):
            ids = torch.from_numpy(np.asarray(ids, dtype=np.int64))
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
            targets = torch.from_numpy(np.asarray(mask, dtype=bool))
            labels[row, : len(ids)] = torch.where(targets, ids, IGNORE)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "task": list(rows["task"]),
            "key": list(rows["key"]),
        }

    def num_targets(self, indices: np.ndarray) -> int:
        """Tokens that carry loss in these examples."""
        return int(sum(int(mask[1:].sum()) for mask in self.dataset[indices]["loss_mask"]))


def plan_steps(
    lengths: np.ndarray, budget: BatchBudget, *, seed: int, num_epochs: float
) -> List[int]:
    """Steps of each pass; the last one may be cut short when ``num_epochs`` is not whole."""
    counts = []
    whole = int(num_epochs)
    for epoch in range(whole):
        counts.append(len(plan_pass(lengths, budget, seed=seed, epoch=epoch)))
    rest = num_epochs - whole
    if rest > 0:
        count = len(plan_pass(lengths, budget, seed=seed, epoch=whole))
        counts.append(max(1, round(rest * count)))
    return counts


def iter_batches(
    lengths: np.ndarray, budget: BatchBudget, *, seed: int, steps: List[int], start: int
) -> Iterator[np.ndarray]:
    """Batches from global step ``start`` on: the same that an undisturbed run would see."""
    passed = 0
    for epoch, count in enumerate(steps):
        if start < passed + count:
            plan = plan_pass(lengths, budget, seed=seed, epoch=epoch)[:count]
            yield from plan[max(0, start - passed) :]
        passed += count


class SpireTrainer:
    """Trainer class of :class:`espnet_spire.tasks.spire.SpireTask`.

    ESPnet calls :meth:`build_options` and :meth:`run`; the latter builds the LLM, so that no
    full float32 copy of it is ever made by AbsTask.
    """

    @classmethod
    def add_arguments(cls, parser) -> None:
        """SpireTask has all options; AbsTask asks each trainer all the same."""

    @classmethod
    def build_options(cls, args) -> SpireTrainerOptions:
        """Take the fields of :class:`SpireTrainerOptions` from parsed arguments."""
        names = SpireTrainerOptions.__dataclass_fields__
        return SpireTrainerOptions(**{name: getattr(args, name) for name in names})

    @classmethod
    def run(
        cls,
        model,
        optimizers,
        schedulers,
        train_iter_factory,
        valid_iter_factory,
        plot_attention_iter_factory,
        trainer_options: SpireTrainerOptions,
        distributed_option,
    ) -> None:
        """Train until the plan is done, from the newest whole checkpoint if there is one."""
        options = trainer_options
        pointer = read_pointer(options.output_dir) if options.resume else None
        if pointer is not None and pointer.finished:
            logging.info("%s is finished already", options.output_dir)
            return
        run = _Run(options, train_iter_factory.batches, valid_iter_factory.batches)
        run.train()


def init_process_group(ngpu: int) -> None:
    """Make the process group that DeepSpeed wants, also for a single process."""
    # The shared-memory collective is compiled at first use and needs ninja; gloo does as well.
    from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False
    import deepspeed

    backend = "nccl" if ngpu > 0 else "gloo"
    if not torch.distributed.is_initialized() and "RANK" not in os.environ:
        torch.distributed.init_process_group(
            backend, store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def read_deepspeed_config(path: str, *, dtype: str, clip: float) -> Dict[str, Any]:
    """DeepSpeed's JSON with what our options decide filled in.

    ``train_micro_batch_size_per_gpu`` and ``gradient_accumulation_steps`` are 1: batches are made
    by tokens, and the trainer marks where a step ends. Settings that options of ours decide may
    not stand in the file.
    """
    config = read_json(path)
    ours = ("optimizer", "scheduler", "gradient_clipping", "bf16", "fp16", "train_batch_size")
    for key in ours + ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        if key in config:
            raise SpireError(f"{path}: {key!r} is decided by options of spire_train; remove it")
    config.update(
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        gradient_clipping=clip,
        bf16={"enabled": dtype == "bfloat16"},
        zero_allow_untested_optimizer=True,
        zero_force_ds_cpu_optimizer=False,
        steps_per_print=2**31,
    )
    return config


class _Run:
    """One training: model, engine, data, and the loop over steps."""

    def __init__(
        self, options: SpireTrainerOptions, train: ExampleBatches, valid: Optional[ExampleBatches]
    ) -> None:
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig

        self.options = options
        self.train_data, self.valid_data = train, valid
        self.output_dir = Path(options.output_dir)
        init_process_group(options.ngpu)
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        self.device = torch.device("cuda" if options.ngpu > 0 else "cpu")

        config = read_deepspeed_config(
            options.deepspeed_config, dtype=options.dtype, clip=options.clip_grad_norm
        )
        # Under ZeRO-3 transformers partitions weights while it loads them only as long as this
        # object lives; without it its initialisation is skipped in silence.
        self.hf_config = HfDeepSpeedConfig(config)
        network = self._build_model()
        # Under ZeRO-3 a parameter's own shape is that of its placeholder: (0,).
        ranks = {p: len(getattr(p, "ds_shape", p.shape)) for p in network.parameters()}
        decay = [p for p, rank in ranks.items() if rank > 1]
        no_decay = [p for p, rank in ranks.items() if rank <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": options.weight_decay},
                {"params": no_decay, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(options.adam_beta1, options.adam_beta2),
            eps=options.adam_eps,
        )
        self.engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)

        self.budget = BatchBudget(options.batch_tokens, options.batch_examples)
        self.steps = plan_steps(
            train.lengths, self.budget, seed=options.seed, num_epochs=options.num_epochs
        )
        self.total_steps = sum(self.steps)
        # Where in the data the run is: the rest follows from the plan.
        self.steps_taken = 0
        self.stop_signal: Optional[int] = None
        self.writer = None

    def _build_model(self):
        from transformers import AutoModelForCausalLM

        from espnet_spire.model.causal_lm import CausalLMLoss

        lm = AutoModelForCausalLM.from_pretrained(
            self.options.model, dtype=getattr(torch, self.options.dtype)
        )
        if self.options.gradient_checkpointing:
            lm.gradient_checkpointing_enable({"use_reentrant": False})
        return CausalLMLoss(lm)

    # Checkpoints --------------------------------------------------------------------------

    def save(self, *, finished: bool = False) -> None:
        """Write a checkpoint on all ranks, then move the pointer on the first."""
        tag = f"step_{self.steps_taken}"
        self.engine.save_checkpoint(
            str(self.output_dir),
            tag=tag,
            client_state={
                "step": self.steps_taken,
                "total_steps": self.total_steps,
                "rng": torch.get_rng_state(),
            },
            save_latest=False,
        )
        torch.distributed.barrier()
        if self.rank == 0:
            advance_pointer(
                self.output_dir, tag, keep=self.options.keep_checkpoints, finished=finished
            )
            self._plot()

    def resume(self) -> None:
        """Go back to the newest whole checkpoint, if there is one."""
        if self.rank == 0 and not self.options.resume:
            forget_checkpoints(self.output_dir)
        torch.distributed.barrier()
        pointer = read_pointer(self.output_dir)
        if self.rank == 0:
            remove_unfinished(self.output_dir)
        torch.distributed.barrier()
        if pointer is None:
            self._truncate_history(0)
            return
        path, state = self.engine.load_checkpoint(str(self.output_dir), tag=pointer.tag)
        if path is None:
            raise SpireError(f"{self.output_dir / pointer.tag}: DeepSpeed cannot load it")
        if state["total_steps"] != self.total_steps:
            raise SpireError(
                f"{self.output_dir} was started with {state['total_steps']} steps in all, now there"
                f" are {self.total_steps}: data or options changed; use another --output_dir"
            )
        torch.set_rng_state(state["rng"])
        self.steps_taken = state["step"]
        self._truncate_history(self.steps_taken)
        logging.info("resumed at step %d of %d", self.steps_taken, self.total_steps)

    # Records ------------------------------------------------------------------------------

    def _truncate_history(self, step: int) -> None:
        """Forget what was recorded after ``step``: it will be recorded again."""
        path = self.output_dir / HISTORY
        if self.rank != 0 or not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with atomic_write(path) as stream:
            stream.write("".join(kept))

    def _record(self, entry: Dict[str, Any]) -> None:
        if self.rank != 0:
            return
        with open(self.output_dir / HISTORY, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self.writer is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.writer.add_scalar(name, value, entry["step"])

    def _plot(self) -> None:
        from espnet_spire.utils.plots import plot_loss

        if (self.output_dir / HISTORY).exists():
            title = f"{self.output_dir.name}: loss"
            plot_loss(self.output_dir / HISTORY, self.output_dir / "loss.png", title)

    # The loop -----------------------------------------------------------------------------

    def train(self) -> None:
        """Take all steps that are left."""
        options = self.options
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.resume()
        if options.use_tensorboard and self.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.output_dir / "tensorboard"))
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        batches = iter_batches(
            self.train_data.lengths,
            self.budget,
            seed=options.seed,
            steps=self.steps,
            start=self.steps_taken,
        )
        # Closed also when an error ends the loop: the error's line is to be the last.
        with progress(
            total=self.total_steps,
            initial=self.steps_taken,
            desc=self.output_dir.name,
            unit="step",
        ) as bar:
            for batch in batches:
                entry = self._step(batch)
                self.steps_taken += 1
                step = self.steps_taken
                self._record({"step": step, **entry})
                bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
                bar.update()
                last = step == self.total_steps
                if self.valid_data is not None and (
                    last or step % options.eval_interval_steps == 0
                ):
                    self._record({"step": step, **self._validate()})
                if self._stop_wanted():
                    self.save()
                    raise SpireError(
                        f"stopped by a signal at step {step}; start the same command again to go on"
                    )
                if not last and step % options.save_interval_steps == 0:
                    self.save()
        self.save(finished=True)

    def _on_signal(self, number: int, _frame) -> None:
        self.stop_signal = number

    def _stop_wanted(self) -> bool:
        """Whether any rank got a signal; all must agree, since saving is collective."""
        if self.world_size == 1:
            return self.stop_signal is not None
        flag = torch.tensor([float(self.stop_signal is not None)], device=self.device)
        torch.distributed.all_reduce(flag)
        return bool(flag.item())

    def _step(self, batch: np.ndarray) -> Dict[str, Any]:
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
        num_targets = self.train_data.num_targets(batch)
        pieces = micro_batches(batch, self.train_data.lengths, options.micro_batch_tokens)
        pieces = share_of_rank(pieces, self.rank, self.world_size)
        self.engine.train()
        sums = self._empty_sums()
        for number, piece in enumerate(pieces):
            data = self.train_data.collate(piece)
            output = self.engine(**self._tensors(data))
            self.engine.set_gradient_accumulation_boundary(number == len(pieces) - 1)
            # DeepSpeed averages gradients over ranks; the sum over ranks is wanted.
            self.engine.backward(output.loss_sum * (self.world_size / num_targets))
            self.engine.step()
            self._add(sums, data["task"], output, data["key"])
        report = self._report(sums)
        norm = self.engine.get_global_grad_norm()
        seconds = time.perf_counter() - started
        return {
            **report,
            "lr": rate,
            "grad_norm": float(norm) if norm is not None else None,
            "tokens_per_second": round(float(self.train_data.lengths[batch].sum()) / seconds, 1),
        }

    @torch.no_grad()
    def _validate(self) -> Dict[str, Any]:
        """Loss over the whole validation set."""
        self.engine.eval()
        everything = np.arange(len(self.valid_data.lengths))
        tokens = self.options.micro_batch_tokens or self.options.batch_tokens
        pieces = micro_batches(everything, self.valid_data.lengths, tokens)
        sums = self._empty_sums()
        for piece in share_of_rank(pieces, self.rank, self.world_size):
            data = self.valid_data.collate(piece)
            self._add(sums, data["task"], self.engine(**self._tensors(data)), data["key"])
        return {f"valid_{name}": value for name, value in self._report(sums).items()}

    def _tensors(self, data: Dict[str, Any]) -> Dict[str, torch.Tensor]:
        return {k: v.to(self.device) for k, v in data.items() if isinstance(v, torch.Tensor)}

    def _all_tasks(self) -> List[str]:
        """Every task of the data: ranks whose batch lacks one report it all the same."""
        valid = self.valid_data.tasks if self.valid_data is not None else []
        return sorted({*self.train_data.tasks, *valid})

    def _empty_sums(self) -> torch.Tensor:
        return torch.zeros(len(self._all_tasks()), 2, dtype=torch.float64)

    def _add(self, sums: torch.Tensor, tasks: List[str], output, keys: List[str]) -> None:
        names = self._all_tasks()
        losses, counts = output.example_loss.tolist(), output.example_targets.tolist()
        if not np.isfinite(losses).all():
            bad = [key for key, loss in zip(keys, losses, strict=False) if not np.isfinite(loss)]
            raise SpireError(
                f"loss is not finite at step {self.steps_taken + 1}, rank {self.rank}, examples"
                f" {', '.join(bad[:5])}; the last checkpoint is intact: lower --learning_rate"
            )
        # An empty share has one row of padding and no task.
        for task, loss, count in zip(tasks, losses, counts, strict=False):
            row = names.index(task)
            sums[row, 0] += loss
            sums[row, 1] += count

    def _report(self, sums: torch.Tensor) -> Dict[str, float]:
        """Loss a target token over all ranks, in all and for each task that occurred."""
        if self.world_size > 1:
            sums = sums.to(self.device)
            torch.distributed.all_reduce(sums)
            sums = sums.cpu()
        report = {"loss": float(sums[:, 0].sum() / sums[:, 1].sum())}
        for name, (loss, count) in zip(self._all_tasks(), sums.tolist(), strict=True):
            if count > 0:
                report[f"loss_{name}"] = loss / count
        return report
