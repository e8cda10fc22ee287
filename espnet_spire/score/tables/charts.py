"""Bar charts as SVG: readable at the width of a phone, in the colours of the page around them.

Bars lie: each group has a line with its name and a bar for each series, with the 95 % interval as a
whisker, the paper's figure as a diamond, and the figure in a column of its own. Colours are the
classes ``s0`` … ``s7`` of the page's style sheet.
"""

from dataclasses import dataclass, replace
from html import escape
from typing import Dict, List, Optional, Sequence, Tuple

from espnet_spire.score.metrics import METRICS
from espnet_spire.score.report import TASK_NAMES, Result, label_of
from espnet_spire.score.tables.own import read_by
from espnet_spire.score.tables.paper import paper_figure
from espnet_spire.score.tables.spec import Column, Part
from espnet_spire.score.tables.table import Table

COLOURS = 8
_WIDTH, _LEFT, _VALUES = 420, 8, 56
_BAR, _GAP, _HEAD = 14, 4, 20
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Bar:
    """One figure: ``series`` is the number of its colour."""

    series: int
    value: float
    low: Optional[float] = None
    high: Optional[float] = None
    paper: Optional[float] = None


@dataclass(frozen=True)
class Chart:
    """Groups of bars: the name of each and its bars; ``series`` are named in the legend.

    ``top`` is what the axis reaches at least, so that charts can be compared.
    """

    title: str
    metric: str
    series: Tuple[str, ...]
    groups: Tuple[Tuple[str, Tuple[Bar, ...]], ...]
    top: float = 0.0

    @property
    def highest(self) -> float:
        """The end of the longest bar, whisker or the place of the paper's figure."""
        bars = [bar for _, some in self.groups for bar in some]
        return max(self.top, *(max(b.value, b.high or 0.0, b.paper or 0.0) for b in bars))

    @property
    def direction(self) -> str:
        """Which end is good."""
        lower = METRICS[self.metric].lower_is_better
        return "lower is better" if lower else "higher is better"

    def description(self) -> str:
        """All figures in words, for those who do not see the bars."""
        said = []
        for name, bars in self.groups:
            figures = ", ".join(f"{self.series[bar.series]} {_said(bar)}" for bar in bars)
            said.append(f"{name}: {figures}")
        return "; ".join(said)


def _said(bar: Bar) -> str:
    text = f"{bar.value:.1f}"
    if bar.low is not None:
        text += f" [{bar.low:.1f}, {bar.high:.1f}]"
    return text + (f" (paper {bar.paper:.1f})" if bar.paper is not None else "")


def _bar(series: int, r: Result) -> Bar:
    part = Part(r.set, r.src, r.tgt)
    paper = paper_figure(r.run.system, r.task, r.metric, part)
    return Bar(series, r.value, r.low, r.high, paper.value if paper else None)


def _labels(results: Sequence[Result]) -> List[str]:
    return list(dict.fromkeys(label_of(r.run, results) for r in results))


def error_chart(results: Sequence[Result]) -> List[Chart]:
    """WER by test set, a bar for each run."""
    some = [r for r in results if (r.task, r.metric) == ("asr", "wer")]
    series = _labels(some)
    groups: Dict[str, List[Bar]] = {}
    several = len({r.tgt for r in some}) > 1
    for r in some:
        name = f"{r.set} {r.tgt}" if several else r.set
        groups.setdefault(name, []).append(_bar(series.index(label_of(r.run, some)), r))
    return [_chart("WER by test set", "wer", series, groups)] if groups else []


def translation_charts(results: Sequence[Result]) -> List[Chart]:
    """BLEU by language of speech translation: for each set and run direct beside self-cascade."""
    spoken = [r for r in results if r.task in ("st", "st_cascade", "st_multi_turn")]
    charts = []
    for name in dict.fromkeys(r.set for r in spoken):
        some = [r for r in spoken if r.set == name]
        metric = next((m for m in ("spbleu", "bleu") if any(r.metric == m for r in some)), None)
        some = [r for r in some if r.metric == metric]
        series = [task for task in TASK_NAMES if any(r.task == task for r in some)]
        for label in _labels(some):
            groups: Dict[str, List[Bar]] = {}
            for r in some:
                if label_of(r.run, some) == label:
                    groups.setdefault(r.pair, []).append(_bar(series.index(r.task), r))
            for bars in groups.values():
                bars.sort(key=lambda bar: bar.series)
            title = f"Speech translation by language, {label} on {name}"
            named = [TASK_NAMES[task].removeprefix("ST ") for task in series]
            charts.append(_chart(title, metric, named, dict(sorted(groups.items()))))
    top = max((chart.highest for chart in charts), default=0.0)
    return [replace(chart, top=top) for chart in charts]


def model_charts(tables: Sequence[Table]) -> List[Chart]:
    """Ablations: BLEU of all models side by side; their WER is in :func:`error_chart`."""
    charts = []
    for table in tables:
        rows = [row for row in table.rows if row.run is not None]
        columns = table.spec.columns
        translated = [column.metric for column in columns if column.task != "asr"]
        metric = next(iter(read_by("mt", translated)[-1:]), None)
        groups: Dict[str, List[Bar]] = {}
        for i, column in enumerate(columns):
            bars = [
                Bar(series, cell.value, cell.low, cell.high, _paper_value(cell))
                for series, cell in enumerate(row.cells[i] for row in rows)
                if cell.value is not None and column.metric == metric
            ]
            if bars:
                groups[_without_metric(column)] = bars
        if len(rows) > 1 and groups:
            title = f"Ablations: {table.spec.name.split(':')[0]}"
            charts.append(_chart(title, metric, [row.label for row in rows], groups))
    return charts


def _without_metric(column: Column) -> str:
    """A heading without the metric, which the chart's title has: ``MT en→xx``."""
    names = {"C22", "spB", *(metric.title for metric in METRICS.values())}
    words = [word for head in column.head for word in head.split() if word not in names]
    return " ".join(words) or column.title


def _paper_value(cell) -> Optional[float]:
    return cell.paper.value if cell.paper and not cell.paper.doubtful else None


def _chart(title: str, metric: str, series: Sequence[str], groups: Dict[str, List[Bar]]) -> Chart:
    frozen = tuple((name, tuple(bars)) for name, bars in groups.items())
    return Chart(title, metric, tuple(series), frozen)


def ticks(highest: float) -> List[float]:
    """From 0 to at least ``highest`` in 3 to 5 even steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(4.2), ticks(93)
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    """
    power = 0.001
    while True:
        for step in _STEPS:
            if step * power * 5 >= highest:
                count = max(1, -(-highest // (step * power)))
                return [round(i * step * power, 6) for i in range(int(count) + 1)]
        power *= 10


def svg(chart: Chart, name: str) -> str:
    """The chart; ``name`` is unique in the page."""
    marks = ticks(chart.highest)
    room = _WIDTH - _LEFT - _VALUES - 8
    rows = sum(len(some) for _, some in chart.groups)
    height = len(chart.groups) * (_HEAD + 8) + rows * (_BAR + _GAP) + 24

    def x(value: float) -> float:
        return round(_LEFT + room * value / marks[-1], 1)

    lines = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(chart.title)}</title>',
        f'<desc id="{name}-d">{escape(chart.description())}</desc>',
    ]
    bottom = height - 20
    for mark in marks:
        lines.append(f'<line class="grid" x1="{x(mark)}" x2="{x(mark)}" y1="0" y2="{bottom}"/>')
        lines.append(
            f'<text class="tick" x="{x(mark)}" y="{height - 6}" text-anchor="middle">'
            f"{mark:g}</text>"
        )
    y = 0
    for group, some in chart.groups:
        y += _HEAD
        lines.append(f'<text class="group" x="{_LEFT}" y="{y - 5}">{escape(group)}</text>')
        for bar in some:
            lines += _bar_lines(bar, chart, x, y)
            y += _BAR + _GAP
        y += 8
    return "\n".join([*lines, "</svg>"])


def _bar_lines(bar: Bar, chart: Chart, x, y: int) -> List[str]:
    middle = y + _BAR / 2
    said = f"{chart.series[bar.series]}: {_said(bar)}"
    lines = [
        f'<g><title>{escape(said)}</title><rect class="s{bar.series % COLOURS}" x="{_LEFT}"'
        f' y="{y}" width="{max(1.0, round(x(bar.value) - _LEFT, 1))}" height="{_BAR}" rx="2"/>'
    ]
    if bar.low is not None:
        ends = f"M{x(bar.low)} {middle - 3}v6m0-3H{x(bar.high)}m0-3v6"
        lines.append(f'<path class="whisker" d="{ends}"/>')
    if bar.paper is not None:
        at = x(bar.paper)
        lines.append(
            f'<path class="paper" d="M{at} {y - 1}l6 {_BAR / 2 + 1}l-6 {_BAR / 2 + 1}'
            f'l-6-{_BAR / 2 + 1}z"/>'
        )
    lines.append(
        f'<text class="value" x="{_WIDTH - 4}" y="{y + _BAR - 3}" text-anchor="end">'
        f"{bar.value:.1f}</text></g>"
    )
    return lines
