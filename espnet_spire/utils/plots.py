"""Pictures of units: how evenly they are used, and how k-means found them. PNG, no display."""

from typing import Any, Dict, NamedTuple, Sequence

import numpy as np

from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.human import human_number

RAW, LINE, VALID, GRID = "#9db8d9", "#1f4e8c", "#c8541c", "#d9d9d9"
TEXT = "#555555"
INSIDE = {"fontsize": 9, "color": "white"}


class UnitUse(NamedTuple):
    """``dead``: share of units never used (0-1); ``perplexity``: exp(entropy of use), 1 to K."""

    dead: float
    perplexity: float


def unit_use(counts: Sequence[int]) -> UnitUse:
    """Statistics of K unit counts.

    Raises:
        SpireError: no unit, a negative count, or nothing was counted.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.size == 0 or (counts < 0).any():
        raise SpireError(f"unit counts must be K numbers from 0, got shape {counts.shape}")
    total = counts.sum()
    if total == 0:
        raise SpireError(f"none of {counts.size} units was used: the unit file has no unit in it")
    share = counts[counts > 0] / total
    return UnitUse(
        dead=float((counts == 0).mean()),
        perplexity=float(np.exp(-(share * np.log(share)).sum())),
    )


def plot_unit_use(counts: Sequence[int], path: PathLike, title: str) -> UnitUse:
    """Draw how often each of K units was used, most used first, log scale; return the statistics.

    Args:
        counts: K counts, index = unit.
        path: PNG file to write.
        title: heading; the share of dead units and the perplexity are written beneath it.
    """
    use = unit_use(counts)
    ordered = np.sort(np.asarray(counts))[::-1]
    alive = ordered[ordered > 0]
    figure, axes = _axes()
    # one shape for all: thousands of bars take seconds
    axes.stairs(alive, np.arange(len(alive) + 1) + 0.5, baseline=0.5, fill=True, color=LINE)
    axes.set_yscale("log")
    axes.set_xlim(0.5, len(ordered) + 0.5)
    axes.set_ylim(0.7, float(ordered[0]) * 1.5)
    if len(alive) < len(ordered):
        axes.axvspan(len(alive) + 0.5, len(ordered) + 0.5, color=GRID, label="never used")
        axes.legend(framealpha=1, edgecolor="none", loc="upper right")
    axes.set_xlabel("units, most used first")
    axes.set_ylabel("times used")
    _titles(
        axes,
        title,
        f"{len(ordered)} units, {use.dead:.1%} dead, perplexity {use.perplexity:.1f}, "
        f"{int(ordered.sum()):,} uses",
    )
    save_figure(figure, path)
    return use


def plot_unit_totals(
    rows: Sequence[Dict[str, Any]],
    total: Dict[str, Any],
    frame_rate: float,
    path: PathLike,
    title: str = "Units by dataset",
) -> None:
    """Draw units before and after merging, and units a second, for each data set.

    Args:
        rows, total: ``name``, ``hours``, ``units_before_merging``, ``units``,
            ``units_per_second`` and ``reduction`` (both ``None`` where nothing was counted).
        frame_rate: units a second before merging.
        path: PNG file to write.
    """
    count = len(rows)
    figure, (left, right) = _panels((10, max(3.2, 1.3 + 0.55 * count)), (3, 2))
    places = np.arange(count)
    before = [row["units_before_merging"] for row in rows]
    after = [row["units"] for row in rows]
    rates = [row["units_per_second"] or 0.0 for row in rows]

    left.barh(places, before, height=0.7, color=RAW, label="before merging")
    left.barh(places, after, height=0.4, color=LINE, label="after merging")
    for place, row in enumerate(rows):
        text = f" {human_number(row['units'])}" if row["units"] else " none"
        if row["reduction"] is not None:
            text += f"  (−{row['reduction']:.0%})"
        left.text(before[place], place, text, va="center", fontsize=9, color=TEXT)
    left.set_xlim(0, 1.28 * max(before, default=0) or 1)
    left.xaxis.set_major_formatter(lambda value, _: human_number(value))
    left.set_xlabel("units")
    left.set_yticks(
        places, [f"{row['name']}\n{human_number(row['hours'])} h" for row in rows], fontsize=9
    )
    left.set_ylim(count - 0.4, -0.6)  # first row on top
    left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9)

    right.barh(places, rates, height=0.4, color=LINE)
    for place, rate in enumerate(rates):
        if rate:  # inside the bar, where the line of the mean does not cross it
            right.text(rate / 2, place, f"{rate:.1f}", va="center", ha="center", **INSIDE)
    mean = total["units_per_second"]
    if mean:
        right.axvline(mean, color=VALID, linewidth=1.2, linestyle="--", label=f"all: {mean:.1f}")
    right.axvline(frame_rate, color=TEXT, linewidth=1.2, label=f"before merging: {frame_rate:g}")
    right.set_xlim(0, 1.04 * frame_rate)
    right.set_xlabel("units a second")
    right.tick_params(axis="y", length=0)
    right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9)

    facts = f"{human_number(total['hours'])} h, {human_number(total['units'])} units"
    if total["reduction"] is not None:
        facts += f", {total['reduction']:.1%} fewer than {frame_rate:g} a second"
    figure.suptitle(f"{title}: {facts}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    save_figure(figure, path)


def plot_kmeans(
    history: Sequence[Dict[str, Any]], counts: Sequence[int], path: PathLike, title: str
) -> None:
    """Draw held-out inertia by pass of k-means, and how many frames each cluster has at the end.

    Args:
        history: ``pass``, ``held_out_inertia`` (``None`` where nothing was held out) and
            ``dead_share`` (0-1) of seeding (pass 0) and every pass.
        counts: K counts of training frames.
        path: PNG file to write.
    """
    use = unit_use(counts)
    figure = new_figure((10, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    judged = [entry for entry in history if entry["held_out_inertia"] is not None]
    passes = [entry["pass"] for entry in judged]
    values = [entry["held_out_inertia"] for entry in judged]
    facts = "nothing was held out"
    if judged:
        left.plot(passes, values, color=LINE, marker="o", markersize=4, linewidth=1.8)
        left.set_xticks(passes if len(passes) <= 20 else passes[:: len(passes) // 10])
        facts = f"held-out inertia {values[0]:.4g} after seeding, {values[-1]:.4g} at the end"
    else:
        left.set(xticks=[], yticks=[])
    left.set_xlabel("pass (0: seeding)")
    left.set_ylabel("held-out inertia")
    _titles(left, title, facts)

    ordered = np.sort(np.asarray(counts))[::-1]
    alive = ordered[ordered > 0]
    right.stairs(alive, np.arange(len(alive) + 1) + 0.5, baseline=0.5, fill=True, color=LINE)
    right.set_yscale("log")
    right.set_xlim(0.5, len(ordered) + 0.5)
    right.set_ylim(0.7, float(ordered[0]) * 1.5)
    right.set_xlabel("clusters, most frames first")
    right.set_ylabel("frames")
    _titles(right, "Use", f"{use.dead:.1%} dead, perplexity {use.perplexity:.1f} of {len(ordered)}")
    save_figure(figure, path)


def new_figure(size):
    """A figure of ``size`` inches that touches no global state of matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SpireError("plots need matplotlib: pip install matplotlib") from None
    # Without pyplot there is no global state: the backend of a caller stays as it was.
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axes():
    figure = new_figure((8, 4.5))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _panels(size, widths):
    """Two panels of horizontal bars that share their rows."""
    figure = new_figure(size)
    panels = figure.subplots(1, 2, sharey=True, width_ratios=widths)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _titles(axes, title: str, facts: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=12, fontweight="bold")
    axes.text(0, 1.02, facts, transform=axes.transAxes, fontsize=9, color=TEXT)


def save_figure(figure, path: PathLike) -> None:
    """Write a PNG, atomically and with the same bytes for the same figure."""
    with atomic_write(path, "wb") as stream:
        # No "Software" entry: the same run gives the same bytes.
        figure.savefig(stream, format="png", metadata={"Software": None})
