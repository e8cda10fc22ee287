"""The files of a part: ``.arrow``, ``.npy``, ``.json`` behind its stem.

The first has the examples (the columns of :data:`SCHEMA`), the second what a budget needs to know
of each, the third what was rejected; it is written last.
"""

import contextlib
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple

import numpy as np
import pyarrow as pa

from espnet_spire.train.examples import Ragged
from espnet_spire.train.selection import FACTS, kept
from espnet_spire.utils.atomic import atomic_write, read_json, write_json

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("target_spans", pa.list_(pa.int32())),
        ("length", pa.int32()),
        ("num_targets", pa.int32()),
        ("task", pa.string()),
        ("lang", pa.string()),
        ("key", pa.string()),
    ]
)
# What becomes one Arrow record batch.
_RECORD_EXAMPLES, _RECORD_TOKENS = 4096, 2**22


class Batch(NamedTuple):
    """Encoded examples; ``facts`` are theirs, in the same order."""

    ids: Ragged
    spans: Ragged
    facts: np.ndarray
    langs: List[str]
    keys: List[str]


def write_part(stem: str, task: str, batches: Iterable[Batch], summary: Dict[str, Any]) -> int:
    """Write the files of a part, a record batch in memory at a time.

    Args:
        stem: of the files' names.
        task: of all examples.
        batches: the examples.
        summary: what else is to be said of the part; read when ``batches`` is at its end.

    Returns:
        tokens of all examples.
    """
    facts = [np.empty(0, FACTS)]
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(atomic_write(f"{stem}.arrow", "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(sink, SCHEMA))
        for group in _record_groups(batches):
            facts += [batch.facts for batch in group]
            writer.write_batch(_record_batch(group, task))
    table = np.concatenate(facts)
    with atomic_write(f"{stem}.npy", "wb") as stream:
        np.save(stream, table)
    tokens = int(table["length"].sum(dtype=np.int64))
    write_json(f"{stem}.json", {**summary, "examples": len(table), "tokens": tokens})
    return tokens


def _record_groups(batches: Iterable[Batch]) -> Iterator[List[Batch]]:
    group: List[Batch] = []
    examples = tokens = 0
    for batch in batches:
        group.append(batch)
        examples += len(batch.keys)
        tokens += len(batch.ids.values)
        if examples >= _RECORD_EXAMPLES or tokens >= _RECORD_TOKENS:
            yield group
            group, examples, tokens = [], 0, 0
    if group:
        yield group


def _record_batch(batches: List[Batch], task: str) -> pa.RecordBatch:
    facts = np.concatenate([batch.facts for batch in batches])
    return pa.record_batch(
        [
            _list_array([batch.ids for batch in batches]),
            _list_array([batch.spans for batch in batches]),
            pa.array(facts["length"].copy()),
            pa.array(facts["targets"].copy()),
            pa.array([task] * len(facts)),
            pa.array([lang for batch in batches for lang in batch.langs]),
            pa.array([key for batch in batches for key in batch.keys]),
        ],
        schema=SCHEMA,
    )


def _list_array(rows: List[Ragged]) -> pa.ListArray:
    """An Arrow array over the numbers themselves: no Python lists."""
    ends = np.cumsum([0] + [len(row.values) for row in rows])
    offsets = [row.offsets[:-1] + end for row, end in zip(rows, ends, strict=False)]
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([*offsets, ends[-1:]]).astype(np.int32)),
        pa.array(np.concatenate([row.values for row in rows])),
    )


def is_done(stem: str) -> bool:
    """Whether a part is complete."""
    return all(Path(f"{stem}.{kind}").exists() for kind in ("arrow", "npy", "json"))


def read_summary(stem: str) -> Dict[str, Any]:
    """What is said of a part: ``examples``, ``tokens``, ``langs``, ``rejected``, ``cut`` …"""
    return read_json(f"{stem}.json")


def read_facts(stem: str) -> np.ndarray:
    """What a budget needs to know of a part's examples: :data:`FACTS`, shape (N,)."""
    return np.load(f"{stem}.npy")


def copy_kept(stem: str, border: int, out: str) -> None:
    """Write the examples of a part that lie below ``border``, one record batch in memory."""
    mask = pa.array(kept(read_facts(stem), border))
    start = 0
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(pa.memory_map(f"{stem}.arrow"))
        sink = stack.enter_context(atomic_write(out, "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(sink, SCHEMA))
        for batch in pa.ipc.open_stream(source):
            some = batch.filter(mask.slice(start, len(batch)))
            start += len(batch)
            if len(some):
                writer.write_batch(some)
