"""Which examples make which step: a pure function of lengths, settings and seed.

A pass takes the examples in a random order and cuts it into windows. Each window is packed into
sequences. Packing puts like lengths together, and with them like tasks; so that each step is a fair
sample all the same, windows are small where steps are, and sequences are dealt out: one from each
part of the order that packing made, then the next. Steps take so many sequences in a row, across
windows. No array is as long as the data: orders are computed where they are needed, and of each
window only the number of its sequences is kept.
"""

import math
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from espnet_spire.train.packing import members, pack_best_fit
from espnet_spire.train.shuffle import dealt, permuted
from espnet_spire.utils.errors import SpireError

# Tokens of examples by number, shape (n,) → (n,): ExampleStore.lengths, an array's __getitem__ …
Lengths = Callable[[np.ndarray], np.ndarray]


class PlanSettings(NamedTuple):
    """What a plan depends on beside the data.

    ``sequence_length``: tokens of a sequence at most. ``batch_sequences``: sequences of an
    optimizer step over all ranks. ``packing``: several examples to a sequence, else one.
    ``num_epochs``: passes over the data, the last one may be a part. ``window``: examples that are
    packed together; ``None`` for about as many as a step takes. A larger one leaves less room in
    sequences, but only in windows no larger than a step are its examples a random sample.
    """

    sequence_length: int
    batch_sequences: int
    packing: bool
    seed: int
    num_epochs: float
    window: Optional[int] = None


class Counts(NamedTuple):
    """All that a plan keeps: examples to a ``window``, ``tokens`` of all examples, and how many
    ``sequences[pass][window]`` gives."""

    window: int
    tokens: int
    sequences: List[List[int]]


class Plan:
    """The steps of a run; made by :meth:`build` or :meth:`from_json`.

    Args:
        lengths: gives the tokens of examples.
        num_examples: how many there are.
        settings: the rest.
        counts: what is known of its windows.

    Attributes:
        steps_per_pass: steps of each pass, the last one cut where ``num_epochs`` is not whole.
        total_steps: their sum.
        tokens: of all examples, once.
        efficiency: tokens over room in all sequences of the passes, cut or not; ``None`` without
            packing, where rows are as long as the longest of their micro-batch.
    """

    def __init__(
        self, lengths: Lengths, num_examples: int, settings: PlanSettings, counts: Counts
    ) -> None:
        self._lengths = lengths
        self._num_examples = num_examples
        self._settings = settings
        self._examples_a_window = counts.window
        self._sequences = counts.sequences
        self.tokens = counts.tokens
        self.steps_per_pass = [-(-sum(one) // settings.batch_sequences) for one in self._sequences]
        part = settings.num_epochs - int(settings.num_epochs)
        if part > 0:
            self.steps_per_pass[-1] = max(1, round(part * self.steps_per_pass[-1]))
        self.total_steps = sum(self.steps_per_pass)
        self.efficiency: Optional[float] = None
        if settings.packing:
            room = sum(map(sum, self._sequences)) * settings.sequence_length
            self.efficiency = len(self._sequences) * self.tokens / room

    @classmethod
    def build(cls, lengths: Lengths, num_examples: int, settings: PlanSettings) -> "Plan":
        """Count the sequences by packing every window of every pass once.

        Time: some ten seconds a pass of 20 million examples.

        Raises:
            SpireError: there is nothing to train on, or an example is longer than a sequence.
        """
        if num_examples == 0:
            raise SpireError("there are no examples to train on")
        for name in ("sequence_length", "batch_sequences", "num_epochs"):
            if getattr(settings, name) <= 0:
                raise SpireError(f"{name} is {getattr(settings, name)}; it must be above 0")
        size = settings.window or _examples_a_step(lengths, num_examples, settings)
        tokens = 0
        sequences: List[List[int]] = []
        for epoch in range(math.ceil(settings.num_epochs)):
            sequences.append([])
            for start in range(0, num_examples, size):
                positions = np.arange(start, min(start + size, num_examples))
                _, found = _examples(lengths, positions, num_examples, settings, epoch)
                sequences[-1].append(int(_packed(found, settings).max()) + 1)
                tokens += int(found.sum()) if epoch == 0 else 0
        return cls(lengths, num_examples, settings, Counts(size, tokens, sequences))

    def to_json(self) -> Dict[str, Any]:
        """What :meth:`from_json` makes the same plan of without packing anything."""
        return Counts(self._examples_a_window, self.tokens, self._sequences)._asdict()

    @classmethod
    def from_json(
        cls, lengths: Lengths, num_examples: int, settings: PlanSettings, value: Dict[str, Any]
    ) -> "Plan":
        """The plan that :meth:`to_json` described, for the same data and settings."""
        return cls(lengths, num_examples, settings, Counts(**value))

    def batches(self, start: int = 0) -> Iterator[List[np.ndarray]]:
        """The steps from number ``start`` on: those that an undisturbed run would see.

        Yields:
            the sequences of a step, each an array of example numbers, all of them full steps but
            the last one of a pass. Only windows that are needed are packed.
        """
        passed = 0
        for epoch, steps in enumerate(self.steps_per_pass):
            if start < passed + steps:
                yield from self._batches_of_pass(epoch, max(0, start - passed), steps)
            passed += steps

    def _sequences_of_window(self, epoch: int, window: int) -> List[np.ndarray]:
        settings, size, total = self._settings, self._examples_a_window, self._num_examples
        positions = np.arange(window * size, min((window + 1) * size, total))
        indices, lengths = _examples(self._lengths, positions, total, settings, epoch)
        packed = members(_packed(lengths, settings))
        if len(packed) != self._sequences[epoch][window]:
            raise SpireError(
                "the examples are not those that the plan of batches was made for; train them in"
                " another --output_dir"
            )
        order = dealt(len(packed), settings.batch_sequences, (settings.seed, epoch, window))
        return [indices[packed[number]] for number in order]

    def _batches_of_pass(self, epoch: int, first: int, end: int) -> Iterator[List[np.ndarray]]:
        size = self._settings.batch_sequences
        ends = np.cumsum(self._sequences[epoch])
        window = int(np.searchsorted(ends, first * size, side="right"))
        skip = first * size - int(ends[window - 1]) if window else first * size
        waiting: List[np.ndarray] = []
        for _ in range(first, end):
            while len(waiting) < size and window < len(ends):
                waiting += self._sequences_of_window(epoch, window)[skip:]
                window, skip = window + 1, 0
            yield waiting[:size]
            waiting = waiting[size:]


def _examples_a_step(lengths: Lengths, num_examples: int, settings: PlanSettings) -> int:
    """About as many examples as a step takes, a power of two.

    For the sake of packing at least 256 and as many as give 32 sequences, and so many that there
    are at most 4096 windows.
    """
    positions = np.arange(min(num_examples, 65536))
    _, found = _examples(lengths, positions, num_examples, settings, epoch=0)
    each = float(found.mean()) if settings.packing else settings.sequence_length
    count = max(32, settings.batch_sequences) * settings.sequence_length / each
    return int(2 ** np.ceil(np.log2(np.clip(count, max(256, num_examples / 4096), 65536))))


def _examples(
    lengths: Lengths, positions: np.ndarray, num_examples: int, settings: PlanSettings, epoch: int
) -> Tuple[np.ndarray, np.ndarray]:
    """The examples at some positions of a pass, and their lengths."""
    indices = permuted(positions, num_examples, (settings.seed, epoch))
    found = np.asarray(lengths(indices))
    if found.max() > settings.sequence_length:
        raise SpireError(
            f"example {indices[found.argmax()]} has {found.max()} tokens, --sequence_length is"
            f" {settings.sequence_length}; raise it or lower max_length of the mixture"
        )
    return indices, found


def _packed(lengths: np.ndarray, settings: PlanSettings) -> np.ndarray:
    """The number of each example's sequence within its window."""
    if settings.packing:
        return pack_best_fit(lengths, settings.sequence_length)
    return np.arange(len(lengths))


def micro_batches(
    sequences: List[np.ndarray],
    lengths: np.ndarray,
    micro_tokens: Optional[int],
    *,
    world_size: int = 1,
) -> List[List[np.ndarray]]:
    """Split one step's sequences into pieces of rows of similar length, the longest first.

    As few pieces as ``micro_tokens`` allows, but where there are rows enough their number is a
    multiple of ``world_size``, so that no rank is idle; and the largest piece is as small as that
    number allows.

    Args:
        sequences: example numbers of each row.
        lengths: tokens of each row, shape (rows,).
        micro_tokens: rows × longest row of a piece at most; a row that is longer is a piece of its
            own. ``None`` for no limit.
        world_size: ranks that share the pieces.
    """
    if not sequences:
        return []
    order = np.argsort(-lengths, kind="stable")
    rows = lengths[order].tolist()
    limit = len(rows) * rows[0] if micro_tokens is None else micro_tokens
    fewest = len(_cut(rows, limit)) - 1
    wanted = min(-(-fewest // world_size) * world_size, len(rows))
    # The smallest limit that still gives no more pieces than wanted.
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut(rows, middle)) - 1 <= wanted else (middle, high)
    borders = _cut(rows, high)
    # Equal rows can make it fewer than wanted: halve those with most rows.
    while len(borders) - 1 < wanted:
        widest = int(np.argmax(np.diff(borders)))
        borders.insert(widest + 1, (borders[widest] + borders[widest + 1] + 1) // 2)
    return [
        [sequences[number] for number in order[start:end]]
        for start, end in zip(borders, borders[1:], strict=False)
    ]


def _cut(rows: List[int], limit: int) -> List[int]:
    """Borders of pieces of descending rows: each piece as long as rows × longest row allows."""
    borders = [0]
    while borders[-1] < len(rows):
        start = borders[-1]
        borders.append(min(len(rows), start + max(1, limit // rows[start])))
    return borders


def share_of_rank(
    pieces: List[List[np.ndarray]], rank: int, world_size: int
) -> List[List[np.ndarray]]:
    """The micro-batches of one rank; every rank gets the same number, of similar size in each turn.

    Where they do not divide evenly, empty ones fill up: collective operations need all ranks.
    """
    turns = -(-len(pieces) // world_size)
    filled = pieces + [[]] * (turns * world_size - len(pieces))
    return filled[rank::world_size]
