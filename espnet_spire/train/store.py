"""Examples that `make_examples` wrote, read where they lie: nothing is loaded, nothing copied."""

from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
import pyarrow as pa

from espnet_spire.train.assemble import DATASET
from espnet_spire.train.collate import Document
from espnet_spire.train.pairs import PAIRED, split_pair
from espnet_spire.train.part_files import SCHEMA
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError


class ExampleStore:
    """Memory-mapped examples by number; memory does not grow with how many there are.

    Args:
        path: directory that ``make_examples`` wrote.

    Attributes:
        path: the same.
        groups: all pairs (task, language) that occur, sorted: the same list on every rank.
        has_pairs: whether some examples are pairs of documents, see
            :mod:`espnet_spire.train.pairs`.
        fingerprint: tells these examples from others that were made in their place.

    Raises:
        SpireError: there are no examples in ``path``, or not in this form.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        table, self.fingerprint = _open_table(self.path)
        self._size = table.num_rows
        self._columns = {name: _Column(table.column(name)) for name in SCHEMA.names}
        pairs = table.select(["task", "lang"]).group_by(["task", "lang"], use_threads=False)
        found = pairs.aggregate([])
        self.groups: List[Tuple[str, str]] = sorted(
            zip(found["task"].to_pylist(), found["lang"].to_pylist(), strict=True)
        )
        self.has_pairs = any(task == PAIRED for task, _ in self.groups)
        self._group_numbers = {pair: number for number, pair in enumerate(self.groups)}

    def __len__(self) -> int:
        return self._size

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of the given examples, int64, shape (n,)."""
        return self._columns["length"].numbers(indices)

    def num_targets(self, indices: np.ndarray) -> np.ndarray:
        """Tokens that carry loss in the given examples, int64, shape (n,)."""
        return self._columns["num_targets"].numbers(indices)

    def document(self, index: int) -> Document:
        """One example; both arrays are views of the file and cannot be written to."""
        ids = self._columns["input_ids"].sublist(index)
        spans = self._columns["target_spans"].sublist(index)
        ends = np.diff(spans, prepend=1, append=len(ids))
        if len(spans) % 2 or len(spans) == 0 or ends.min() < 0:
            raise self._unsound(index, ids, spans)
        return Document(ids, spans.reshape(-1, 2))

    def documents(self, index: int) -> List[Document]:
        """What is attended to as a whole: one example, or student and teacher of a pair."""
        whole = self.document(index)
        if not self.is_pair(index):
            return [whole]
        pair = split_pair(*whole)
        if pair is None:
            raise self._unsound(index, *whole)
        return [Document(*part) for part in pair]

    def is_pair(self, index: int) -> bool:
        """Whether an example is a pair of documents."""
        return self.has_pairs and self._columns["task"].value(index) == PAIRED

    def _unsound(self, index: int, ids: np.ndarray, spans: np.ndarray) -> SpireError:
        return SpireError(
            f"{self.path}: example {self.key(index)} has target_spans {spans.tolist()} of"
            f" {len(ids)} tokens; make the examples anew with make_examples"
        )

    def group(self, index: int) -> int:
        """Number in ``groups`` of the example's task and language."""
        pair = self._columns["task"].value(index), self._columns["lang"].value(index)
        return self._group_numbers[pair]

    def key(self, index: int) -> str:
        """``<source>:<utterance>[.<language>]`` of the example."""
        return self._columns["key"].value(index)


def documents_of(store: ExampleStore, sequences: Sequence[np.ndarray]) -> List[List[Document]]:
    """The documents of each sequence of example numbers, for :func:`collate`."""
    return [[part for index in row for part in store.documents(index)] for row in sequences]


def students_of(store: ExampleStore, indices: Sequence[int]) -> np.ndarray:
    """Numbers of the documents that learn from the next one, int64, shape (P,).

    Args:
        indices: examples, in the order of their documents.
    """
    pairs = np.fromiter((store.is_pair(index) for index in indices), bool, len(indices))
    return np.flatnonzero(pairs) + np.arange(pairs.sum())


def _open_table(path: Path) -> Tuple[pa.Table, str]:
    from datasets import Dataset, load_from_disk

    directory = path / DATASET
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such examples; make them with make_examples")
    try:
        dataset = load_from_disk(str(directory))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise SpireError(
            f"{directory}: not readable as examples ({reason}); make them with make_examples"
        ) from None
    if not isinstance(dataset, Dataset):
        raise SpireError(f"{directory}: several data sets; make examples with make_examples")
    schema = dataset.data.table.schema
    for name, wanted in zip(SCHEMA.names, SCHEMA.types, strict=True):
        if name not in schema.names:
            raise SpireError(f"{directory}: no column {name}; make examples with make_examples")
        if schema.field(name).type != wanted:
            raise SpireError(
                f"{directory}: column {name} is {schema.field(name).type}, not {wanted}; make"
                " examples with make_examples"
            )
    return dataset.data.table, dataset._fingerprint


class _Column:
    """A column in chunks; a row's chunk is found by where the chunks start."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        sizes = [len(chunk) for chunk in column.iterchunks()]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._starts = self._ends - sizes
        # Views of the chunks of a column of numbers, made when they are first wanted.
        self._views: List[np.ndarray] = [None] * len(sizes)

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """Values of a column of numbers at the given rows, int64, shape (n,)."""
        indices = np.asarray(indices, dtype=np.int64)
        order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        if len(ascending) and (ascending[0] < 0 or ascending[-1] >= self._ends[-1]):
            raise IndexError(f"no example {ascending[0] if ascending[0] < 0 else ascending[-1]}")
        found = np.empty(len(indices), dtype=np.int64)
        borders = np.searchsorted(ascending, self._ends)
        begin = 0
        for chunk in np.flatnonzero(np.diff(borders, prepend=0)).tolist():
            end = borders[chunk]
            if self._views[chunk] is None:
                self._views[chunk] = self._column.chunk(chunk).to_numpy(zero_copy_only=True)
            rows = ascending[begin:end] - self._starts[chunk]
            found[order[begin:end]] = self._views[chunk][rows]
            begin = end
        return found

    def sublist(self, index: int) -> np.ndarray:
        """One row of a column of lists, a view."""
        chunk, row = self._locate(index)
        start, end = chunk.offsets[row].as_py(), chunk.offsets[row + 1].as_py()
        return chunk.values[start:end].to_numpy(zero_copy_only=True)

    def value(self, index: int) -> str:
        """One row of a column of strings."""
        chunk, row = self._locate(index)
        return chunk[row].as_py()

    def _locate(self, index: int) -> Tuple[pa.Array, int]:
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"no example {index}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._column.chunk(number), int(index - self._starts[number])
