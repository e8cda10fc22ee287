"""Kaldi tables in, score directories out, beside the hypotheses of a task and language pair:

* ``score_wer``, ``score_cer``: one metric each;
* ``score_bleu``: what compares strings, that is bleu, bleu_lc, spbleu, chrf, chrf++ and ter;
* ``score_comet``: comet22, xcomet and cometkiwi;
* ``score_f1``: named entities.

A score directory has

``score.json``
    The result, an object with ``task``, ``lang``, ``missing_hypotheses`` (``count``, and the first
    few keys in ``first``), ``left_out`` (the same for utterances with ``no_reference`` and with
    ``no_source``) and ``scores``: a list in the order of ``METRICS`` of objects with ``metric``,
    ``value`` (a percentage; COMET's times 100, its 0-1 value is ``counts.mean``), ``signature``,
    ``counts``, ``utterances`` and ``interval`` (``low``, ``high``, ``mean``, ``level``,
    ``resamples``, ``seed`` and the ``signature`` with the latter two).

``utterances.jsonl``
    One JSON object a line and utterance, in the order of the references: ``utterance`` (its key),
    ``reference``, ``hypothesis`` (as in the tables), ``source`` where it is known, ``scores``
    (metric → its value for this utterance alone, ``null`` where there is none) and ``statistics``
    (metric → numbers whose sums over utterances give the score, see
    :mod:`espnet_spire.score.statistics`: what :mod:`espnet_spire.score.compare` reads). Of error
    rates also ``compared`` (``reference`` and ``hypothesis`` after normalisation) and
    ``alignment``: ``[kind, reference start, reference end, hypothesis start, hypothesis end]``,
    kinds ``= S D I``, in words (WER) or characters (CER) of the compared texts. Of xCOMET also
    ``error_spans``.

``ref.trn``, ``hyp.trn``
    ``text<TAB>(utterance)`` as ESPnet's scoring writes it, of the text that was compared:
    normalised words for WER, characters (a space is ``<space>``) for CER, else the text as it is.

``result.txt``, ``alignment.txt`` (error rates), ``result.tc.txt`` and ``result.lc.txt`` (BLEU)
    Rendered from the former for people and for ESPnet's own scripts, see
    :mod:`espnet_spire.score.render`. Nothing here reads them.

When more metrics are asked for later, what a directory has of others stays as long as its texts are
the same.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from espnet_spire.score import render
from espnet_spire.score.measured import Measured, Score, Texts
from espnet_spire.score.metrics import (
    METRICS,
    Settings,
    metrics_of,
    score_texts,
    utterance_values,
)
from espnet_spire.text.jobs import TASKS, match_job
from espnet_spire.text.languages import common_code, is_code
from espnet_spire.text.normalize import UNSPACED
from espnet_spire.utils.atomic import (
    PathLike,
    atomic_dir,
    atomic_write,
    read_json,
    write_json,
)
from espnet_spire.utils.datadir import TEXT, language_file, read_table
from espnet_spire.utils.errors import SpireError

SCORE_JSON = "score.json"
UTTERANCES = "utterances.jsonl"
KEYS_SHOWN = 5


class Matched(NamedTuple):
    """References with their hypotheses, in the order of ``keys``.

    ``missing`` are those that have no hypothesis, ``unknown`` those with a hypothesis alone.
    """

    keys: List[str]
    references: List[str]
    hypotheses: List[str]
    missing: List[str]
    unknown: List[str]


def check_lang(lang: str) -> None:
    """Raise unless ``lang`` is spelled as an ISO 639 code."""
    if not is_code(lang):
        raise SpireError(f"language {lang!r} is not an ISO 639 code such as en, de or bem")


def match(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    *,
    ref_name: str,
    hyp_name: str,
    partial: bool = False,
) -> Matched:
    """Pair hypotheses with references by key; a missing hypothesis counts as empty text.

    Args:
        partial: not every utterance need have a reference, but some must.

    Raises:
        SpireError: no reference, no hypothesis at all, or a hypothesis without a reference.
    """
    if not references:
        raise SpireError(f"{ref_name}: there is no reference in it")
    if not hypotheses:
        raise SpireError(f"{hyp_name}: there is no hypothesis in it; decode first")
    unknown = [key for key in hypotheses if key not in references]
    if unknown and (not partial or len(unknown) == len(hypotheses)):
        raise SpireError(
            f"{hyp_name}: {len(unknown)} of {len(hypotheses)} keys are not in {ref_name} "
            f"({_some(unknown)}); score against the references of the set that was decoded"
        )
    keys = list(references)
    missing = [key for key in keys if key not in hypotheses]
    return Matched(
        keys, [references[k] for k in keys], [hypotheses.get(k, "") for k in keys], missing, unknown
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:KEYS_SHOWN]) + (", …" if len(keys) > KEYS_SHOWN else "")


def _count(keys: Sequence[str]) -> Dict[str, Any]:
    return {"count": len(keys), "first": list(keys[:KEYS_SHOWN])}


@dataclass(frozen=True)
class Job:
    """One hypothesis file to score.

    ``lang`` is the language of reference and hypothesis; ``src``, the source text, is shown and
    what COMET looks at, and of MT only what has some is scored.
    """

    task: str
    ref: Path
    hyp: Path
    lang: str
    out: Path
    src: Optional[Path] = None


class Read(NamedTuple):
    """The texts of a job and what there is to say of them in ``score.json``."""

    texts: Texts
    about: Dict[str, Any]


def read_job(job: Job) -> Read:
    """Read and pair a job's tables; what is missing or left out is logged.

    Raises:
        SpireError: unknown task or language, unreadable tables, keys that do not fit.
    """
    if job.task not in TASKS:
        raise SpireError(f"task {job.task!r} is unknown; known are {', '.join(TASKS)}")
    check_lang(job.lang)
    # what normalisers and tokenizers of languages are known by
    lang = common_code(job.lang)
    references = read_table(job.ref, allow_empty_value=True)
    hypotheses = read_table(job.hyp, allow_empty_value=True)
    sources = read_table(job.src, allow_empty_value=True) if job.src else {}
    without_source: List[str] = []
    if job.task == "mt" and job.src:
        # Not all speech is translated into a language from which text is translated.
        without_source = [k for k in references if k not in sources and k not in hypotheses]
        references = {k: text for k, text in references.items() if k not in set(without_source)}
    matched = match(
        references,
        hypotheses,
        ref_name=str(job.ref),
        hyp_name=str(job.hyp),
        # Each utterance has a transcript, but not each a translation.
        partial=job.task != "asr",
    )
    if matched.missing:
        logging.warning(
            f"{job.hyp}: {len(matched.missing)} of {len(matched.keys)} hypotheses are missing "
            f"and count as empty ({_some(matched.missing)})"
        )
    if without_source:
        logging.warning(
            f"{job.ref}: {len(without_source)} of {len(references) + len(without_source)}"
            f" references have no text in {job.src} and are left out"
        )
    if matched.unknown:
        logging.warning(
            f"{job.hyp}: {len(matched.unknown)} of {len(hypotheses)} hypotheses have no reference"
            f" in {job.ref} and are left out ({_some(matched.unknown)})"
        )
    about = {
        "task": job.task,
        "lang": lang,
        "missing_hypotheses": _count(matched.missing),
        "left_out": {
            "no_reference": _count(matched.unknown),
            "no_source": _count(without_source),
        },
    }
    texts = Texts(
        matched.keys,
        matched.references,
        matched.hypotheses,
        lang,
        [sources.get(key) for key in matched.keys] if job.src else None,
    )
    return Read(texts, about)


def score_job(job: Job, settings: Optional[Settings] = None) -> List[Score]:
    """Score one hypothesis file; write ``job.out/score_*``; return the scores that were computed.

    Raises:
        SpireError: see :func:`read_job`, and what the metrics raise; nothing is written then.
    """
    settings = settings or Settings()
    texts, about = read_job(job)
    names, _ = metrics_of(job.task, settings)
    if "wer" in names and texts.lang in UNSPACED:
        logging.warning(
            f"{job.hyp}: {texts.lang} is written without spaces between words; read CER, not WER"
        )
    groups: Dict[str, Dict[str, Any]] = {}
    # All are computed before any is written: an error leaves nothing behind.
    try:
        for name in names:
            group = groups.setdefault(METRICS[name].directory, {})
            group[name] = score_texts(name, texts, settings)
    except SpireError as error:
        raise SpireError(f"{job.ref}: {error}") from None
    for directory, group in groups.items():
        entries = utterance_entries(texts, {name: found for name, (_, found) in group.items()})
        scores = [score.as_dict() for score, _ in group.values()]
        _write(job.out / directory, {**about, "scores": scores}, entries)
    return [score for group in groups.values() for score, _ in group.values()]


def utterance_entries(texts: Texts, measured: Mapping[str, Measured]) -> List[Dict[str, Any]]:
    """The lines of ``utterances.jsonl`` as objects."""
    entries = []
    values = {name: utterance_values(name, found.statistics) for name, found in measured.items()}
    rows = {
        # Counts without a fraction, which is what all but COMET's are.
        name: [[int(n) if n == int(n) else n for n in row] for row in found.statistics.tolist()]
        for name, found in measured.items()
    }
    for i, key in enumerate(texts.keys):
        entry: Dict[str, Any] = {
            "utterance": key,
            "reference": texts.references[i],
            "hypothesis": texts.hypotheses[i],
        }
        if texts.sources is not None and texts.sources[i] is not None:
            entry["source"] = texts.sources[i]
        entry["scores"] = {name: values[name][i] for name in measured}
        entry["statistics"] = {name: rows[name][i] for name in measured}
        for name, found in measured.items():
            if name in render.UNITS:
                reference, hypothesis = (side[i] for side in found.compared)
                entry["compared"] = {"reference": reference, "hypothesis": hypothesis}
            entry.update(found.details[i] if found.details else {})
        entries.append(entry)
    return entries


def read_entries(path: PathLike) -> List[Dict[str, Any]]:
    """Read ``utterances.jsonl``.

    Raises:
        SpireError: it is missing, or a line is none of its; the message names it.
    """
    entries: List[Dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            for line in stream:
                entry = json.loads(line)
                # What every reader needs.
                _ = entry["utterance"], entry["reference"], entry["hypothesis"]
                _ = entry["scores"].keys(), entry["statistics"].keys()
                entries.append(entry)
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file; score first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpireError(
            f"{path}, line {len(entries) + 1}: no line of a score ({error!r}); score again"
        ) from None
    return entries


def _same_texts(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = ("utterance", "reference", "hypothesis", "source")
    return all(one.get(name) == other.get(name) for name in names)


def _with_others(
    out: Path, result: Dict[str, Any], entries: List[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """Scores of the directory's other metrics, if they are of these texts; entries get theirs."""
    new = {score["metric"] for score in result["scores"]}
    try:
        before, old_entries = read_json(out / SCORE_JSON), read_entries(out / UTTERANCES)
        kept = [score for score in before["scores"] if score["metric"] in METRICS.keys() - new]
    except (SpireError, KeyError, TypeError):
        return []  # nothing is there, or it is of another version
    same = len(old_entries) == len(entries) and all(map(_same_texts, old_entries, entries))
    if not kept or not same or before.get("lang") != result["lang"]:
        return []
    names = [score["metric"] for score in kept]
    if not all(set(names) <= old["statistics"].keys() for old in old_entries):
        return []
    for old, entry in zip(old_entries, entries, strict=True):
        for part in ("scores", "statistics"):
            entry[part].update({name: old[part][name] for name in names})
        for name in old.keys() - entry.keys():
            entry[name] = old[name]
    return kept


def _write(out: Path, result: Dict[str, Any], entries: List[Dict[str, Any]]) -> None:
    scores = {score["metric"]: score for score in result["scores"]}
    scores.update({score["metric"]: score for score in _with_others(out, result, entries)})
    order = [name for name in METRICS if name in scores]
    result["scores"] = [scores[name] for name in order]
    for entry in entries:
        for part in ("scores", "statistics"):
            entry[part] = {name: entry[part][name] for name in order}
    unit = render.UNITS.get(result["scores"][0]["metric"])
    with atomic_dir(out) as aside:
        for name, side in (("ref.trn", "reference"), ("hyp.trn", "hypothesis")):
            with atomic_write(aside / name) as stream:
                stream.writelines(render.trn_lines(entries, side, unit))
        write_json(aside / SCORE_JSON, result)
        with atomic_write(aside / UTTERANCES) as stream:
            for entry in entries:
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        with atomic_write(aside / "result.txt") as stream:
            stream.write(render.result_text(result, entries))
        if unit:
            with atomic_write(aside / "alignment.txt") as stream:
                stream.writelines(render.alignment_lines(result, entries))
        for name, (heading, metric) in render.CASES.items():
            text = render.sacrebleu_text(heading, metric, result["scores"])
            if text is not None:
                with atomic_write(aside / name) as stream:
                    stream.write(text)


def jobs_of(decode_dir: PathLike, data_dir: PathLike, *, speech_lang: str = "en") -> List[Job]:
    """One job for every ``<task>.<src>-<tgt>/text`` under ``decode_dir``.

    The text in the language of the speech is ``data_dir/text``, in another language xx
    ``data_dir/text.tc.xx`` (in a set without speech always the latter); that names both references
    and (where the file is there) sources. Of named entities the tags are the references
    (``text.tags.xx``) and the tokens are the sources (``text.tokens.xx``).

    Raises:
        SpireError: a directory is missing, or nothing in it was decoded.
    """
    decode_dir, data_dir = Path(decode_dir), Path(data_dir)
    check_lang(speech_lang)
    for directory in (decode_dir, data_dir):
        if not directory.is_dir():
            raise SpireError(f"{directory}: no such directory")

    jobs = []
    for directory in sorted(path for path in decode_dir.iterdir() if path.is_dir()):
        decoded = match_job(directory.name)
        if decoded is None:
            continue
        if not (directory / TEXT).is_file():
            logging.warning(f"{directory}: has no file {TEXT} (decoding not finished?); left out")
            continue
        reference, source = (
            language_file(data_dir, lang, speech_lang) for lang in (decoded.tgt, decoded.src)
        )
        if decoded.task == "ner":
            reference, source = (data_dir / f"{TEXT}.{n}.{decoded.tgt}" for n in ("tags", "tokens"))
        jobs.append(
            Job(
                task=decoded.task,
                ref=reference,
                hyp=directory / TEXT,
                lang=decoded.tgt,
                out=directory,
                src=source if decoded.task != "asr" and source.is_file() else None,
            )
        )
    if not jobs:
        raise SpireError(
            f"{decode_dir}: no <task>.<src>-<tgt>/{TEXT} in it (such as asr.en-en/{TEXT}); "
            "decode first"
        )
    return jobs
