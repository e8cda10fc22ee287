"""Curves of a training, drawn from its history. PNG, no display."""

import json
import math
from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.plots import GRID, LINE, RAW, TEXT, VALID, new_figure, save_figure

Curve = Dict[int, float]
# Ten colours that can be told apart, one a task or language.
COLOURS = (
    *("#1f4e8c", "#c8541c", "#2e8b57", "#8e44ad", "#b8860b"),
    *("#17a2b8", "#d6336c", "#6c757d", "#7cb518", "#3d3d3d"),
)


def read_history(path: PathLike) -> Dict[str, Curve]:
    """Read JSON lines ``{"step": …, "loss": …, "lr": …}``.

    A step that is there twice (a resumed run) counts as it was last; a last line without its end
    (a killed run) is left out, as are values that are not finite.

    Returns:
        ``{name: {step: value}}``, steps ascending.

    Raises:
        SpireError: missing file, a line that is not such JSON, or no loss at all.
    """
    curves: Dict[str, Curve] = {}
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    # What follows the last newline is empty, or half a line that a killed run left.
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = int(entry.pop("step"))
            for name, value in entry.items():
                if value is not None and math.isfinite(float(value)):
                    curves.setdefault(name, {})[step] = float(value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpireError(
                f'{path}, line {number}: {{"step": …, "loss": …}} was expected ({error!r})'
            ) from None
    if not curves.keys() & {"loss", "valid_loss"}:
        raise SpireError(f"{path}: there is no loss in it")
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def smooth(values: Sequence[float], window: int) -> List[float]:
    """Centred moving average; at the ends over the values there are.

    >>> smooth([0.0, 3.0, 6.0, 0.0], 3)
    [1.5, 3.0, 3.0, 3.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    n, half = len(values), window // 2
    low = np.maximum(np.arange(n) - half, 0)
    high = np.minimum(np.arange(n) + half + 1, n)
    return ((sums[high] - sums[low]) / (high - low)).tolist()


def split_losses(curves: Dict[str, Curve]) -> "tuple[Dict[str, Curve], Dict[str, Curve]]":
    """Training losses by task (``loss_asr``) and by task and language (``loss_st.en-de``).

    >>> split_losses({"loss": {}, "loss_st": {1: 2.0}, "loss_st.en-de": {1: 2.0}})
    ({'st': {1: 2.0}}, {'st en-de': {1: 2.0}})
    """
    parts = {n.removeprefix("loss_"): c for n, c in curves.items() if n.startswith("loss_")}
    tasks = {name: curve for name, curve in parts.items() if "." not in name}
    langs = {name.replace(".", " "): curve for name, curve in parts.items() if "." in name}
    return tasks, langs


def plot_training(history_jsonl: PathLike, path: PathLike, title: str) -> None:
    """Draw a training by step: loss, by task, by language, learning rate, gradient, speed."""
    curves = read_history(history_jsonl)
    figure = new_figure((14, 7.2))
    panels = figure.subplots(2, 3)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    (loss, task, lang), (rate, norm, speed) = panels
    figure.suptitle(
        f"{title}: {_draw_loss(loss, curves)}", x=0.01, ha="left", fontsize=12, fontweight="bold"
    )
    by_task, by_lang = split_losses(curves)
    _draw_many(task, by_task)
    _head(task, "loss by task (smoothed)")
    _draw_many(lang, by_lang)
    _head(lang, "loss by task and language (smoothed)")
    _draw(rate, curves.get("lr", {}), smoothed=False)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _head(rate, "learning rate")
    _draw(norm, curves.get("grad_norm", {}))
    _head(norm, "gradient norm, before clipping")
    _draw(speed, curves.get("tokens_per_second", {}))
    share = list(curves.get("share_of_peak", {}).values())
    _head(
        speed,
        "tokens a second"
        + (f" (median {np.median(share):.0%} of the device's peak)" if share else ""),
    )
    for axes in panels[1]:
        axes.set_xlabel("optimizer step")
    save_figure(figure, path)


def _draw_loss(axes, curves: Dict[str, Curve]) -> str:
    train, valid = curves.get("loss", {}), curves.get("valid_loss", {})
    facts = []
    if train:
        smoothed = _draw(axes, train, "training")
        facts.append(f"training loss {smoothed[0]:.3f} → {smoothed[-1]:.3f}")
    if valid:
        points = {"color": VALID, "marker": "o", "markersize": 4, "linewidth": 1.5}
        axes.plot(list(valid), list(valid.values()), label="validation", **points)
        values = list(valid.values())
        facts.append(f"validation loss {values[-1]:.3f}, best {min(values):.3f}")
    axes.legend(frameon=False, fontsize=9)
    _scale(axes, [train, valid])
    _head(axes, "loss (nats a target token)")
    return ", ".join(facts)


def _draw(axes, curve: Curve, label: str = "", *, smoothed: bool = True) -> List[float]:
    """Each value faint, their moving average dark; returns what is dark."""
    steps, values = list(curve), list(curve.values())
    dark = smooth(values, _window(values)) if smoothed else values
    if smoothed:
        axes.plot(steps, values, color=RAW, linewidth=0.8, label=label and f"{label}, each step")
    axes.plot(steps, dark, color=LINE, linewidth=1.8, label=label and f"{label}, smoothed")
    return dark


def _draw_many(axes, curves: Dict[str, Curve]) -> None:
    for number, (name, curve) in enumerate(sorted(curves.items())):
        values = list(curve.values())
        dashes = ("-", "--", ":")[number // len(COLOURS) % 3]
        axes.plot(
            list(curve),
            smooth(values, _window(values)),
            color=COLOURS[number % len(COLOURS)],
            linestyle=dashes,
            linewidth=1.4,
            label=name,
        )
    if curves:
        axes.legend(frameon=False, fontsize=8, ncols=1 + len(curves) // 8)
        _scale(axes, list(curves.values()))


def _scale(axes, curves: Sequence[Curve]) -> None:
    """Logarithmic where the end of a curve would lie flat on the axis."""
    values = [value for curve in curves for value in curve.values()]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter(_plain)


def _plain(value: float, _position: int) -> str:
    """Labels of a logarithmic axis: 0.2, 0.5, 1, 2, 5, 10, others left out."""
    text = f"{value:g}"
    return text if text.strip("0.") in ("1", "2", "5") else ""


def _window(values: Sequence[float]) -> int:
    return max(1, len(values) // 25) | 1


def _head(axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=TEXT)
