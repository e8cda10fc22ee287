"""Kaldi tables in, score directories out: ``{ref.trn,hyp.trn,result.txt,score.json}``.

ASR gives ``score_wer`` and ``score_cer``; translation gives ``score_bleu`` with BLEU and chrF.
``score.json`` is the result; ``result.txt`` is rendered from it for people. ``*.trn`` hold
``text<TAB>(utterance)`` lines as ESPnet's scoring writes them, and of exactly the text that was
compared: normalised words for WER, normalised characters (a space is ``<space>``) for CER, the
text as it is for BLEU.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

from espnet_spire.score.metrics import (
    CHARACTER,
    WORD,
    Score,
    alignment_text,
    bleu,
    chrf,
    error_rate,
)
from espnet_spire.text.jobs import TASKS, match_job
from espnet_spire.text.languages import common_code, is_code
from espnet_spire.text.normalize import UNSPACED
from espnet_spire.utils.atomic import PathLike, atomic_dir, atomic_write, write_json
from espnet_spire.utils.datadir import TEXT, language_file, read_table
from espnet_spire.utils.errors import SpireError

SCORE_JSON = "score.json"
WORST_SHOWN = 10
KEYS_SHOWN = 5


class Matched(NamedTuple):
    """References with their hypotheses: four things in the order of ``keys``."""

    keys: List[str]
    references: List[str]
    hypotheses: List[str]
    missing: List[str]


def check_lang(lang: str) -> None:
    """Raise unless ``lang`` is spelled as an ISO 639 code."""
    if not is_code(lang):
        raise SpireError(f"language {lang!r} is not an ISO 639 code such as en, de or bem")


def match(
    references: Mapping[str, str], hypotheses: Mapping[str, str], *, ref_name: str, hyp_name: str
) -> Matched:
    """Pair hypotheses with references by key; a missing hypothesis counts as empty text.

    Raises:
        SpireError: no reference, no hypothesis at all, or a hypothesis without a reference.
    """
    if not references:
        raise SpireError(f"{ref_name}: there is no reference in it")
    if not hypotheses:
        raise SpireError(f"{hyp_name}: there is no hypothesis in it; decode first")
    extra = [key for key in hypotheses if key not in references]
    if extra:
        raise SpireError(
            f"{hyp_name}: {len(extra)} of {len(hypotheses)} keys are not in {ref_name} "
            f"({_some(extra)}); score against the references of the set that was decoded"
        )
    keys = list(references)
    missing = [key for key in keys if key not in hypotheses]
    return Matched(
        keys, [references[k] for k in keys], [hypotheses.get(k, "") for k in keys], missing
    )


def _some(keys: List[str]) -> str:
    return ", ".join(keys[:KEYS_SHOWN]) + (", …" if len(keys) > KEYS_SHOWN else "")


@dataclass(frozen=True)
class Job:
    """One hypothesis file to score.

    ``lang`` is the language of reference and hypothesis; ``src``, the source text, is shown, and of
    MT only what has some is scored.
    """

    task: str
    ref: Path
    hyp: Path
    lang: str
    out: Path
    src: Optional[Path] = None
    tokenize: Optional[str] = None


def score_job(job: Job) -> List[Score]:
    """Score one hypothesis file; write ``job.out/score_*``; return all scores.

    Raises:
        SpireError: unknown task or language, unreadable tables, keys that do not fit; nothing
            is written then.
    """
    if job.task not in TASKS:
        raise SpireError(f"task {job.task!r} is unknown; known are {', '.join(TASKS)}")
    check_lang(job.lang)
    # what normalisers and tokenizers of languages are known by
    job = replace(job, lang=common_code(job.lang))
    sources = read_table(job.src, allow_empty_value=True) if job.src else {}
    matched = match(
        _translatable(job, read_table(job.ref, allow_empty_value=True), sources),
        read_table(job.hyp, allow_empty_value=True),
        ref_name=str(job.ref),
        hyp_name=str(job.hyp),
    )
    if matched.missing:
        logging.warning(
            f"{job.hyp}: {len(matched.missing)} of {len(matched.keys)} hypotheses are missing "
            f"and count as empty ({_some(matched.missing)})"
        )
    common = {
        "task": job.task,
        "lang": job.lang,
        "missing_hypotheses": {
            "count": len(matched.missing),
            "first": matched.missing[:KEYS_SHOWN],
        },
    }
    if job.task == "asr":
        return _score_recognition(job, matched, common)
    return _score_translation(job, matched, common, sources)


def _translatable(
    job: Job, references: Dict[str, str], sources: Mapping[str, str]
) -> Dict[str, str]:
    """References that a system could be asked for: not all speech is translated into a language
    from which text is translated."""
    if job.task != "mt" or job.src is None:
        return references
    found = {key: text for key, text in references.items() if key in sources}
    if len(found) < len(references):
        logging.warning(
            f"{job.ref}: {len(references) - len(found)} of {len(references)} references have no"
            f" text in {job.src} and are left out"
        )
    return found


def _score_recognition(job: Job, matched: Matched, common: Dict[str, Any]) -> List[Score]:
    if job.lang in UNSPACED:
        logging.warning(
            f"{job.hyp}: {job.lang} is written without spaces between words; read CER, not WER"
        )
    # Both are computed before either is written: an error leaves nothing behind.
    try:
        results = [
            (unit, *error_rate(matched.references, matched.hypotheses, lang=job.lang, unit=unit))
            for unit in (WORD, CHARACTER)
        ]
    except SpireError as error:
        raise SpireError(f"{job.ref}: {error}") from None
    for unit, score, errors in results:
        per_utterance = [
            {
                "utterance": key,
                "reference": e.reference,
                "hypothesis": e.hypothesis,
                "hits": e.hits,
                "substitutions": e.substitutions,
                "deletions": e.deletions,
                "insertions": e.insertions,
            }
            for key, e in zip(matched.keys, errors, strict=True)
        ]
        _write(job.out / f"score_{score.metric}", [score], common, per_utterance, unit)
    return [score for _, score, _ in results]


def _score_translation(
    job: Job, matched: Matched, common: Dict[str, Any], sources: Mapping[str, str]
) -> List[Score]:
    bleu_score = bleu(matched.references, matched.hypotheses, lang=job.lang, tokenize=job.tokenize)
    chrf_score, each = chrf(matched.references, matched.hypotheses)
    per_utterance = []
    for key, ref, hyp, value in zip(
        matched.keys, matched.references, matched.hypotheses, each, strict=True
    ):
        entry = {"utterance": key, "reference": ref, "hypothesis": hyp, "chrf": value}
        if key in sources:
            entry["source"] = sources[key]
        per_utterance.append(entry)
    scores = [bleu_score, chrf_score]
    _write(job.out / "score_bleu", scores, common, per_utterance, None)
    return scores


def _trn_text(text: str, unit: Optional[str]) -> str:
    if unit == CHARACTER:
        return " ".join("<space>" if c == " " else c for c in text)
    return text


def _write(
    out: Path,
    scores: List[Score],
    common: Mapping[str, Any],
    per_utterance: List[Dict[str, Any]],
    unit: Optional[str],
) -> None:
    result = {
        **common,
        "scores": [score.as_dict() for score in scores],
        "per_utterance": per_utterance,
    }
    with atomic_dir(out) as aside:
        for name, side in (("ref.trn", "reference"), ("hyp.trn", "hypothesis")):
            with atomic_write(aside / name) as stream:
                for entry in per_utterance:
                    stream.write(f"{_trn_text(entry[side], unit)}\t({entry['utterance']})\n")
        write_json(aside / SCORE_JSON, result)
        with atomic_write(aside / "result.txt") as stream:
            stream.write(render(result))


def render(result: Mapping[str, Any]) -> str:
    """``result.txt`` from the content of ``score.json``: scores, counts, the worst utterances."""
    lines = [f"task {result['task']}, language {result['lang']}"]
    for score in result["scores"]:
        lines += [
            "",
            f"{score['metric'].upper()} {score['value']:.2f} over {score['utterances']} utterances",
            f"  signature: {score['signature']}",
        ]
        lines += [f"  {name}: {_plain(value)}" for name, value in score["counts"].items()]
    missing = result["missing_hypotheses"]
    if missing["count"]:
        lines += [
            "",
            f"{missing['count']} hypotheses were missing and counted as empty: "
            + ", ".join(missing["first"])
            + (", …" if missing["count"] > len(missing["first"]) else ""),
        ]
    is_recognition = result["task"] == "asr"
    worst = _worst_errors if is_recognition else _worst_translations
    entries = worst(result["per_utterance"])[:WORST_SHOWN]
    if entries:
        lines += ["", f"The worst {len(entries)} of {len(result['per_utterance'])} utterances"]
    unit = WORD if result["scores"][0]["metric"] == "wer" else CHARACTER
    for entry in entries:
        lines.append("")
        if is_recognition:
            lines.append(
                f"{entry['utterance']}: {entry['substitutions']} S, {entry['deletions']} D, "
                f"{entry['insertions']} I"
            )
            lines.append(alignment_text(entry["reference"], entry["hypothesis"], unit=unit))
        else:
            lines.append(f"{entry['utterance']}: chrF {entry['chrf']:.1f}")
            for label, side in (("SRC", "source"), ("REF", "reference"), ("HYP", "hypothesis")):
                if side in entry:
                    lines.append(f"{label}: {entry[side]}".rstrip())
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _edits(entry: Mapping[str, Any]) -> int:
    return entry["substitutions"] + entry["deletions"] + entry["insertions"]


def _worst_errors(entries: Iterable[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    return sorted((e for e in entries if _edits(e)), key=lambda e: (-_edits(e), e["utterance"]))


def _worst_translations(entries: Iterable[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    wrong = (e for e in entries if e["reference"] != e["hypothesis"])
    return sorted(wrong, key=lambda e: (e["chrf"], e["utterance"]))


def jobs_of(
    decode_dir: PathLike,
    data_dir: PathLike,
    *,
    speech_lang: str = "en",
    tokenize: Optional[str] = None,
) -> List[Job]:
    """One job for every ``<task>.<src>-<tgt>/text`` under ``decode_dir``.

    The text in the language of the speech is ``data_dir/text``, in another language xx
    ``data_dir/text.tc.xx`` (in a set without speech always the latter); that names both references
    and (where the file is there) sources.

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
        source = language_file(data_dir, decoded.src, speech_lang)
        jobs.append(
            Job(
                task=decoded.task,
                ref=language_file(data_dir, decoded.tgt, speech_lang),
                hyp=directory / TEXT,
                lang=decoded.tgt,
                out=directory,
                src=source if decoded.task != "asr" and source.is_file() else None,
                tokenize=tokenize,
            )
        )
    if not jobs:
        raise SpireError(
            f"{decode_dir}: no <task>.<src>-<tgt>/{TEXT} in it (such as asr.en-en/{TEXT}); "
            "decode first"
        )
    return jobs
