"""WER and CER after Whisper's normalisation of both sides.

WER counts what white space separates. For languages written without it (``UNSPACED``: zh, ja, …)
that is close to a sentence error rate: read CER there, which is always computed beside it. CER
counts white space between words as a character, except in those languages, where it is dropped.
"""

import unicodedata
from importlib.metadata import version
from typing import Any, Dict, List, Sequence

import numpy as np

from espnet_spire.score.measured import Measured, Texts
from espnet_spire.text.normalize import UNSPACED, normalizer
from espnet_spire.utils.errors import SpireError

WORD = "word"
CHARACTER = "char"
# Columns of the statistics, and how jiwer names what they count.
EDITS = ("hits", "substitutions", "deletions", "insertions")
_LETTERS = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}
_COLUMN = {"=": 0, "S": 1, "D": 2, "I": 3}


def error_rate(texts: Texts, unit: str = WORD) -> Measured:
    """WER or CER over all utterances: edits over reference units, in percent.

    Statistics are ``EDITS``. Details have ``alignment``: stretches ``[kind, reference start,
    reference end, hypothesis start, hypothesis end]`` of units of the compared texts, the kind
    being ``=``, ``S``, ``D`` or ``I``. A reference that is empty after normalisation adds only
    insertions.

    Args:
        unit: ``word`` for WER, ``char`` for CER.

    Raises:
        SpireError: nothing is left of any reference after normalisation.

    Source: jiwer (Levenshtein alignment), whisper_normalizer.
    """
    import jiwer

    if unit not in (WORD, CHARACTER):
        raise ValueError(f"unit {unit!r} is neither {WORD!r} nor {CHARACTER!r}")
    normalize, norm_name = normalizer(texts.lang)
    drop_space = unit == CHARACTER and texts.lang in UNSPACED

    def prepare(text: str) -> str:
        text = normalize(text)
        return text.replace(" ", "") if drop_space else text

    references = [prepare(text) for text in texts.references]
    hypotheses = [prepare(text) for text in texts.hypotheses]
    if not any(references):
        raise SpireError(
            f"all {len(references)} references are empty after normalisation ({norm_name}): "
            "an error rate over no reference text is undefined"
        )
    process = jiwer.process_words if unit == WORD else jiwer.process_characters
    output = process(references, hypotheses)
    statistics = np.zeros((len(references), len(EDITS)), int)
    details: List[Dict[str, Any]] = []
    for row, chunks in zip(statistics, output.alignments, strict=True):
        alignment = []
        for chunk in chunks:
            places = (chunk.ref_start_idx, chunk.ref_end_idx)
            places += (chunk.hyp_start_idx, chunk.hyp_end_idx)
            letter = _LETTERS[chunk.type]
            row[_COLUMN[letter]] += max(places[1] - places[0], places[3] - places[2])
            alignment.append([letter, *places])
        details.append({"alignment": alignment})
    hits, substitutions, deletions, insertions = (int(n) for n in statistics.sum(axis=0))
    edits, units = substitutions + deletions + insertions, hits + substitutions + deletions
    fields = ["nrefs:1", f"norm:{norm_name}", f"unit:{unit}"]
    if unit == CHARACTER:
        fields.append("space:no" if drop_space else "space:yes")
    fields += ["tool:jiwer", f"version:{version('jiwer')}"]
    return Measured(
        value=100.0 * edits / units,
        signature="|".join(fields),
        counts={
            "hits": hits,
            "substitutions": substitutions,
            "deletions": deletions,
            "insertions": insertions,
            "reference_units": units,
            "utterances_with_errors": int((statistics[:, 1:].sum(axis=1) > 0).sum()),
            "empty_references": sum(1 for text in references if not text),
            "empty_hypotheses": sum(1 for text in hypotheses if not text),
        },
        statistics=statistics,
        compared=(references, hypotheses),
        details=details,
    )


def alignment_text(
    reference: str,
    hypothesis: str,
    alignment: Sequence[Sequence[Any]],
    *,
    unit: str,
    width: int = 100,
) -> str:
    """Reference above hypothesis with S, D and I beneath, in lines of at most ``width`` columns.

    Characters are as wide as a terminal shows them, so that columns of Chinese stay in line.

    Args:
        reference, hypothesis: as they were compared.
        alignment: see :func:`error_rate`.

    >>> print(alignment_text("a b", "a c d", [["=", 0, 1, 0, 1], ["S", 1, 2, 1, 2],
    ...                                       ["I", 2, 2, 2, 3]], unit="word"))
    REF: a b *
    HYP: a c d
           S I
    """
    words, said = (text.split() if unit == WORD else text for text in (reference, hypothesis))
    gap = " " if unit == WORD else ""
    lines: List[List[str]] = []
    used = width
    for kind, ref_start, ref_end, hyp_start, hyp_end in alignment:
        for i in range(max(ref_end - ref_start, hyp_end - hyp_start)):
            cell = ["", "", "" if kind == "=" else kind]
            cell[0] = words[ref_start + i] if ref_start + i < ref_end else ""
            cell[1] = said[hyp_start + i] if hyp_start + i < hyp_end else ""
            columns = max(map(_columns, cell))
            for side in (0, 1):
                cell[side] = cell[side] or "*" * columns
            if used + len(gap) + columns > width:
                lines.append(["REF: ", "HYP: ", "     "])
                used = len(lines[-1][0])
            else:
                lines[-1] = [line + gap for line in lines[-1]]
                used += len(gap)
            padded = [text + " " * (columns - _columns(text)) for text in cell]
            lines[-1] = [line + text for line, text in zip(lines[-1], padded, strict=True)]
            used += columns
    rows = [line.rstrip() for block in lines for line in block]
    return "\n".join(row for row in rows if row)


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
