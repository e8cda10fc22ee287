"""What became of the pseudo-labels: ``report.json``, ``report.md``, ``scores.png``."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from espnet_spire.corpus.pseudo import BINS, Counts
from espnet_spire.text.languages import language_name
from espnet_spire.utils.atomic import PathLike, atomic_write, write_json
from espnet_spire.utils.human import human_number
from espnet_spire.utils.plots import GRID, LINE, RAW, TEXT, VALID, new_figure, save_figure

REPORT_JSON, REPORT_MD, PICTURE = "report.json", "report.md", "scores.png"
_ADDED = ("selected", "tokens", "cut", "empty", "scored", "kept", "total")
_HEADINGS = (
    *("language", "corpus", "utterances", "translated", "different texts", "tokens"),
    *("cut", "empty", "mean score", "kept", "kept %"),
)


def write_report(rows: Sequence[Counts], out: PathLike, about: Dict[str, Any]) -> None:
    """Write all three into a directory.

    Args:
        rows: one for each corpus and language.
        about: what the labels depend on; ``threshold`` and the name of the ``scorer`` are shown.
    """
    out = Path(out)
    languages = {lang: _sum(rows, lang) for lang in dict.fromkeys(row.lang for row in rows)}
    write_json(
        out / REPORT_JSON,
        {
            **about,
            "rows": [_with_rates(row._asdict()) for row in rows],
            "languages": languages,
        },
    )
    with atomic_write(out / REPORT_MD) as stream:
        stream.write(_markdown(rows, languages, about))
    plot_scores(rows, out / PICTURE, about["threshold"], about["scorer"])


def _with_rates(counts: Dict[str, Any]) -> Dict[str, Any]:
    scored, selected = counts["scored"], counts["selected"]
    return {
        **{key: value for key, value in counts.items() if key != "total"},
        "mean_score": round(counts["total"] / scored, 4) if scored else None,
        "kept_share": round(counts["kept"] / selected, 4) if selected else None,
    }


def _sum(rows: Sequence[Counts], lang: str) -> Dict[str, Any]:
    """All corpora of a language together."""
    chosen = [row for row in rows if row.lang == lang]
    counts = {name: sum(getattr(row, name) for row in chosen) for name in _ADDED}
    histogram = np.sum([row.histogram for row in chosen], axis=0).tolist()
    return _with_rates({**counts, "histogram": histogram})


def _markdown(rows: Sequence[Counts], languages: Dict[str, Any], about: Dict[str, Any]) -> str:
    lines = [
        "# Pseudo-labels",
        "",
        f"Kept are translations whose score by {about['scorer']} is at least {about['threshold']}."
        f" Each directory's `rejected.tsv` lists the others.",
        "",
        f"![scores]({PICTURE})",
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "| --- | --- |" + " ---: |" * (len(_HEADINGS) - 2),
    ]
    for row in rows:
        counts = _with_rates(row._asdict())
        cells = [row.lang, row.corpus, row.utterances, row.selected, row.texts, row.tokens]
        lines.append(_line([*cells, *_tail(counts)]))
    if len(rows) > len(languages):
        for lang, counts in languages.items():
            cells = [lang, "all", "", counts["selected"], "", counts["tokens"]]
            lines.append(_line([*cells, *_tail(counts)]))
    return "\n".join(lines) + "\n"


def _tail(counts: Dict[str, Any]) -> List[Any]:
    mean, share = counts["mean_score"], counts["kept_share"]
    return [
        *(counts["cut"], counts["empty"], "" if mean is None else f"{mean:.4f}", counts["kept"]),
        "" if share is None else f"{100 * share:.1f}",
    ]


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |"


def plot_scores(rows: Sequence[Counts], path: PathLike, threshold: float, scorer: str) -> None:
    """Draw a row a language: how scores are spread, and what each corpus keeps.

    Args:
        rows: one for each corpus and language.
        path: PNG file to write.
        threshold: least score that is kept.
    """
    langs = list(dict.fromkeys(row.lang for row in rows))
    corpora = list(dict.fromkeys(row.corpus for row in rows))
    by_cell = {(row.lang, row.corpus): row for row in rows}
    width = 5.4 + 1.45 * len(corpora)
    figure = new_figure((width, 1.5 + 0.62 * len(langs)))
    grid = figure.add_gridspec(len(langs), 2, width_ratios=(4.6, 1.45 * len(corpora)))
    edges = np.linspace(0, 1, BINS + 1)
    first = None
    for place, lang in enumerate(langs):
        first = _spread(
            figure.add_subplot(grid[place, 0], sharex=first),
            np.sum([row.histogram for row in rows if row.lang == lang], axis=0),
            edges,
            threshold,
        )
        first.set_ylabel(
            language_name(lang), rotation=0, ha="right", va="center", fontsize=10, color="black"
        )
        if place < len(langs) - 1:
            first.tick_params(labelbottom=False, length=0)
        if place == 0:
            first.set_title(
                f"spread of {scorer} scores, kept from {threshold:g}", loc="left", fontsize=10
            )
    first.set_xlabel("score")
    _shares(figure.add_subplot(grid[:, 1]), langs, corpora, by_cell)
    kept, selected = sum(row.kept for row in rows), sum(row.selected for row in rows)
    facts = f"{human_number(kept)} of {human_number(selected)} translations kept"
    if selected:
        facts += f" ({kept / selected:.1%})"
    figure.suptitle(f"Pseudo-labels: {facts}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    save_figure(figure, path)


def _spread(axes, counts: np.ndarray, edges: np.ndarray, threshold: float):
    """One language's histogram; what is below the threshold is pale."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.stairs(counts, edges, fill=True, color=RAW)
    above = edges[:-1] >= threshold - 1e-9
    axes.stairs(np.where(above, counts, 0), edges, fill=True, color=LINE)
    axes.axvline(threshold, color=VALID, linewidth=1.4)
    axes.set_ylim(0, 1.08 * max(int(counts.max()), 1))
    return axes


def _shares(axes, langs: List[str], corpora: List[str], by_cell: Dict[Any, Counts]) -> None:
    """A cell for each language and corpus: the share that is kept, and how many that are."""
    shares = np.full((len(langs), len(corpora)), np.nan)
    for (lang, corpus), row in by_cell.items():
        if row.selected:
            shares[langs.index(lang), corpora.index(corpus)] = row.kept / row.selected
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, lang in enumerate(langs):
        for x, corpus in enumerate(corpora):
            row = by_cell.get((lang, corpus))
            if row is None or not row.selected:
                axes.text(x, y, "none", ha="center", va="center", fontsize=9, color=TEXT)
                continue
            share = shares[y, x]
            axes.text(
                *(x, y, f"{share:.0%}\n{human_number(row.kept)}"),
                **{"ha": "center", "va": "center", "fontsize": 9, "linespacing": 1.1},
                color="white" if share > 0.55 else "black",
            )
    axes.set_xticks(range(len(corpora)), ["\n".join(name.rsplit("_", 1)) for name in corpora])
    axes.tick_params(axis="x", labelsize=9, length=0, labeltop=True, labelbottom=False)
    axes.set_yticks([])
    axes.set_xticks(np.arange(len(corpora) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(langs) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color(GRID)
    axes.set_xlabel("kept: share,\nand how many")
