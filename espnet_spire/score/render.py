"""What people, and ESPnet's own scripts, read of a score directory; see :mod:`.files`.

``result.txt`` has sclite's line ``| Sum/Avg | …`` for error rates, which ``show_asr_result.sh``
looks for, ``result.tc.txt`` a heading and sacreBLEU's JSON, of which
``show_translation_result.sh`` takes the fifth and the seventh line.
"""

import json
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from espnet_spire.score.error_rates import CHARACTER, WORD, alignment_text
from espnet_spire.score.metrics import METRICS

Entry = Mapping[str, Any]
WORST_SHOWN = 10
# The unit of errors of metrics that have an alignment.
UNITS = {"wer": WORD, "cer": CHARACTER}
# Names that sacreBLEU prints.
_SACREBLEU_NAMES = {"chrf": "chrF2", "chrf++": "chrF2++", "ter": "TER"}
# ESPnet's names of files by case, their headings and the metric that stands first.
CASES = {
    "result.tc.txt": ("Case sensitive BLEU", "bleu"),
    "result.lc.txt": ("Case insensitive BLEU without punctuation", "bleu_lc"),
}


def compared(entry: Entry) -> Mapping[str, str]:
    """An utterance's reference and hypothesis as the metric compared them."""
    return entry.get("compared", entry)


def trn_lines(entries: Iterable[Entry], side: str, unit: Optional[str]) -> Iterator[str]:
    """``text<TAB>(utterance)``, characters apart and spaces as ``<space>`` for CER."""
    for entry in entries:
        text = compared(entry)[side]
        if unit == CHARACTER:
            text = " ".join("<space>" if c == " " else c for c in text)
        yield f"{text}\t({entry['utterance']})\n"


def result_text(result: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """``result.txt``: scores with interval and counts, the worst utterances."""
    lines = [f"task {result['task']}, language {result['lang']}"]
    for score in result["scores"]:
        bounds = score["interval"]
        lines += [
            "",
            f"{METRICS[score['metric']].title} {score['value']:.2f}"
            f" [{bounds['low']:.2f}, {bounds['high']:.2f}] over {score['utterances']} utterances",
            f"  signature: {score['signature']}",
            f"  interval of {100 * bounds['level']:g} %: {bounds['signature']}",
        ]
        lines += [f"  {name}: {_plain(value)}" for name, value in score["counts"].items()]
        if score["metric"] in UNITS:
            lines += ["", *_sclite(score)]
    missing = result["missing_hypotheses"]
    if missing["count"]:
        lines += ["", f"{missing['count']} hypotheses were missing and counted as empty: "]
        lines[-1] += _first(missing)
    for reason, some in result["left_out"].items():
        if some["count"]:
            lines += ["", f"{some['count']} utterances left out, {reason.replace('_', ' ')}: "]
            lines[-1] += _first(some)
    shown = worst(result, entries)[:WORST_SHOWN]
    if shown:
        lines += ["", f"The worst {len(shown)} of {len(entries)} utterances"]
    for entry in shown:
        lines += ["", *utterance_lines(result, entry)]
    return "\n".join(lines) + "\n"


def alignment_lines(result: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """``alignment.txt``: every utterance, those with the most errors first."""
    metric = result["scores"][0]["metric"]
    yield f"{METRICS[metric].title}: {len(entries)} utterances, worst first\n"
    for entry in [*worst(result, entries), *_right(result, entries)]:
        yield "\n" + "\n".join(utterance_lines(result, entry)) + "\n"


def worst(result: Mapping[str, Any], entries: Sequence[Entry]) -> List[Entry]:
    """Utterances with errors, the worst first.

    By the number of edits, else by the metric that has a value for each utterance alone: chrF where
    it is there, else the first.
    """
    metric = result["scores"][0]["metric"]
    if metric in UNITS:
        wrong = [entry for entry in entries if _edits(entry, metric)]
        return sorted(wrong, key=lambda e: (-_edits(e, metric), e["utterance"]))
    metric = _by(result)
    best, sign = (0.0, -1) if METRICS[metric].lower_is_better else (100.0, 1)
    wrong = [
        entry
        for entry in entries
        if entry["reference"] != entry["hypothesis"] and entry["scores"][metric] not in (None, best)
    ]
    return sorted(wrong, key=lambda e: (sign * e["scores"][metric], e["utterance"]))


def utterance_lines(result: Mapping[str, Any], entry: Entry) -> List[str]:
    """One utterance: its score, then its alignment, or source, reference and hypothesis."""
    metric = result["scores"][0]["metric"]
    if metric in UNITS:
        _, substitutions, deletions, insertions = entry["statistics"][metric]
        texts = compared(entry)
        drawn = alignment_text(
            texts["reference"], texts["hypothesis"], entry["alignment"], unit=UNITS[metric]
        )
        head = f"{entry['utterance']}: {substitutions} S, {deletions} D, {insertions} I"
        return [head, drawn] if drawn else [head]
    metric = _by(result)
    lines = [f"{entry['utterance']}: {METRICS[metric].title} {entry['scores'][metric]:.1f}"]
    for label, side in (("SRC", "source"), ("REF", "reference"), ("HYP", "hypothesis")):
        if side in entry:
            lines.append(f"{label}: {entry[side]}".rstrip())
    return lines


def sacrebleu_text(heading: str, first: str, scores: Sequence[Mapping[str, Any]]) -> Optional[str]:
    """``result.tc.txt`` as ESPnet's recipes make it: a heading, then sacreBLEU's JSON.

    Args:
        first: the metric that stands first; without it there is no such file.
    """
    found = {score["metric"]: score for score in scores}
    if first not in found:
        return None
    others = [name for name in ("chrf", "chrf++", "ter") if name in found and first == "bleu"]
    parts = []
    for name in (first, *others):
        content: Dict[str, Any] = {
            "name": _SACREBLEU_NAMES.get(name, "BLEU"),
            "score": float(f"{found[name]['value']:.1f}"),
            "signature": found[name]["signature"],
        }
        if name == first:
            content["verbose_score"] = _verbose(found[name]["counts"])
        parts.append(json.dumps(content, indent=1, ensure_ascii=False))
    return f"{heading} (single reference)\n[\n" + ",\n".join(parts) + "\n]\n"


def _verbose(counts: Mapping[str, Any]) -> str:
    """What sacreBLEU prints after a BLEU score."""
    from sacrebleu.metrics import BLEU

    correct, total = list(counts["ngrams_correct"]), list(counts["ngrams_total"])
    lengths = counts["hypothesis_tokens"], counts["reference_tokens"]
    return BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp")._verbose


def _sclite(score: Mapping[str, Any]) -> List[str]:
    """Percentages as sclite has them: of reference words, S.Err of sentences."""
    counts, units = score["counts"], score["counts"]["reference_units"]
    names = ("hits", "substitutions", "deletions", "insertions")
    shares = [100.0 * counts[name] / units for name in names]
    wrong = 100.0 * counts["utterances_with_errors"] / score["utterances"]
    numbers = " ".join(f"{share:5.1f}" for share in [*shares, score["value"], wrong])
    return [
        "| SPKR    |  # Snt   # Wrd |  Corr   Sub   Del   Ins   Err S.Err |",
        f"| Sum/Avg | {score['utterances']:6} {units:7} | {numbers} |",
    ]


def _by(result: Mapping[str, Any]) -> str:
    names = [score["metric"] for score in result["scores"]]
    return "chrf" if "chrf" in names else names[0]


def _right(result: Mapping[str, Any], entries: Sequence[Entry]) -> List[Entry]:
    metric = result["scores"][0]["metric"]
    return [entry for entry in entries if not _edits(entry, metric)]


def _edits(entry: Entry, metric: str) -> int:
    return sum(entry["statistics"][metric][1:])


def _first(some: Mapping[str, Any]) -> str:
    return ", ".join(some["first"]) + (", …" if some["count"] > len(some["first"]) else "")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
