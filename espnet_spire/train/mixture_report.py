"""What went into a mixture: by source, task and language, against the budgets.

The report has ``variant``, ``format``, ``seed``, ``max_length`` and

* ``sources``: for each ``source`` its ``task``, ``repeat``; ``examples``, ``tokens`` and
  ``target_tokens`` in the data set, repeats counted; ``available`` and ``available_tokens`` before
  budgets and repeats; ``budget_tokens``, ``budget_examples`` (repeats counted, ``None`` without)
  and ``reached``, the share of the budget that there is; ``rejected`` in all, ``rejected_by``
  kind, ``without_units``, ``too_long``; ``cut`` texts and ``cut_tokens`` lost; ``length`` with
  ``mean``, ``median``, ``max``; ``content``, a hash of all that was read, by which an export
  knows the data again; ``langs``, the same by language as far as it applies;
* ``groups``: ``examples``, ``tokens``, ``target_tokens`` by ``task`` and ``lang``;
* ``lengths``: how many examples have ``up_to`` so many tokens and more than the one before.
"""

import logging
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from espnet_spire.train.parts import NO_UNITS, TOO_LONG
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.human import human_number

_SUMS = ("examples", "tokens", "target_tokens")


class Report:
    """Sums over parts: for each source ``begin``, ``add`` for its parts, ``end``."""

    def __init__(self, mixture: Dict[str, Any], variant: str) -> None:
        self._head = {
            "variant": variant,
            **{key: mixture[key] for key in ("format", "seed", "max_length")},
        }
        self._sources: List[Dict[str, Any]] = []
        self._groups: Dict[Any, Dict[str, int]] = {}
        self._lengths = np.zeros(1, np.int64)  # examples of each length, as far as there are any

    def begin(self, source: Dict[str, Any], streams: Sequence[Any]) -> None:
        """A source and its streams (:class:`espnet_spire.train.assemble.Selected`)."""
        self._streams, self._repeat = streams, source.get("repeat", 1)
        self._source_lengths = np.zeros(1, np.int64)
        self._content = 0
        self._langs: Dict[str, Dict[str, Any]] = {}
        self._first_rejected: Optional[str] = None
        for stream in streams:
            if stream.stream.lang:
                self._lang(stream.stream.lang)
        self._entry: Dict[str, Any] = {
            "source": source["name"],
            "task": source["task"],
            "repeat": self._repeat,
            **dict.fromkeys((*_SUMS, "available", "available_tokens"), 0),
            **dict.fromkeys(("rejected", "without_units", "too_long", "cut", "cut_tokens"), 0),
            "rejected_by": {},
        }

    def _lang(self, lang: str) -> Dict[str, Any]:
        zeros = dict.fromkeys((*_SUMS, "available", "available_tokens"), 0)
        return self._langs.setdefault(lang, {"lang": lang, **zeros})

    def add(self, place: int, facts: np.ndarray, mask: np.ndarray, summary: Dict[str, Any]) -> None:
        """A part of stream number ``place``: its examples, which are kept, its summary."""
        entry = self._entry
        for key, kind, reason in summary["rejected"]:
            self._first_rejected = self._first_rejected or f"{key}: {reason}"
            entry["rejected_by"][kind] = entry["rejected_by"].get(kind, 0) + 1
        self._content += summary["content"]
        entry["cut"] += summary["cut"]
        entry["cut_tokens"] += summary["cut_tokens"]
        self._source_lengths = _added(self._source_lengths, np.bincount(facts["length"][mask]))
        for number, name in enumerate(summary["langs"]):
            here = facts["lang"] == number
            chosen = facts[here & mask]
            counts = {
                "examples": len(chosen) * self._repeat,
                "tokens": int(chosen["length"].sum(dtype=np.int64)) * self._repeat,
                "target_tokens": int(chosen["targets"].sum(dtype=np.int64)) * self._repeat,
                "available": int(here.sum()),
                "available_tokens": int(facts["length"][here].sum(dtype=np.int64)),
            }
            for sums in (entry, self._lang(name)):
                for key, value in counts.items():
                    sums[key] += value

    def end(self) -> None:
        """The source is complete; what it lacks is said."""
        entry, name = self._entry, self._entry["source"]
        kinds = entry["rejected_by"]
        entry["rejected"] = sum(kinds.values())
        entry["without_units"] = kinds.get(NO_UNITS, 0)
        entry["too_long"] = kinds.get(TOO_LONG, 0)
        if not entry["available"]:
            reason = f"all are rejected ({self._first_rejected})" if kinds else "is its data empty?"
            raise SpireError(f"source {name}: no example; {reason}")
        if entry["without_units"]:
            logging.warning(
                "source %s: %d of %d examples are left out, their utterances have no units",
                *(name, entry["without_units"], entry["available"] + entry["rejected"]),
            )
        entry["content"] = f"{self._content % 2**64:016x}"
        entry["length"] = _statistics(self._source_lengths)
        entry["langs"] = list(self._langs.values())
        limits = self._streams[0].limits
        if self._streams[0].alone:
            for lang in entry["langs"]:
                self._against_budget(lang, limits, 1, f"source {name}, {lang['lang']}")
            self._against_budget(entry, limits, len(self._streams), None)
        else:
            self._against_budget(entry, limits, 1, f"source {name}")
        if not entry["examples"]:
            raise SpireError(f"source {name}: its budget is too small for a single example")
        for lang in entry["langs"]:
            group = self._groups.setdefault((entry["task"], lang["lang"]), dict.fromkeys(_SUMS, 0))
            for key in _SUMS:
                group[key] += lang[key]
        self._lengths = _added(self._lengths, self._source_lengths * self._repeat)
        self._sources.append(entry)

    def _against_budget(
        self, sums: Dict[str, Any], limits: Any, number: int, name: Optional[str]
    ) -> None:
        """Note the budget of ``number`` languages; say if there is less than ``name`` may have."""
        shares = []
        for key, limit in (("tokens", limits.max_tokens), ("examples", limits.max_examples)):
            budget = None if limit is None else limit * self._repeat * number
            sums[f"budget_{key}"] = budget
            if budget:
                shares.append((sums[key] / budget, key, budget))
        reached = max(shares, default=None)
        sums["reached"] = reached and round(reached[0], 4)
        kept_all = sums["examples"] == sums["available"] * self._repeat
        if name is not None and reached and kept_all and reached[0] < 1:
            share, key, budget = reached
            logging.warning(
                "%s: %s of %s %s (%.1f %%), there is no more",
                *(name, human_number(sums[key]), human_number(budget), key, 100 * share),
            )

    def result(self) -> Dict[str, Any]:
        """The report."""
        groups = [
            {"task": task, "lang": lang, **sums}
            for (task, lang), sums in sorted(self._groups.items())
        ]
        histogram = _histogram(self._lengths, self._head["max_length"])
        return {**self._head, "sources": self._sources, "groups": groups, "lengths": histogram}


def _added(counts: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Their sum; the longer one says how long it is."""
    total = np.zeros(max(len(counts), len(more)), np.int64)
    total[: len(counts)] += counts
    total[: len(more)] += more
    return total


def _statistics(counts: np.ndarray) -> Dict[str, float]:
    """Mean, median and maximum from how often each length occurs."""
    total = int(counts.sum())
    if not total:
        return {"mean": 0.0, "median": 0, "max": 0}
    median = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    mean = float((counts * np.arange(len(counts))).sum() / total)
    return {"mean": round(mean, 1), "median": median, "max": int(np.flatnonzero(counts)[-1])}


def _histogram(counts: np.ndarray, max_length: int) -> List[Dict[str, int]]:
    """By powers of two."""
    bins, low, high = [], 0, 16
    while low < len(counts):
        number = int(counts[low : high + 1].sum())
        if number:
            bins.append({"up_to": min(high, max_length), "examples": number})
        low, high = high + 1, 2 * high
    return bins


def report_table(report: Dict[str, Any]) -> str:
    """The report as text: a table by source, one by task and language."""
    columns = (*_SUMS, "rejected", "cut")
    rows = [("source", "task", *columns, "of budget")]
    for entry in report["sources"]:
        reached = "" if entry["reached"] is None else f"{100 * entry['reached']:.1f} %"
        rows.append((entry["source"], entry["task"], *_cells(entry, columns), reached))
    totals = {column: sum(entry[column] for entry in report["sources"]) for column in columns}
    rows.append(("total", "", *_cells(totals, columns), ""))
    groups = [("task", "lang", *_SUMS)]
    groups += [(group["task"], group["lang"], *_cells(group, _SUMS)) for group in report["groups"]]
    return f"{_table(rows)}\n\n{_table(groups)}"


def _cells(sums: Dict[str, Any], columns: Sequence[str]) -> List[str]:
    return [str(sums[column]) for column in columns]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
