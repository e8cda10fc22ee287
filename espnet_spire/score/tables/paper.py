"""The paper's figures: ``paper.yaml`` as tables, and single figures of it."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from espnet_spire.score.tables.spec import Column, Figure, Part, Section, Spec

FILE = Path(__file__).with_name("paper.yaml")


@lru_cache(maxsize=1)
def paper_tables() -> Dict[int, Spec]:
    """The tables by their numbers."""
    import yaml

    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {table["number"]: _spec(table) for table in content["tables"]}


def _spec(table: Mapping[str, Any]) -> Spec:
    columns = tuple(
        Column(
            head=tuple(column["head"]),
            metric=column["metric"],
            parts=tuple(_part(column["set"], pair) for pair in column["pairs"]),
            task=column.get("task"),
        )
        for column in table["columns"]
    )
    notes = {(system, column): note for system, column, note in table.get("notes", [])}
    sections = tuple(
        Section(
            title=section.get("title", ""),
            task=section.get("task"),
            figures={
                system: tuple(
                    None if value is None else Figure(value, notes.get((system, number)))
                    for number, value in enumerate(values, 1)
                )
                for system, values in section["rows"].items()
            },
        )
        for section in table["sections"]
    )
    ablation = table.get("ablation", False)
    return Spec(table["title"], columns, sections, table["number"], ablation)


def _part(name: str, pair: str) -> Part:
    src, tgt = pair.split("-")
    return Part(name.format(pair=pair, src=src), src, tgt)


def paper_figure(
    system: str, task: str, metric: str, part: Part, *, tables: Optional[Dict[int, Spec]] = None
) -> Optional[Figure]:
    """What the paper has for a system on one set and pair; ``None``: nothing."""
    for spec in (tables or paper_tables()).values():
        for section in spec.sections:
            for column, figure in zip(spec.columns, section.figures.get(system, ()), strict=False):
                same = (column.task or section.task, column.metric) == (task, metric)
                if same and column.parts == (part,) and figure and not figure.doubtful:
                    return figure
    return None
