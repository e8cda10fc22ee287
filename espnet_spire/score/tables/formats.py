"""Filled tables as Markdown and as LaTeX."""

import re
from itertools import groupby
from typing import Iterable, List, Sequence, Tuple

from espnet_spire.score.report import markdown_table
from espnet_spire.score.tables.table import Cell, Row, Table

NOTHING = "–"
# The command makes a PDF of the file alone.
LATEX_PREAMBLE = (
    "% Needs \\usepackage{booktabs}. To see it alone (where it is tables.tex):\n"
    "% pdflatex '\\documentclass[landscape]{article}\\usepackage{booktabs}"
    "\\begin{document}\\input{tables}\\end{document}'\n"
)
_ESCAPED = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "→": r"$\rightarrow$", "–": "--", "−": "$-$", "±": r"$\pm$", "’": "'",
    **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip


def plain(cell: Cell) -> str:
    """Our figure: ``4.2``, or a dash."""
    return NOTHING if cell.value is None else f"{cell.value:.{cell.column.decimals}f}"


def bounds(cell: Cell) -> str:
    """Its interval: ``[3.9, 4.6]``, or nothing."""
    if cell.low is None:
        return ""
    digits = cell.column.decimals
    return f"[{cell.low:.{digits}f}, {cell.high:.{digits}f}]"


def papers(cell: Cell) -> str:
    """The paper's figure, marked if it cannot be right."""
    if cell.paper is None:
        return NOTHING
    return f"{cell.paper.value:.{cell.column.decimals}f}" + " [sic]" * cell.paper.doubtful


def signed(cell: Cell) -> str:
    """Ours minus the paper's: ``+0.1``."""
    if cell.difference is None:
        return NOTHING
    # Without a sign what is rounded to nothing.
    value = round(cell.difference, cell.column.decimals) or 0.0
    text = f"{value:+.{cell.column.decimals}f}" if value else f"{0:.{cell.column.decimals}f}"
    return text.replace("-", "−")


def _lines(row: Row, intervals: bool) -> List[List[str]]:
    """A row of figures and, where there is one, those of the paper and the differences."""
    ours = [
        " ".join(filter(None, (plain(cell), bounds(cell) if intervals else "")))
        for cell in row.cells
    ]
    if row.run is None:
        return [[f"{row.label} (paper)", *map(papers, row.cells)]]
    lines = [[row.label, *ours]]
    if row.compared:
        lines += [["paper", *map(papers, row.cells)], ["difference", *map(signed, row.cells)]]
    return lines


def markdown(tables: Iterable[Table], *, level: int = 2) -> str:
    """One heading and table each, with notes beneath."""
    parts = []
    for table in tables:
        columns = table.spec.columns
        rows = [["", *(column.title for column in columns)]]
        for title, members in table.sections:
            if title:
                rows.append([f"**{title}**", *[""] * len(columns)])
            for row in members:
                first, *more = _lines(row, intervals=True)
                rows += [first, *([f"*{name}*", *cells] for name, *cells in more)]
        lines = [f"{'#' * level} {table.spec.name}", "", markdown_table(rows, 1)]
        lines += [""] * bool(table.notes()) + [f"- {note}" for note in table.notes()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX takes it."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def latex(tables: Iterable[Table]) -> str:
    """A ``table`` environment each, to be ``\\input``, with booktabs' rules."""
    return LATEX_PREAMBLE + "\n" + "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    columns = table.spec.columns
    lines = [r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}"]
    lines += [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    heads = [column.head for column in columns]
    depth = max(map(len, heads))
    # The narrowest words stand in the last line.
    padded = [("",) * (depth - len(head)) + head for head in heads]
    for line in range(depth):
        lines += _head_line([head[: line + 1] for head in padded], last=line == depth - 1)
    for title, members in table.sections:
        lines.append(r"\midrule")
        if title:
            spread = len(columns) + 1
            lines.append(rf"\multicolumn{{{spread}}}{{l}}{{\textit{{{escape(title)}}}}} \\")
        for row in members:
            first, *more = _lines(row, intervals=False)
            lines.append(" & ".join(map(escape, first)) + r" \\")
            for name, *cells in more:
                shown = [rf"\quad \textit{{{escape(name)}}}", *map(escape, cells)]
                lines.append(" & ".join(shown) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    caption = table.spec.title + (
        f". Paper: Table {table.spec.number}." if table.spec.number else "."
    )
    notes = [re.sub(r"\s+", " ", note[0].upper() + note[1:]) + "." for note in table.notes()]
    lines.append(rf"\caption{{{escape(' '.join([caption, *notes]))}}}")
    return "\n".join([*lines, r"\end{table}", ""])


def _head_line(heads: Sequence[Tuple[str, ...]], last: bool) -> List[str]:
    """One line of the heading: neighbours with the same words above them share a cell."""
    cells, rules, start = [""], [], 2
    for head, group in groupby(heads):
        width = len(list(group))
        text = escape(head[-1])
        if last or not text:
            cells += [rf"\multicolumn{{1}}{{c}}{{{text}}}" if text else ""] * width
        else:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    line = " & ".join(cells) + r" \\"
    return [line, "".join(rules)] if rules else [line]
