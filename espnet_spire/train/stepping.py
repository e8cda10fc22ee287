"""One optimizer step, and one validation: sequences in, losses and speed out."""

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np
import torch

from espnet_spire.train.collate import PackedRows, collate
from espnet_spire.train.distributed import Ranks
from espnet_spire.train.engine import unclipped_norm
from espnet_spire.train.losses import GroupLosses, loss_groups
from espnet_spire.train.options import TrainingOptions
from espnet_spire.train.pairs import KdWeights
from espnet_spire.train.plan import micro_batches, share_of_rank
from espnet_spire.train.schedule import learning_rate
from espnet_spire.train.store import ExampleStore, documents_of, students_of
from espnet_spire.train.throughput import memory_gib, model_size, peak_flops, step_flops
from espnet_spire.utils.ahead import one_ahead
from espnet_spire.utils.errors import SpireError

if TYPE_CHECKING:
    from espnet_spire.model.causal_lm import LossOutput


class Piece(NamedTuple):
    """One forward pass of one rank: its rows and the examples in them, in order; ``students`` are
    the documents that learn from the next one, which is of the same example."""

    rows: PackedRows
    indices: np.ndarray
    students: np.ndarray


class Stepper:
    """Takes steps with an engine.

    Args:
        engine: DeepSpeed's, around a ``CausalLMLoss``.
        ranks: all processes.
        options: of the training.
        groups: all (task, language) pairs of training and validation, the same on each rank.
        pad_id: id that fills up rows.
    """

    def __init__(
        self,
        engine,
        ranks: Ranks,
        options: TrainingOptions,
        groups: List[Tuple[str, str]],
        pad_id: int,
    ) -> None:
        self._engine, self._ranks, self._options = engine, ranks, options
        self._groups, self._first_group = loss_groups(groups, KdWeights(*options.kd_weights))
        self._pad_id = pad_id
        self._size = model_size(engine.module.lm)
        dtype = getattr(torch, options.dtype)
        self._peak = peak_flops(ranks.device, dtype, options.peak_tflops) * ranks.world_size

    def step(
        self, store: ExampleStore, sequences: List[np.ndarray], number: int, total_steps: int
    ) -> Dict[str, Any]:
        """One optimizer step; the loss is a mean over the target tokens of the global batch.

        Args:
            store: the examples.
            sequences: examples of each sequence of the step, of all ranks.
            number: of the step, from 0.
            total_steps: of the schedule.

        Returns:
            what goes on record, see :mod:`espnet_spire.train.records`.

        Raises:
            SpireError: loss or gradient are not finite, or memory is at its end.
        """
        options, started = self._options, time.perf_counter()
        rate = learning_rate(
            number,
            total_steps=total_steps,
            warmup_steps=options.warmup_steps,
            peak=options.learning_rate,
            final_ratio=options.final_lr_ratio,
        )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        # Dropout (LoRA has it) depends on the step alone: nothing random has to be saved.
        state = np.random.SeedSequence([options.seed, number, self._ranks.rank])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0] >> 1))
        everything = np.concatenate(sequences)
        lengths = store.lengths(everything)
        num_targets = int(store.num_targets(everything).sum())
        self._engine.train()
        done = []
        pieces = self._pieces(sequences, lengths)
        for turn, piece in enumerate(one_ahead(self._collated(store, pieces))):
            last = turn == len(pieces) - 1
            with self._out_of_memory(number, piece):
                output = self._forward(piece)
                self._engine.set_gradient_accumulation_boundary(last)
                # DeepSpeed averages gradients over ranks; the sum over ranks is wanted.
                self._engine.backward(output.loss_sum * (self._ranks.world_size / num_targets))
                done.append((piece, output))
                if last:
                    report = self._report(store, done, number)
                    plain = self._engine.zero_optimization_stage() == 0
                    norm = unclipped_norm(self._engine) if plain else None
                self._engine.step()
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise SpireError(
                f"gradient norm is {norm} at step {number + 1}, although the loss is finite; the"
                " last checkpoint is intact: lower --learning_rate"
            )
        memory = self._ranks.max([memory_gib(self._ranks.device)])[0]
        seconds = time.perf_counter() - started
        flops = step_flops(self._size, lengths, num_targets)
        return {
            **report,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": round(float(lengths.sum()) / seconds, 1),
            "target_tokens_per_second": round(num_targets / seconds, 1),
            "share_of_peak": round(flops / seconds / self._peak, 4) if self._peak else None,
            "memory_gib": round(memory, 3),
        }

    @torch.no_grad()
    def validate(
        self, store: ExampleStore, batches: Iterator[List[np.ndarray]], number: int
    ) -> Dict[str, float]:
        """Loss over a whole data set, under names that begin with ``valid_``.

        Args:
            number: steps taken.
        """
        self._engine.eval()
        done = []
        for sequences in batches:
            pieces = self._pieces(sequences, store.lengths(np.concatenate(sequences)))
            for piece in one_ahead(self._collated(store, pieces)):
                with self._out_of_memory(number, piece):
                    done.append((piece, self._forward(piece)))
        report = self._report(store, done, number)
        return {f"valid_{name}": value for name, value in report.items()}

    def _pieces(self, sequences: List[np.ndarray], lengths: np.ndarray) -> List[List[np.ndarray]]:
        """The forward passes of this rank.

        Args:
            lengths: tokens of all examples, in the order of the sequences.
        """
        ends = np.cumsum([len(sequence) for sequence in sequences])
        rows = np.add.reduceat(lengths, np.concatenate([[0], ends[:-1]]))
        world_size = self._ranks.world_size
        tokens = self._options.micro_batch_tokens
        pieces = micro_batches(sequences, rows, tokens, world_size=world_size)
        return share_of_rank(pieces, self._ranks.rank, world_size)

    def _collated(self, store: ExampleStore, pieces: List[List[np.ndarray]]) -> Iterator[Piece]:
        for piece in pieces:
            indices = np.concatenate(piece) if piece else np.array([], dtype=np.int64)
            rows = collate(documents_of(store, piece), self._pad_id)
            yield Piece(rows, indices, students_of(store, indices))

    def _forward(self, piece: Piece):
        tensors = {k: v.to(self._ranks.device) for k, v in piece.rows._asdict().items()}
        if len(piece.students):
            tensors["students"] = torch.from_numpy(piece.students).to(self._ranks.device)
        return self._engine(**tensors, num_documents=len(piece.indices) + len(piece.students))

    def _report(
        self, store: ExampleStore, done: List[Tuple[Piece, "LossOutput"]], number: int
    ) -> Dict[str, float]:
        """Losses over all ranks; one that is not finite ends the run before a step is taken.

        Args:
            done: each forward pass and its losses, which stay on the device until here: waiting
                for them after each pass would leave it idle.
        """
        losses = GroupLosses(self._groups)
        numbers = np.array([self._first_group[group] for group in store.groups])
        for piece, output in done:
            indices, students = piece.indices, piece.students
            # The example of each document: pairs have two in a row; then those of the divergences.
            count = len(indices) + len(students)
            is_first = ~np.isin(np.arange(count), students + 1)
            example = np.cumsum(is_first) - 1
            example = np.concatenate([example, example[students]])
            part = np.concatenate([np.where(is_first, 0, 1), np.full(len(students), 2)])
            groups = np.array([store.group(index) for index in indices], np.int64)
            losses.add(
                numbers[groups[example]] + part,
                torch.cat([output.document_loss, output.divergence]).cpu().numpy(),
                store.num_targets(indices)[example],
                keys=lambda which, of=indices[example]: [store.key(of[n]) for n in which],
            )
        losses.sums = self._ranks.sum(torch.from_numpy(losses.sums)).numpy()
        if not np.isfinite(losses.sums).all():
            bad = self._ranks.gather(losses.not_finite)
            named = "; ".join(
                f"rank {rank}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
                for rank, keys in enumerate(bad)
                if keys
            )
            raise SpireError(
                f"loss is not finite at step {number + 1}: {named}; the last checkpoint is intact:"
                " look at these examples, or lower --learning_rate"
            )
        return losses.report()

    @contextlib.contextmanager
    def _out_of_memory(self, number: int, piece: Piece) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            rows, length = piece.rows.input_ids.shape
            raise SpireError(
                f"out of memory at step {number + 1}, rank {self._ranks.rank}, in a forward pass of"
                f" {rows} × {length} tokens: lower --micro_batch_tokens, or set"
                " --gradient_checkpointing true, --loss_chunk_tokens 1024, or a higher ZeRO stage"
            ) from None
