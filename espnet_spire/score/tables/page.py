"""The tables, charts and examples as one HTML page that needs nothing else."""

import json
from html import escape
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from espnet_spire.score.layout import Run
from espnet_spire.score.metrics import METRICS
from espnet_spire.score.report import TASK_NAMES, Result, label_of, signatures
from espnet_spire.score.tables import formats
from espnet_spire.score.tables.charts import COLOURS, Chart, svg
from espnet_spire.score.tables.clips import Clips, Key
from espnet_spire.score.tables.examples import Example, Kind
from espnet_spire.score.tables.table import Cell, Row, Table
from espnet_spire.text.normalize import UNSPACED

_HERE = Path(__file__).parent


class Content(NamedTuple):
    """What a page shows; ``notes`` are about all of it, ``worst`` is the examples of each job."""

    title: str
    results: Sequence[Result]
    tables: Sequence[Table]
    charts: Sequence[Chart]
    kinds: Sequence[Kind]
    examples: Sequence[Example]
    worst: int
    notes: Sequence[str]


def page(content: Content, clips: Clips) -> str:
    """The page; the same for the same content."""
    heard = clips.of(_wanted(content))
    data = json.dumps(_data(content, heard), ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no text can end the script
    runs = list(dict.fromkeys(r.run for r in content.results))
    sets = list(dict.fromkeys(r.set for r in content.results))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Nothing is fetched: not even the icon that browsers ask for.
        '<link rel="icon" href="data:,">',
        f"<title>{escape(content.title)}</title>",
        f"<style>\n{(_HERE / 'page.css').read_text(encoding='utf-8')}</style></head><body>",
        f"<h1>{escape(content.title)}</h1>",
        f'<p class="soft">{_count(len(runs), "model")}, {_count(len(sets), "test set")}:'
        f" {escape(', '.join(sets))}. Percentages, in brackets 95 % bootstrap intervals over"
        " utterances.</p>",
        '<nav aria-label="Parts of the page"><a href="#tables">Tables</a><a href="#charts">Charts'
        '</a><a href="#examples">Examples</a><a href="#signatures">Signatures</a></nav>',
        '<h2 id="tables">Tables</h2>',
        *_notes(content.notes),
        *_beside(content.tables),
        *map(_table, content.tables),
        '<h2 id="charts">Charts</h2><div class="charts">',
        *(_figure(chart, f"chart{number}") for number, chart in enumerate(content.charts)),
        "</div>",
        *_examples(content, clips.notes),
        '<h2 id="signatures">Signatures</h2><ul class="notes">',
        *(
            f"<li>{escape(metric)} ({escape(langs)}): <code>{escape(signature)}</code></li>"
            for metric, langs, signature in signatures(content.results)
        ),
        "</ul>",
        f'<script id="data" type="application/json">{data}</script>',
        f"<script>\n{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + "s" * (number != 1)


def _notes(lines: Sequence[str]) -> List[str]:
    if not lines:
        return []
    return ['<ul class="notes">', *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"]


# Tables


def _beside(tables: Sequence[Table]) -> List[str]:
    """What stands beside our figures, where the paper has any."""
    lines = []
    if any(row.compared for table in tables for row in table.rows):
        lines.append(
            '<p class="soft">◇ is the paper’s figure, and behind it ours minus the paper’s.</p>'
        )
    if any(row.run is None for table in tables for row in table.rows):
        lines.append(
            '<label class="check"><input type="checkbox" id="others"> also show the paper’s other'
            " systems</label>"
        )
    return lines


def _table(table: Table) -> str:
    columns = table.spec.columns
    depth = max(len(column.head) for column in columns)
    lines = [f"<h3>{escape(table.spec.name)}</h3>", '<div class="wide" tabindex="0"><table><thead>']
    heads = [("",) * (depth - len(column.head)) + column.head for column in columns]
    for line in range(depth):
        cells, start = ["<td></td>" if line else "<th></th>"], 0
        while start < len(heads):
            # Neighbours with the same words down to here share a cell; the last line has its own.
            end = start + 1
            while (
                line < depth - 1
                and end < len(heads)
                and heads[end][: line + 1] == heads[start][: line + 1]
            ):
                end += 1
            span = f' colspan="{end - start}"' if end - start > 1 else ""
            cells.append(f'<th scope="col"{span}>{escape(heads[start][line])}</th>')
            start = end
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines.append("</thead><tbody>")
    for title, rows in table.sections:
        if title:
            lines.append(
                f'<tr class="section"><th colspan="{len(columns) + 1}">{escape(title)}</th></tr>'
            )
        lines += map(_row, rows)
    return "\n".join([*lines, "</tbody></table></div>", *_notes(table.notes())])


def _row(row: Row) -> str:
    hidden = ' class="other" hidden' if row.run is None else ""
    label = row.label if row.run else f"{row.label} (paper)"
    cells = "".join(f"<td>{_cell(cell, row)}</td>" for cell in row.cells)
    return f'<tr{hidden}><th scope="row">{escape(label)}</th>{cells}</tr>'


def _cell(cell: Cell, row: Row) -> str:
    if row.run is None:
        return escape(formats.papers(cell))
    parts = [f"<b>{formats.plain(cell)}</b>"]
    if formats.bounds(cell):
        parts.append(f"<small>{formats.bounds(cell)}</small>")
    if cell.paper is not None:
        said = f'<span role="img" aria-label="paper">◇</span> {escape(formats.papers(cell))}'
        if cell.difference is not None:
            kind = {True: ' class="better"', False: ' class="worse"', None: ""}[cell.better]
            said += f" <span{kind}>{formats.signed(cell)}</span>"
        parts.append(f"<small>{said}</small>")
    return "".join(parts)


# Charts


def _figure(chart: Chart, name: str) -> str:
    swatch = '<svg viewBox="0 0 12 12" aria-hidden="true">{}</svg>{}'
    marks = [
        swatch.format(f'<rect class="s{i % COLOURS}" width="12" height="12" rx="2"/>', escape(s))
        for i, s in enumerate(chart.series)
    ]
    bars = [bar for _, some in chart.groups for bar in some]
    if any(bar.paper is not None for bar in bars):
        marks.append(swatch.format('<path class="paper" d="M6 1l5 5l-5 5l-5-5z"/>', "the paper"))
    legend = "".join(f"<li>{mark}</li>" for mark in marks)
    said = f"{METRICS[chart.metric].title}, {chart.direction}"
    if any(bar.low is not None for bar in bars):
        said += "; whiskers: 95 % intervals"
    return (
        f"<figure><figcaption>{escape(chart.title)}<small>{escape(said)}</small></figcaption>"
        f'<ul class="legend">{legend}</ul>{svg(chart, name)}</figure>'
    )


# Examples


def _wanted(content: Content) -> List[Key]:
    """Utterances to be heard, the worst of each kind first."""
    spoken = {(kind.set, kind.job) for kind in content.kinds if kind.spoken}
    some = [e for e in content.examples if (e.question.set, e.question.job) in spoken]
    some.sort(key=lambda e: e.rank)
    return list(dict.fromkeys((e.question.set, e.question.utterance) for e in some))


def _examples(content: Content, notes: Sequence[str]) -> List[str]:
    total = sum(max(kind.utterances.values()) for kind in content.kinds)
    select = '<label>{0}<select name="{1}"></select></label>'.format
    said = (
        f"The worst {content.worst} answers of each model, task, pair and set, with those of the"
        f" other models: {len(content.examples)} of {total} questions. Struck: what the reference"
        " has there; underlined: what was said instead, or too much. Recognition is compared after"
        " normalisation."
    )
    return [
        '<h2 id="examples">Examples</h2>',
        f'<p class="soft">{escape(said)}</p>',
        *_notes(notes),
        '<form id="filters">',
        *map(select, ("Model", "Task", "Languages", "Set"), ("run", "task", "lang", "set")),
        '<label>Order<select name="order"><option value="worst">worst first<option value="best">'
        'best first<option value="name">by utterance</select></label>',
        '<label>Score of an answer<span class="range"><input name="from" type="number" step="any"'
        ' placeholder="from" aria-label="score from"><input name="to" type="number" step="any"'
        ' placeholder="to" aria-label="score to"></span></label>',
        '<label>Search<input name="search" type="search" placeholder="words"></label>',
        '<label>&nbsp;<button type="reset">Reset</button></label></form>',
        '<p id="count" class="soft" aria-live="polite"></p><div id="list"></div>',
        '<button id="more" type="button" hidden>Show more</button>',
        "<noscript><p>The examples need JavaScript.</p></noscript>",
    ]


def _data(content: Content, heard: Mapping[Key, Mapping[str, Any]]) -> Dict[str, Any]:
    runs: List[Run] = list(dict.fromkeys(r.run for r in content.results))
    places = {(kind.set, kind.job): i for i, kind in enumerate(content.kinds)}
    clips: Dict[str, Mapping[str, Any]] = {}
    examples = []
    for example in content.examples:
        question = example.question
        kind = content.kinds[places[question.set, question.job]]
        entry: Dict[str, Any] = {
            "kind": places[question.set, question.job],
            "utterance": question.utterance,
            "reference": example.reference,
            "answers": {
                runs.index(run): _answer(answer, kind) for run, answer in example.answers.items()
            },
        }
        if example.source is not None:
            entry["source"] = example.source
        key = (question.set, question.utterance)
        if kind.spoken and heard.get(key):
            entry["clip"] = "/".join(key)
            clips[entry["clip"]] = heard[key]
        examples.append(entry)
    return {
        "runs": [label_of(run, content.results) for run in runs],
        "kinds": [_kind(kind) for kind in content.kinds],
        "clips": clips,
        "examples": examples,
    }


def _kind(kind: Kind) -> Dict[str, Any]:
    task, src, tgt = kind.job
    return {
        "set": kind.set,
        "task": task,
        "taskName": TASK_NAMES.get(task, task),
        "pair": src if src == tgt else f"{src}→{tgt}",
        "src": src,
        "tgt": tgt,
        "metricName": METRICS[kind.metric].title,
        "lower": METRICS[kind.metric].lower_is_better,
    }


def _answer(answer, kind: Kind) -> Dict[str, Any]:
    spaced = kind.metric != "cer" and (kind.metric == "wer" or kind.job.tgt not in UNSPACED)
    score = answer.scores.get(kind.metric)
    return {
        "text": answer.text,
        # An answer that has no score of its own is all right: an empty one to an empty reference.
        "score": _short(score) if score is not None else _perfect(kind),
        "scores": {METRICS[n].title: _short(v) for n, v in answer.scores.items() if n in METRICS},
        "pieces": answer.pieces,
        "gap": spaced,
        "cut": answer.cut,
    }


def _short(value):
    return None if value is None else round(value, 2)


def _perfect(kind: Kind) -> float:
    return 0.0 if METRICS[kind.metric].lower_is_better else 100.0
