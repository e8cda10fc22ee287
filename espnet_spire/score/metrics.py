"""WER, CER, BLEU and chrF as pure functions; each number carries the signature of its making.

References and hypotheses are parallel sequences of raw text, one item an utterance; an empty
hypothesis is an answer like any other. Values are percentages (a WER can exceed 100).

WER counts what white space separates. For languages written without it (``UNSPACED``: zh, ja, …)
that is close to a sentence error rate: read CER there, which is always computed beside it. CER
counts white space between words as a character, except in those languages, where it is dropped.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Dict, List, Optional, Sequence, Tuple

from espnet_spire.text.normalize import UNSPACED, normalizer
from espnet_spire.utils.errors import SpireError

WORD = "word"
CHARACTER = "char"
BLEU_TOKENIZERS = ("13a", "zh", "ja-mecab", "ko-mecab", "intl", "char", "none")
_BLEU_TOKENIZER_OF = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


@dataclass(frozen=True)
class Score:
    """One number and what it stands on.

    Attributes:
        metric: ``wer``, ``cer``, ``bleu`` or ``chrf``.
        value: percentage, 0-100 (error rates can exceed 100).
        signature: how it was made, in sacreBLEU's notation.
        counts: what the value was computed from.
        utterances: number of references.
    """

    metric: str
    value: float
    signature: str
    counts: Dict[str, Any]
    utterances: int

    def as_dict(self) -> Dict[str, Any]:
        """The score as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class Errors:
    """The errors in one utterance, with the normalised texts that were compared."""

    reference: str
    hypothesis: str
    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def total(self) -> int:
        """Number of edits."""
        return self.substitutions + self.deletions + self.insertions


def _check_parallel(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if not references:
        raise SpireError("there is no reference to score against")


def _align(references: Sequence[str], hypotheses: Sequence[str], unit: str):
    import jiwer

    process = jiwer.process_words if unit == WORD else jiwer.process_characters
    return process(list(references), list(hypotheses))


def error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, lang: str, unit: str = WORD
) -> Tuple[Score, List[Errors]]:
    """WER or CER after Whisper's normalisation of both sides.

    Args:
        references: N transcripts.
        hypotheses: N outputs, in the same order.
        lang: the shortest ISO 639 code of both; chooses the normaliser.
        unit: ``word`` for WER, ``char`` for CER.

    Returns:
        The score over all utterances (edits over reference units, in percent) and N per-utterance
        counts. A reference that is empty after normalisation adds only insertions.

    Raises:
        SpireError: no reference, or nothing left of any of them after normalisation.

    Source: jiwer (Levenshtein alignment), whisper_normalizer.
    """
    _check_parallel(references, hypotheses)
    if unit not in (WORD, CHARACTER):
        raise ValueError(f"unit {unit!r} is neither {WORD!r} nor {CHARACTER!r}")
    normalize, norm_name = normalizer(lang)
    drop_space = unit == CHARACTER and lang in UNSPACED

    def prepare(text: str) -> str:
        text = normalize(text)
        return text.replace(" ", "") if drop_space else text

    refs = [prepare(text) for text in references]
    hyps = [prepare(text) for text in hypotheses]
    output = _align(refs, hyps, unit)
    per_utterance = []
    for ref, hyp, chunks in zip(refs, hyps, output.alignments, strict=True):
        size = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
        for chunk in chunks:
            size[chunk.type] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
        per_utterance.append(
            Errors(ref, hyp, size["equal"], size["substitute"], size["delete"], size["insert"])
        )
    reference_units = output.hits + output.substitutions + output.deletions
    if not reference_units:
        raise SpireError(
            f"all {len(refs)} references are empty after normalisation ({norm_name}): "
            "an error rate over no reference text is undefined"
        )
    edits = output.substitutions + output.deletions + output.insertions
    fields = ["nrefs:1", f"norm:{norm_name}", f"unit:{unit}"]
    if unit == CHARACTER:
        fields.append("space:no" if drop_space else "space:yes")
    fields += ["tool:jiwer", f"version:{version('jiwer')}"]
    score = Score(
        metric="wer" if unit == WORD else "cer",
        value=100.0 * edits / reference_units,
        signature="|".join(fields),
        counts={
            "hits": output.hits,
            "substitutions": output.substitutions,
            "deletions": output.deletions,
            "insertions": output.insertions,
            "reference_units": reference_units,
            "utterances_with_errors": sum(1 for e in per_utterance if e.total),
            "empty_references": sum(1 for text in refs if not text),
            "empty_hypotheses": sum(1 for text in hyps if not text),
        },
        utterances=len(refs),
    )
    return score, per_utterance


def alignment_text(reference: str, hypothesis: str, *, unit: str, width: int = 100) -> str:
    """Reference above hypothesis with S, D and I beneath, of two normalised texts."""
    import jiwer

    output = _align([reference], [hypothesis], unit)
    drawn = jiwer.visualize_alignment(
        output, show_measures=False, skip_correct=False, line_width=width
    )
    # The first two lines are jiwer's own heading ("SENTENCE 1"), which would be wrong here.
    lines = [line.rstrip() for line in drawn.splitlines()[2:]]
    return "\n".join(line for line in lines if line)


def bleu_tokenizer(lang: str) -> str:
    """SacreBLEU's tokenizer for a target language: 13a unless it has one of its own."""
    return _BLEU_TOKENIZER_OF.get(lang, "13a")


def bleu(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    lang: str,
    tokenize: Optional[str] = None,
) -> Score:
    """Corpus BLEU by sacreBLEU, on the text as it is.

    Args:
        references: N translations.
        hypotheses: N outputs, in the same order.
        lang: the shortest ISO 639 code of the target language.
        tokenize: one of ``BLEU_TOKENIZERS``; by default that of the language.

    Raises:
        SpireError: no reference, or a tokenizer whose packages are not installed.

    Source: sacreBLEU (Post 2018).
    """
    from sacrebleu.metrics import BLEU

    _check_parallel(references, hypotheses)
    tokenize = tokenize or bleu_tokenizer(lang)
    if tokenize not in BLEU_TOKENIZERS:
        raise SpireError(
            f"BLEU tokenizer {tokenize!r} is unknown; known are {', '.join(BLEU_TOKENIZERS)}"
        )
    try:
        metric = BLEU(tokenize=tokenize, trg_lang=lang)
    except RuntimeError:
        extra = tokenize.split("-")[0]
        raise SpireError(
            f"BLEU tokenizer {tokenize!r} needs packages that are not installed: "
            f"pip install 'sacrebleu[{extra}]', or choose another with --tokenize (char, 13a)"
        ) from None
    result = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(
        metric="bleu",
        # sacreBLEU's geometric mean of four ones is 100.00000000000004
        value=min(float(result.score), 100.0),
        signature=str(metric.get_signature()),
        counts={
            "ngrams_correct": [int(n) for n in result.counts],
            "ngrams_total": [int(n) for n in result.totals],
            "brevity_penalty": float(result.bp),
            "hypothesis_tokens": int(result.sys_len),
            "reference_tokens": int(result.ref_len),
            "empty_references": sum(1 for text in references if not text.strip()),
            "empty_hypotheses": sum(1 for text in hypotheses if not text.strip()),
        },
        utterances=len(references),
    )


def chrf(references: Sequence[str], hypotheses: Sequence[str]) -> Tuple[Score, List[float]]:
    """Corpus chrF2 by sacreBLEU, and the chrF2 of each utterance (0-100).

    Source: sacreBLEU; Popović 2015.
    """
    from sacrebleu.metrics import CHRF

    _check_parallel(references, hypotheses)
    metric = CHRF()
    result = metric.corpus_score(list(hypotheses), [list(references)])
    score = Score(
        metric="chrf",
        value=min(float(result.score), 100.0),
        signature=str(metric.get_signature()),
        counts={
            "hypothesis_characters": sum(len("".join(text.split())) for text in hypotheses),
            "reference_characters": sum(len("".join(text.split())) for text in references),
        },
        utterances=len(references),
    )
    each = [
        float(metric.sentence_score(hyp, [ref]).score)
        for hyp, ref in zip(hypotheses, references, strict=True)
    ]
    return score, each
