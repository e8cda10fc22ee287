"""All scores of an experiment directory as one JSON and one page of Markdown.

Read are the scores of :mod:`espnet_spire.score.layout`, ``.timing.json`` ({step: seconds}) and the
plots (``*.png``). Everything printed is computed from those files.
"""

import os
import platform
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from espnet_spire.score.layout import VARIANTS, Run, Scored, scored
from espnet_spire.score.metrics import METRICS
from espnet_spire.score.tables.paper import paper_tables
from espnet_spire.utils.atomic import PathLike, read_json
from espnet_spire.utils.errors import SpireError

TASK_NAMES = {
    "asr": "ASR",
    "mt": "MT",
    "st": "ST direct",
    "st_multi_turn": "ST multi-turn",
    "st_cascade": "ST self-cascade",
    "ape": "APE",
    "ner": "NER",
}
METRIC_NAMES = {name: metric.title for name, metric in METRICS.items()}
TIMING = ".timing.json"
PACKAGES = (
    "torch",
    "torchaudio",
    "espnet",
    "transformers",
    "deepspeed",
    "sentencepiece",
    "scikit-learn",
    "jiwer",
    "sacrebleu",
)
# Direct ST "collapses" when less than this share of SpireFull's BLEU is left. The paper shows it
# without a threshold (81.33 → 62.80 COMET, and 6.8 spBLEU in its Table 12).
COLLAPSE = 0.5


@dataclass(frozen=True)
class Result:
    """One score of one decoded test set; ``tag`` and ``inference`` say which run it is from.

    ``low`` and ``high`` are the bounds of its 95 % interval, ``None`` in files without one.
    """

    variant: str
    task: str
    set: str
    src: str
    tgt: str
    metric: str
    value: float
    signature: str
    tag: str
    inference: str
    low: Optional[float] = None
    high: Optional[float] = None

    @property
    def pair(self) -> str:
        """``en`` for recognition, ``en→de`` for translation."""
        return self.src if self.src == self.tgt else f"{self.src}→{self.tgt}"

    @property
    def run(self) -> Run:
        """Whose score it is."""
        return Run(self.tag, self.inference, self.variant)


def _rank(order: Iterable[str], name: str) -> tuple:
    order = list(order)
    return (order.index(name) if name in order else len(order), name)


def _order(r: Result) -> tuple:
    return (
        r.tag,
        r.inference,
        _rank(VARIANTS, r.variant),
        _rank(TASK_NAMES, r.task),
        r.set,
        r.src,
        r.tgt,
        _rank(METRIC_NAMES, r.metric),
    )


def collect(expdir: PathLike) -> List[Result]:
    """Read every score under ``expdir``.

    Raises:
        SpireError: no such directory, no score in it, or a ``score.json`` that is not one.
    """
    return results_of(scored(expdir))


def results_of(found: Iterable[Scored]) -> List[Result]:
    """The scores of score directories, in the order of tables.

    Raises:
        SpireError: a ``score.json`` is not one.
    """
    results = []
    for run, test_set, (task, src, tgt), path in found:
        try:
            for score in read_json(path)["scores"]:
                bounds = score.get("interval", {})
                results.append(
                    Result(
                        variant=run.variant,
                        task=task,
                        set=test_set,
                        src=src,
                        tgt=tgt,
                        metric=score["metric"],
                        value=float(score["value"]),
                        signature=score["signature"],
                        tag=run.tag,
                        inference=run.inference,
                        low=bounds.get("low"),
                        high=bounds.get("high"),
                    )
                )
        except (KeyError, TypeError, ValueError) as error:
            raise SpireError(f"{path}: not a score file ({error!r}); score again") from None
    return sorted(results, key=_order)


def read_seconds(expdir: PathLike) -> Dict[str, float]:
    """Seconds a step from ``.timing.json``, in the order of the steps' numbers; may be empty."""
    path = Path(expdir) / TIMING
    if not path.exists():
        return {}
    content = read_json(path)
    try:
        seconds = {str(step): float(value) for step, value in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise SpireError(f"{path}: expected {{step name: seconds}}; remove it") from None

    def number(step: str) -> tuple:
        found = re.match(r"\d+(\.\d+)?", step)
        return (float(found[0]) if found else float("inf"), step)

    return {step: seconds[step] for step in sorted(seconds, key=number)}


def totals(seconds: Mapping[str, float]) -> Dict[str, float]:
    """Sums over steps: what variants share, what each adds, and all together.

    Steps of one variant have its name in theirs.
    """
    own = {
        variant: sum(value for step, value in seconds.items() if variant in step.split())
        for variant in VARIANTS
    }
    own = {variant: value for variant, value in own.items() if value}
    everything = sum(seconds.values())
    result = {}
    if own:
        result["total, shared by variants"] = everything - sum(own.values())
        result.update({f"total, only {VARIANTS[name]}": value for name, value in own.items()})
    result["total"] = everything
    return result


def environment() -> Dict[str, Any]:
    """Python, platform, CPU, cores and the versions of what matters (None: not installed)."""
    result: Dict[str, Any] = {
        "python": platform.python_version(),
        # without the kernel's build, which names a machine rather than a kind of machine
        "platform": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]).strip(),
        "cpu": _cpu_model(),
        "cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
    }
    for package in PACKAGES:
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            result[package] = None
    return result


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def results_json(
    results: Sequence[Result], seconds: Mapping[str, float], env: Mapping[str, Any]
) -> Dict[str, Any]:
    """The content of ``results.json``."""
    return {
        "results": [asdict(result) for result in results],
        "seconds": dict(seconds),
        "environment": dict(env),
    }


# Tables


def score_rows(results: Sequence[Result], *, intervals: bool = False) -> List[List[str]]:
    """Header and one row for each model, task, set and pair; a column for each metric.

    With ``intervals`` a cell has the bounds of the score, too: ``4.2 [3.9, 4.6]``.
    """
    metrics = sorted({r.metric for r in results}, key=lambda m: _rank(METRIC_NAMES, m))
    rows: Dict[tuple, Dict[str, str]] = defaultdict(dict)
    for r in sorted(results, key=_order):
        label = TASK_NAMES.get(r.task, r.task)
        cell = f"{r.value:.1f}"
        if intervals and r.low is not None:
            cell += f" [{r.low:.1f}, {r.high:.1f}]"
        rows[(label_of(r.run, results), label, r.set, r.pair)][r.metric] = cell
    header = ["model", "task", "set", "pair"] + [METRIC_NAMES.get(m, m) for m in metrics]
    return [header] + [
        list(key) + [cells.get(m, "-") for m in metrics] for key, cells in rows.items()
    ]


def plain_table(rows: Sequence[Sequence[str]], text_columns: int = 4) -> str:
    """Aligned plain text: the first columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(rows[0]), rule] + [line(row) for row in rows[1:]])


def markdown_table(rows: Sequence[Sequence[str]], text_columns: int = 4) -> str:
    """The same rows as a Markdown table."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

    rule = ["---" if i < text_columns else "---:" for i in range(len(rows[0]))]
    return "\n".join([line(rows[0]), line(rule)] + [line(row) for row in rows[1:]])


def label_of(run: Run, results: Sequence[Result]) -> str:
    """The model's name, with tag and inference when several runs of the variant are here."""
    same = {r.run for r in results if r.variant == run.variant}
    return run.system if len(same) == 1 else f"{run.system} ({', '.join(filter(None, run[:2]))})"


# The ablation


@dataclass(frozen=True)
class Column:
    """One column of the ablation table: a metric averaged over pairs and sets."""

    title: str
    task: str
    metric: str
    direction: str  # "out" of the language of the speech, "into" it, or "" for any


COLUMNS = (
    Column("ASR WER", "asr", "wer", ""),
    Column("MT {s}→xx BLEU", "mt", "bleu", "out"),
    Column("MT xx→{s} BLEU", "mt", "bleu", "into"),
    Column("ST direct BLEU", "st", "bleu", "out"),
    Column("ST self-cascade BLEU", "st_cascade", "bleu", "out"),
)


@dataclass(frozen=True)
class Ablation:
    """Averages over what all models of a group were scored on.

    Attributes:
        values: variant → one average a column (None: not scored).
        basis: for each column, the ``set pair`` names it is the average of.
        left_out: for each column, those that only some of the models have.
    """

    values: Dict[str, List[Optional[float]]]
    basis: List[List[str]]
    left_out: List[List[str]]


def ablate(results: Sequence[Result], speech_lang: str = "en") -> Ablation:
    """Average each column over the sets and pairs that every model with that column has.

    Averages over different pairs would not be comparable, so the rest is named, not used.
    """
    variants = [v for v in VARIANTS if v != "spirebase" and any(r.variant == v for r in results)]
    values: Dict[str, List[Optional[float]]] = {v: [] for v in variants}
    basis, left_out = [], []
    for column in COLUMNS:
        scores: Dict[str, Dict[str, float]] = {v: {} for v in variants}
        for r in results:
            fits = (
                r.variant in scores
                and (r.task, r.metric) == (column.task, column.metric)
                and (column.direction != "out" or r.src == speech_lang)
                and (column.direction != "into" or r.tgt == speech_lang)
            )
            if fits:
                scores[r.variant][f"{r.set} {r.pair}"] = r.value
        present = [set(s) for s in scores.values() if s]
        common = sorted(set.intersection(*present)) if present else []
        for variant in variants:
            numbers = [scores[variant][key] for key in common if key in scores[variant]]
            values[variant].append(sum(numbers) / len(numbers) if numbers else None)
        basis.append(common)
        left_out.append(sorted(set().union(*present) - set(common)))
    return Ablation(values, basis, left_out)


def _verdict(holds: bool, claim: str, figures: str) -> str:
    return f"{'as in the paper' if holds else 'NOT as in the paper'}: {claim} ({figures})"


def orders(ablation: Ablation, speech_lang: str = "en") -> List[str]:
    """One line for each of the paper's findings whose figures are there."""

    def get(variant: str, column: int) -> Optional[float]:
        return ablation.values[variant][column] if variant in ablation.values else None

    lines = []

    def compare(
        first: tuple, second: tuple, holds: Callable[[float, float], bool], claim: str, text: str
    ) -> None:
        a, b = get(*first), get(*second)
        if a is not None and b is not None:
            lines.append(_verdict(holds(a, b), claim, text.format(a=a, b=b)))

    compare(
        ("towerfull", 0),
        ("spirefull", 0),
        lambda tower, spire: tower > spire,
        "TowerFull's WER is above SpireFull's",
        "TowerFull {a:.1f}, SpireFull {b:.1f}",
    )
    for column, direction in ((1, f"{speech_lang}→xx"), (2, f"xx→{speech_lang}")):
        compare(
            ("spirenoblocks", column),
            ("spirefull", column),
            lambda without, full: without < full,
            f"MT {direction} falls without Blocks",
            "SpireNoBlocks {a:.1f}, SpireFull {b:.1f} BLEU",
        )
    compare(
        ("spirenopseudo", 3),
        ("spirefull", 3),
        lambda without, full: without < COLLAPSE * full,
        f"direct ST collapses without pseudo-ST (below {COLLAPSE:.0%} of SpireFull's)",
        "SpireNoPseudo {a:.1f}, SpireFull {b:.1f} BLEU",
    )
    compare(
        ("spirefull", 4),
        ("spirefull", 3),
        lambda cascade, direct: cascade >= direct,
        "self-cascade is at least as good as direct ST",
        "self-cascade {a:.1f}, direct {b:.1f} BLEU",
    )
    return lines


def _is_ablated(r: Result) -> bool:
    return r.run.system in paper_tables()[9].sections[0].figures


def _paper_rows() -> List[List[str]]:
    """The paper's Table 9 in WER and spBLEU; the self-cascade by its Table 7."""
    cascades = paper_tables()[7].sections[0].figures
    rows = []
    for system, figures in paper_tables()[9].sections[0].figures.items():
        # WER, en→xx spBLEU, xx→en spBLEU, ST spBLEU; the mean over all languages is Table 7's last
        shown = [figures[i] for i in (0, 2, 4, 6)] + [cascades.get(system, [None])[-1]]
        cells = ["-" if f is None else f"{f.value:.1f}" + " [sic]" * f.doubtful for f in shown]
        rows.append([system, *cells])
    return rows


def _ablation_section(results: Sequence[Result], speech_lang: str) -> List[str]:
    lines: List[str] = []
    for group in sorted({(r.tag, r.inference) for r in results if _is_ablated(r)}):
        members = [r for r in results if (r.tag, r.inference) == group]
        ablation = ablate(members, speech_lang)
        titles = [column.title.format(s=speech_lang) for column in COLUMNS]
        rows = [["model", *titles]] + [
            [VARIANTS[v], *("-" if x is None else f"{x:.1f}" for x in values)]
            for v, values in ablation.values.items()
        ]
        lines += [f"Run `{'`, `'.join(filter(None, group))}`:", "", markdown_table(rows, 1), ""]
        for title, basis, left_out in zip(titles, ablation.basis, ablation.left_out, strict=True):
            if basis:
                line = f"- {title}: mean of {', '.join(basis)}"
                if left_out:
                    line += f"; left out, as not every model has it: {', '.join(left_out)}"
                lines.append(line)
            elif left_out:
                lines.append(f"- {title}: the models have no set and pair in common")
        lines += [""] + [f"- {line}" for line in orders(ablation, speech_lang)] + [""]
    if speech_lang != "en":
        return lines
    paper = [["paper, Table 9", *(c.title.format(s="en") for c in COLUMNS)], *_paper_rows()]
    lines += [
        "For orientation, the paper's own (7B models, LibriSpeech test-clean, FLORES-200, FLEURS,"
        " spBLEU with the flores200 tokenizer: other data and another tokenizer than above; [sic]:"
        " its Table 12 has 6.8 on the other ST set, and COMET is 62.80 against 81.33):",
        "",
        markdown_table(paper, 1),
        "",
    ]
    return lines


# Targets


@dataclass(frozen=True)
class Target:
    """A figure that a variant must reach; exactly one of the bounds is set."""

    variant: str
    task: str
    src: str
    tgt: str
    metric: str
    set: Optional[str] = None
    at_most: Optional[float] = None
    at_least: Optional[float] = None


def read_targets(path: PathLike) -> List[Target]:
    """Read a YAML list of ``{variant, task, src, tgt, metric[, set], at_most|at_least}``."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpireError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, list):
        raise SpireError(f"{path}: a list of targets was expected")
    needed = ("variant", "task", "src", "tgt", "metric")
    bounds = ("at_most", "at_least")
    targets = []
    for number, entry in enumerate(content, 1):
        where = f"{path}, target {number}"
        if not isinstance(entry, dict):
            raise SpireError(f"{where}: {{{', '.join(needed)}, at_most|at_least}} was expected")
        for key in needed:
            # YAML reads a bare `no` as false: a language code would silently be lost.
            if not isinstance(entry.get(key), str):
                raise SpireError(f"{where}: {key} is missing or no text (quote it)")
        unknown = sorted(str(key) for key in entry if key not in (*needed, *bounds, "set"))
        if unknown:
            raise SpireError(f"{where}: unknown key {unknown[0]}")
        numbers = [
            key
            for key in bounds
            if isinstance(entry.get(key), (int, float)) and not isinstance(entry[key], bool)
        ]
        if len(numbers) != 1 or sum(key in entry for key in bounds) != 1:
            raise SpireError(f"{where}: give a number for one of at_most, at_least")
        targets.append(Target(**entry))
    return targets


def check_target(target: Target, results: Sequence[Result]) -> List[str]:
    """One line for each run and set it applies to: met or missed, and by how much."""
    bound = target.at_most if target.at_most is not None else target.at_least
    relation = "at most" if target.at_most is not None else "at least"
    pair = target.src if target.src == target.tgt else f"{target.src}→{target.tgt}"
    what = (
        f"{VARIANTS.get(target.variant, target.variant)} {TASK_NAMES.get(target.task, target.task)}"
        f" {pair} {METRIC_NAMES.get(target.metric, target.metric)} {relation} {bound:g}"
    )
    wanted = (target.variant, target.task, target.src, target.tgt, target.metric)
    found = [
        r
        for r in results
        if (r.variant, r.task, r.src, r.tgt, r.metric) == wanted and target.set in (None, r.set)
    ]
    if not found:
        return [f"{what}: not measured"]
    lines = []
    for r in found:
        margin = bound - r.value if target.at_most is not None else r.value - bound
        word = "met" if margin >= 0 else "MISSED"
        run = ", ".join(filter(None, (r.tag, r.inference)))
        lines.append(f"{what}: {word}, {r.value:.2f} on {r.set} (by {abs(margin):.2f}; {run})")
    return lines


# The page


def find_plots(expdir: PathLike) -> List[Path]:
    """The PNG files under ``expdir``, sorted; not those in hidden directories and ``images/``.

    ESPnet's ``images/`` have a picture for each value of a training, which our curves have in one.
    """
    found = []
    for directory, names, files in os.walk(expdir):
        names[:] = [name for name in names if not name.startswith(".") and name != "images"]
        found += [Path(directory, f) for f in files if f.endswith(".png") and f[0] != "."]
    return sorted(found)


def signatures(results: Sequence[Result]) -> List[Tuple[str, str, str]]:
    """Title of a metric, the languages it was used for, and how it was made, in order."""
    users: Dict[tuple, set] = defaultdict(set)
    for r in results:
        users[(_rank(METRIC_NAMES, r.metric), r.signature)].add(r.tgt)
    return [
        (METRIC_NAMES.get(metric, metric), ", ".join(sorted(langs)), signature)
        for ((_, metric), signature), langs in sorted(users.items())
    ]


def markdown(
    results: Sequence[Result],
    seconds: Mapping[str, float],
    env: Mapping[str, Any],
    *,
    title: str,
    targets: Optional[Sequence[Target]] = None,
    plots: Sequence[str] = (),
    speech_lang: str = "en",
) -> str:
    """``RESULTS.md``; ``plots`` are links relative to where it will lie."""
    lines = [f"# {title}", "", "Written by `python -m espnet_spire.bin.report`; do not edit.", ""]
    if targets is not None:
        lines += ["## Targets", ""]
        lines += [f"- {line}" for target in targets for line in check_target(target, results)]
        lines += [""]
    lower = [METRICS[m].title for m in METRICS if METRICS[m].lower_is_better]
    lower = [title for title in lower if title in {METRIC_NAMES.get(r.metric) for r in results}]
    said = "Percentages, in brackets 95 % bootstrap intervals over utterances"
    said += f"; {', '.join(lower)}: lower is better." if lower else "."
    lines += ["## Scores", "", said, ""]
    for run in dict.fromkeys(r.run for r in sorted(results, key=_order)):
        rows = score_rows([r for r in results if r.run == run], intervals=True)
        lines += [f"### {label_of(run, results)}", ""]
        lines += [markdown_table([row[1:] for row in rows], 3), ""]
    if any(map(_is_ablated, results)):
        lines += ["## Ablations", ""] + _ablation_section(results, speech_lang)
    lines += ["## Signatures", ""]
    lines += [f"- {metric} ({langs}): `{how}`" for metric, langs, how in signatures(results)] + [""]
    if plots:
        lines += ["## Plots", ""] + [f"- [{plot}]({plot.replace(' ', '%20')})" for plot in plots]
        lines += [""]
    if seconds:
        rows = [["step", "seconds"]] + [[step, f"{s:.1f}"] for step, s in seconds.items()]
        rows += [[name, f"{value:.1f}"] for name, value in totals(seconds).items()]
        lines += ["## Time", "", markdown_table(rows, 1), ""]
    rows = [["", ""]] + [
        [name, "not installed" if value is None else str(value)] for name, value in env.items()
    ]
    lines += ["## Environment", "", markdown_table(rows, 2), ""]
    return "\n".join(lines)
