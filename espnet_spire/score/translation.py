"""BLEU, spBLEU, chrF, chrF++ and TER by sacreBLEU (Post 2018), on the text as it is.

The values, and the signatures, are those of the ``sacrebleu`` command. Statistics of an utterance
are taken from sacreBLEU's own objects (which keep them for its tests of significance), so that an
utterance is looked at once for its score, the corpus' and all resamples.
"""

import logging
import string
import unicodedata
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from espnet_spire.score.measured import Measured, Texts
from espnet_spire.score.statistics import BLEU_ORDER
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError

BLEU_TOKENIZERS = ("13a", "zh", "ja-mecab", "ko-mecab", "intl", "char", "none")
_BLEU_TOKENIZER_OF = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
FLORES200_URL = "https://tinyurl.com/flores200sacrebleuspm"
# Of FLORES-200's SentencePiece model (flores200_sacrebleu_tokenizer_spm.model, as the hub has it).
FLORES200_SHA256 = "14bb8dfb35c0ffdea7bc01e56cea38b9e3d5efcdcb9c251d6b40538e1aab555a"


def bleu_tokenizer(lang: str) -> str:
    """SacreBLEU's tokenizer for a target language: 13a unless it has one of its own."""
    return _BLEU_TOKENIZER_OF.get(lang, "13a")


def bleu(texts: Texts, tokenize: Optional[str] = None, *, lowercase: bool = False) -> Measured:
    """Corpus BLEU.

    Args:
        tokenize: one of ``BLEU_TOKENIZERS``; by default that of the language.
        lowercase: compare without case.

    Raises:
        SpireError: a tokenizer whose packages are not installed.
    """
    from sacrebleu.metrics import BLEU

    tokenize = tokenize or bleu_tokenizer(texts.lang)
    if tokenize not in BLEU_TOKENIZERS:
        raise SpireError(
            f"BLEU tokenizer {tokenize!r} is unknown; known are {', '.join(BLEU_TOKENIZERS)}"
        )
    try:
        metric = BLEU(tokenize=tokenize, lowercase=lowercase)
    except RuntimeError:
        extra = tokenize.split("-")[0]
        raise SpireError(
            f"BLEU tokenizer {tokenize!r} needs packages that are not installed: "
            f"pip install 'sacrebleu[{extra}]', or choose another with --tokenize (char, 13a)"
        ) from None
    return _bleu(texts, metric)


def plain_bleu(texts: Texts, tokenize: Optional[str] = None) -> Measured:
    """BLEU of lower-cased text without punctuation, as IWSLT's low-resource tasks are scored.

    Deleted are ASCII's punctuation and whatever Unicode calls so (category P); the signature says
    ``punct:no``. The evaluation's own script is not public; this is its description.

    Source: the low-resource track of IWSLT 2025, and GMU's systems in it (arXiv 2505.21781).
    """
    references, hypotheses = (
        [_without_punctuation(text) for text in side] for side in _sides(texts)
    )
    bare = Texts(texts.keys, references, hypotheses, texts.lang)
    found = bleu(bare, tokenize, lowercase=True)
    signature = found.signature.replace("|tok:", "|punct:no|tok:")
    return Measured(
        found.value, signature, found.counts, found.statistics, (references, hypotheses)
    )


def _without_punctuation(text: str) -> str:
    kept = (c for c in text if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return " ".join("".join(kept).split())


def flores200_file(given: Optional[PathLike] = None) -> Path:
    """FLORES-200's SentencePiece model: the file given, or what sacreBLEU has downloaded.

    Raises:
        SpireError: it is not there; the message says what to do.
    """
    if given:
        path = Path(given)
        if not path.is_file():
            raise SpireError(f"--spm_model {path}: no such file")
        return path
    from sacrebleu.utils import SACREBLEU_DIR

    path = Path(SACREBLEU_DIR) / "models" / FLORES200_URL.rsplit("/", 1)[1]
    if not path.is_file():
        raise SpireError(
            f"spBLEU needs FLORES-200's SentencePiece model: download {FLORES200_URL} to {path}"
            " ($SACREBLEU/models), or name the file with --spm_model"
        )
    return path


def spbleu(texts: Texts, spm_model: Optional[PathLike] = None) -> Measured:
    """BLEU over the pieces of FLORES-200's SentencePiece model: ``tok:flores200``.

    Args:
        spm_model: see :func:`flores200_file`.

    Raises:
        SpireError: the model is not there or none of SentencePiece's.
    """
    from sacrebleu.metrics import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import TokenizerSPM
    from sentencepiece import SentencePieceProcessor

    path = flores200_file(spm_model)

    class LocalFlores200(TokenizerSPM):
        """SacreBLEU's tokenizer with a file that is here: its own would download one."""

        def __init__(self) -> None:
            self.name = "flores200"
            self.sp = SentencePieceProcessor()
            self.sp.Load(str(path))

    digest = file_sha256(path)
    if digest != FLORES200_SHA256:
        logging.warning(
            f"{path} is not FLORES-200's SentencePiece model as it was published (SHA-256"
            f" {digest[:12]}…, expected {FLORES200_SHA256[:12]}…): spBLEU would not be comparable"
        )
    metric = BLEU(tokenize="none")
    try:
        metric.tokenizer = LocalFlores200()
    except (OSError, RuntimeError) as error:
        raise SpireError(f"{path}: no SentencePiece model ({error})") from None
    metric.tokenizer_signature = metric.tokenizer.signature()
    found = _bleu(texts, metric)
    found.counts["spm_sha256"] = digest
    return found


def chrf(texts: Texts, *, word_order: int = 0) -> Measured:
    """Corpus chrF2, or chrF2++ with ``word_order`` 2 (Popović 2015, 2017)."""
    from sacrebleu.metrics import CHRF

    value, signature, statistics = _measure(CHRF(word_order=word_order), texts)
    references, hypotheses = _sides(texts)
    counts = {
        "hypothesis_characters": sum(len("".join(text.split())) for text in hypotheses),
        "reference_characters": sum(len("".join(text.split())) for text in references),
    }
    return Measured(value, signature, counts, statistics)


def ter(texts: Texts) -> Measured:
    """Translation edit rate (Snover et al. 2006) with TERCOM's defaults, as sacreBLEU has them."""
    from sacrebleu.metrics import TER

    value, signature, statistics = _measure(TER(), texts)
    edits, words = (int(n) for n in statistics.sum(axis=0))
    return Measured(value, signature, {"edits": edits, "reference_words": words}, statistics)


def _sides(texts: Texts) -> Tuple[List[str], List[str]]:
    # As the command reads its files.
    return [t.rstrip() for t in texts.references], [t.rstrip() for t in texts.hypotheses]


def _measure(metric, texts: Texts) -> Tuple[float, str, np.ndarray]:
    """Value, signature and statistics of one of sacreBLEU's metrics."""
    references, hypotheses = _sides(texts)
    metric._force = True  # no advice about text that looks tokenized
    statistics = metric._extract_corpus_statistics(hypotheses, [references])
    value = float(metric._aggregate_and_compute(statistics).score)
    # sacreBLEU's geometric mean of four ones is 100.00000000000004
    value = 100.0 if 100.0 < value < 100.0 + 1e-9 else value
    return value, str(metric.get_signature()), np.array(statistics)


def _bleu(texts: Texts, metric) -> Measured:
    value, signature, statistics = _measure(metric, texts)
    sums = [int(n) for n in statistics.sum(axis=0)]
    lengths, correct, total = sums[:2], sums[2 : 2 + BLEU_ORDER], sums[2 + BLEU_ORDER :]
    references, hypotheses = _sides(texts)
    counts = {
        "ngrams_correct": correct,
        "ngrams_total": total,
        "brevity_penalty": float(metric.compute_bleu([*correct], [*total], *lengths).bp),
        "hypothesis_tokens": lengths[0],
        "reference_tokens": lengths[1],
        "empty_references": sum(1 for text in references if not text),
        "empty_hypotheses": sum(1 for text in hypotheses if not text),
    }
    return Measured(value, signature, counts, statistics)
