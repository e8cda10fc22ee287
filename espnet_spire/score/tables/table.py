"""Tables with our figures in them, beside the paper's."""

from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from espnet_spire.score.layout import Run
from espnet_spire.score.metrics import METRICS
from espnet_spire.score.report import Result, label_of
from espnet_spire.score.tables.spec import Column, Figure, Part, Section, Spec

# Our figures by task, metric and part, of one run.
Own = Mapping[Tuple[str, str, Part], Result]


@dataclass(frozen=True)
class Cell:
    """A figure of ours and the paper's of the same name; either may be missing.

    Attributes:
        value: a percentage; an average where the column has several parts.
        low, high: its 95 % interval, of one part alone.
        paper: what the paper has there.
        missing: parts without a score. An average is ``None`` as long as there are any.
        parts: how many the column has.
    """

    column: Column
    value: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    paper: Optional[Figure] = None
    missing: Tuple[Part, ...] = ()

    @property
    def difference(self) -> Optional[float]:
        """Ours minus the paper's."""
        if self.value is None or self.paper is None:
            return None
        return self.value - self.paper.value

    @property
    def better(self) -> Optional[bool]:
        """Whether ours is better; ``None`` where that cannot be said or nothing shows."""
        if self.difference is None or self.paper.doubtful:
            return None
        if round(self.difference, self.column.decimals) == 0:
            return None
        return (self.difference < 0) == METRICS[self.column.metric].lower_is_better


@dataclass(frozen=True)
class Row:
    """A system: ``run`` is ``None`` where the figures are the paper's alone."""

    label: str
    run: Optional[Run]
    cells: Tuple[Cell, ...]

    @property
    def compared(self) -> bool:
        """Whether the paper has a figure in any cell."""
        return any(cell.paper is not None for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """Filled: for each section its title and rows."""

    spec: Spec
    sections: Tuple[Tuple[str, Tuple[Row, ...]], ...]

    @property
    def rows(self) -> Iterator[Row]:
        """Those of all sections."""
        for _, rows in self.sections:
            yield from rows

    def notes(self) -> List[str]:
        """What is to be known of single figures."""
        lines: Dict[str, None] = {}
        for title, rows in self.sections:
            for row in rows:
                where = ", ".join(filter(None, (row.label, title)))
                for cell in row.cells:
                    if cell.missing and len(cell.missing) < len(cell.column.parts):
                        names = ", ".join(part.name for part in cell.missing)
                        lines[
                            f"{where}, {cell.column.title}: not computed, {len(cell.missing)} of"
                            f" {len(cell.column.parts)} parts are missing ({names})"
                        ] = None
                    if cell.paper and cell.paper.note:
                        system = row.run.system if row.run else row.label
                        figure = f"{cell.paper.value:.{cell.column.decimals}f}"
                        lines[
                            f"the paper's {figure} for {system}, {cell.column.title}:"
                            f" {cell.paper.note}"
                        ] = None
        return list(lines)


def own_figures(results: Sequence[Result]) -> Dict[Run, Dict[Tuple[str, str, Part], Result]]:
    """Results by run, in their order."""
    found: Dict[Run, Dict[Tuple[str, str, Part], Result]] = {}
    for r in results:
        part = Part(r.set, r.src, r.tgt)
        found.setdefault(r.run, {})[(r.task, r.metric, part)] = r
    return found


def fill(spec: Spec, results: Sequence[Result], *, others: bool = False) -> Optional[Table]:
    """Put results into a table.

    Each run with a score for any column gets a row, behind the paper's order of systems; without
    any row there is no table.

    Args:
        others: systems that only the paper has figures of get rows, too.
    """
    runs = own_figures(results)
    sections = []
    for section in spec.sections:
        rows = _rows(spec, section, runs, results)
        if rows and others:
            rows += [
                Row(system, None, tuple(_cells(spec, section, {}, system)))
                for system in section.figures
                if system not in {_system(section, row.run) for row in rows}
            ]
        rows.sort(key=lambda row: _place(section, row))
        sections.append((section.title, tuple(rows)))
    sections = [entry for entry in sections if entry[1]]
    return Table(spec, tuple(sections)) if sections else None


def _rows(
    spec: Spec, section: Section, runs: Mapping[Run, Own], results: Sequence[Result]
) -> List[Row]:
    rows = []
    for run, own in runs.items():
        cells = tuple(_cells(spec, section, own, _system(section, run)))
        if any(len(cell.missing) < len(cell.column.parts) for cell in cells):
            rows.append(Row(label_of(run, results), run, cells))
    return rows


def _system(section: Section, run: Run) -> str:
    """The paper's spelling of the system's name."""
    names = {name.lower(): name for name in section.figures}
    return names.get(run.system.lower(), run.system)


def _cells(spec: Spec, section: Section, own: Own, system: str) -> Iterator[Cell]:
    figures = section.figures.get(system, [None] * len(spec.columns))
    for column, paper in zip(spec.columns, figures, strict=True):
        task = column.task or section.task
        found = {part: own.get((task, column.metric, part)) for part in column.parts}
        there = [r for r in found.values() if r is not None]
        value = low = high = None
        if len(there) == len(column.parts):
            value = sum(r.value for r in there) / len(there)
            if len(there) == 1:
                low, high = there[0].low, there[0].high
        missing = tuple(part for part, r in found.items() if r is None)
        yield Cell(column, value, low, high, paper, missing)


def _place(section: Section, row: Row) -> int:
    """Rows are in the paper's order, what it does not have stays behind, in ours."""
    names = list(section.figures)
    name = _system(section, row.run) if row.run else row.label
    return names.index(name) if name in names else len(names)
