"""Pseudo-labels: translate transcripts with a causal LM, keep what scores well.

Paper, section 3.3.1: 300K transcripts of each ASR corpus are translated by TowerInstruct-13B, and
translations are kept when their reference-free quality score reaches 0.85. Which of them become
direct and which multi-turn prompts is decided by the mixture (``range``).

Jobs leave nothing but results by content: a translation is kept by model, prompt and limit, a score
by scorer and pair. What was translated once is never translated again: not after a kill, nor with
another threshold, more utterances, more languages or another number of jobs, nor where corpora
share a transcript. :func:`select` makes the tables from what is kept.
"""

import heapq
import math
from pathlib import Path
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np

from espnet_spire.corpus.scorers import Scorer
from espnet_spire.decode.answers import Answerer, Prompt
from espnet_spire.text import prompts
from espnet_spire.text.defuse import defused_table
from espnet_spire.train.selection import sample_position
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cache import ContentCache, content_key
from espnet_spire.utils.datadir import (
    REJECTED,
    TEXT,
    iter_table,
    translation_file,
    write_rejected,
    write_table,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

SCORES = "scores"
PROMPT_STYLES = ("plain", "chatml")
# Of the histogram of scores, from 0 to 1; 0.85 is a border.
BINS = 40
# Pairs that are scored, and then kept, at a time.
_SCORED_TOGETHER = 256
# Hidden, so that steps neither read it as an input nor move it aside.
_CACHE = ".cache"


class Settings(NamedTuple):
    """What translations and scores depend on.

    ``style``: ``chatml`` for instruction-tuned models, ``plain`` for base models. ``translator``
    and ``scorer``: JSON that tells them from others. ``special_tokens``: names that a transcript
    must not hold.
    """

    src: str
    style: str
    translator: Any
    scorer: Any
    max_new_tokens: int
    special_tokens: Sequence[str]

    def prompt(self, tgt: str, text: str) -> Prompt:
        """What the translator is asked."""
        if self.style == "plain":
            return prompts.mt_plain_prompt(self.src, tgt, text)
        return [prompts.Turn("user", prompts.mt_instruction(self.src, tgt, text))]

    def translation_key(self, tgt: str, text: str) -> str:
        """What a translation is kept by; the prompt has style, languages and text."""
        return content_key(self.translator, self.max_new_tokens, self.prompt(tgt, text))

    def score_key(self, tgt: str, text: str, translation: str) -> str:
        """What a score is kept by."""
        return content_key(self.scorer, self.src, tgt, text, translation)


class Translation(NamedTuple):
    """``tokens``: of the translator's vocabulary; ``cut``: the limit came before the end."""

    text: str
    tokens: int
    cut: bool

    @property
    def is_usable(self) -> bool:
        """Whether it came to an end and says anything."""
        return bool(self.text) and not self.cut


class Counts(NamedTuple):
    """Of a corpus and language.

    ``utterances`` in the corpus, of which ``selected`` were translated (``tokens`` in all);
    ``texts`` of those differ. ``cut`` came to no end, ``empty`` say nothing; ``scored`` have a
    score (``total`` is their sum, ``histogram`` has :data:`BINS` bins over 0 to 1), ``kept`` reach
    the threshold.
    """

    corpus: str
    lang: str
    utterances: int
    selected: int
    texts: int
    tokens: int
    cut: int
    empty: int
    scored: int
    kept: int
    total: float
    histogram: List[int]


def select_utterances(
    keys: Iterable[str], max_utterances: Optional[int], seed: int
) -> Tuple[set, int]:
    """A random sample of keys, and how many there were.

    It depends on the keys and the seed, not on their order, and a larger one has all of a smaller.

    Args:
        max_utterances: size of the sample; ``None`` for all.
    """
    if max_utterances is None:
        chosen = set(keys)
        return chosen, len(chosen)
    total = 0

    def places() -> Iterator[Tuple[float, str]]:
        nonlocal total
        for key in keys:
            total += 1
            # Not the places by which mixtures divide: halves of the sample must be halves.
            yield sample_position(seed, "pseudo", key), key

    chosen = heapq.nsmallest(max_utterances, places())
    return {key for _, key in chosen}, total


def read_texts(
    data_dir: PathLike, settings: Settings, max_utterances: Optional[int], seed: int
) -> Tuple[Dict[str, str], int]:
    """The transcripts to be translated, by utterance, and how many the corpus has.

    What could be read as units or special tokens is defused: what is scored is what was translated.
    """
    path = Path(data_dir) / TEXT
    chosen, total = select_utterances((key for key, _ in iter_table(path)), max_utterances, seed)
    texts = {key: text for key, text in iter_table(path) if key in chosen}
    return defused_table(texts, settings.special_tokens, str(data_dir)), total


def label(
    settings: Settings,
    texts: Iterable[str],
    out: PathLike,
    tgts: Sequence[str],
    make_translator: Callable[[], Answerer],
    make_scorer: Callable[[], Scorer],
    *,
    num_shards: int,
    shard: int,
) -> None:
    """Translate and score (a shard of) the texts that this was not done for.

    A text belongs to one shard wherever it occurs.

    Args:
        texts: transcripts; of equal ones, one is translated.
        out: directory of the pseudo-labels.
        tgts: target languages.
        make_translator, make_scorer: called when the first text needs them.

    Raises:
        SpireError: a base model was given ChatML prompts, a score is no number.
    """
    ours = [text for text in dict.fromkeys(texts) if _shard(text, num_shards) == shard]
    for tgt in tgts:
        job = f"{shard}-of-{num_shards}"
        with _Caches(out, settings.src, tgt, job) as caches:
            translations = _translate(
                settings, ours, tgt, caches.translations, make_translator, make_scorer
            )
            _score(settings, ours, translations, tgt, caches.scores, make_scorer)


def _shard(text: str, num_shards: int) -> int:
    return int(content_key(text), 16) % num_shards + 1


class _Caches:
    """Translations and scores of a language pair."""

    def __init__(self, out: PathLike, src: str, tgt: str, job: str = "") -> None:
        root = Path(out) / _CACHE
        self.translations = ContentCache(root / "translations" / f"{src}-{tgt}", job)
        self.scores = ContentCache(root / "scores" / f"{src}-{tgt}", job)

    def __enter__(self) -> "_Caches":
        return self

    def __exit__(self, *_) -> None:
        self.translations.close()
        self.scores.close()


def _translate(
    settings: Settings,
    texts: List[str],
    tgt: str,
    cache: ContentCache,
    make_translator,
    make_scorer,
) -> Dict[str, Translation]:
    """Translations by text."""
    keys = {settings.translation_key(tgt, text): text for text in texts}
    done = {keys[key]: Translation(*value) for key, value in cache.known(keys).items()}
    missing = [(key, text) for key, text in keys.items() if text not in done]
    if not missing:
        return done
    # Days of translating do not end with a scorer that is not there.
    make_scorer()
    translator = make_translator()
    asked = [settings.prompt(tgt, text) for _, text in missing]
    try:
        translator.encode(asked[0])
    except SpireError as error:
        raise SpireError(f"{error}, or --prompt_style plain") from None
    bar = progress(
        total=len(texts), initial=len(done), desc=f"translate {settings.src}-{tgt}", unit="text"
    )
    with bar:
        for batch in translator.stream(asked):
            found = {}
            for index, answer in batch:
                key, text = missing[index]
                done[text] = Translation(translator.text(answer), len(answer.ids), answer.cut)
                found[key] = list(done[text])
            cache.add(found)
            bar.update(len(batch))
    return done


def _score(
    settings: Settings,
    texts: List[str],
    translations: Dict[str, Translation],
    tgt: str,
    cache: ContentCache,
    make_scorer,
) -> None:
    pairs = {}
    for text in texts:
        if translations[text].is_usable:
            pair = text, translations[text].text
            pairs[settings.score_key(tgt, *pair)] = pair
    known = cache.known(pairs)
    missing = [(key, *pair) for key, pair in pairs.items() if key not in known]
    if not missing:
        return
    scorer = make_scorer()
    bar = progress(
        total=len(pairs), initial=len(known), desc=f"score {settings.src}-{tgt}", unit="text"
    )
    with bar:
        for start in range(0, len(missing), _SCORED_TOGETHER):
            keys, sources, targets = zip(*missing[start : start + _SCORED_TOGETHER], strict=True)
            scores = scorer(sources, targets, settings.src, tgt)
            found = dict(zip(keys, scores, strict=True))
            for key, source in zip(keys, sources, strict=True):
                if not math.isfinite(found[key]):
                    raise SpireError(f"the score of {source!r} into {tgt} is {found[key]}")
            cache.add(found)
            bar.update(len(keys))


def select(
    settings: Settings,
    data_dir: PathLike,
    texts: Dict[str, str],
    out: PathLike,
    tgt: str,
    *,
    threshold: float,
    utterances: int,
) -> Counts:
    """Keep what scores at least ``threshold``, list the rest.

    Leaves ``text.tc.<tgt>``, ``scores`` and ``rejected.tsv`` in ``<out>/<data dir's name>.<tgt>``.

    Args:
        texts: what :func:`read_texts` gave for the data directory; ``utterances`` too.

    Raises:
        SpireError: a job has not finished.
    """
    corpus = Path(data_dir).name
    where = Path(out) / f"{corpus}.{tgt}"
    caches = _Caches(out, settings.src, tgt)
    keys = {key: settings.translation_key(tgt, text) for key, text in texts.items()}
    known = caches.translations.known(set(keys.values()))
    translations: Dict[str, Translation] = {}
    for key, content in keys.items():
        if content not in known:
            raise SpireError(
                f"{where}: utterance {key} of {data_dir} was not translated: a job has not"
                " finished; run it again"
            )
        translations[key] = Translation(*known[content])
    usable = {key: item.text for key, item in translations.items() if item.is_usable}
    pairs = {key: settings.score_key(tgt, texts[key], text) for key, text in usable.items()}
    known = caches.scores.known(set(pairs.values()))
    for key, content in pairs.items():
        if content not in known:
            raise SpireError(
                f"{where}: the translation of utterance {key} was not scored: a job has not"
                " finished; run it again"
            )
    # As they are written: whoever reads the list finds the rule in it.
    scores = {key: round(known[content], 4) for key, content in pairs.items()}
    rejected = {}
    for key, item in translations.items():
        if item.cut:
            rejected[key] = "no translation within the limit of new tokens"
        elif not item.text:
            rejected[key] = "the translation is empty"
        elif scores[key] < threshold:
            rejected[key] = f"score {scores[key]:.4f} is below {threshold}: {item.text}"
    write_rejected(where / REJECTED, rejected)
    write_table(where / SCORES, {key: f"{score:.4f}" for key, score in scores.items()})
    kept = {key: text for key, text in usable.items() if key not in rejected}
    write_table(where / translation_file(tgt), kept)
    return Counts(
        corpus=corpus,
        lang=tgt,
        utterances=utterances,
        selected=len(texts),
        texts=len(set(texts.values())),
        tokens=sum(item.tokens for item in translations.values()),
        cut=sum(item.cut for item in translations.values()),
        empty=sum(not item.text and not item.cut for item in translations.values()),
        scored=len(scores),
        kept=len(kept),
        total=math.fsum(scores.values()),
        histogram=_histogram(scores.values()),
    )


def _histogram(scores: Collection[float]) -> List[int]:
    """How many scores (of four decimals) fall into each bin; those outside into the outermost."""
    # Whole numbers: 0.85 is at the border of a bin, and not by rounding below it.
    values = np.rint(10_000 * np.fromiter(scores, float, len(scores))).astype(np.int64)
    return np.bincount((values * BINS // 10_000).clip(0, BINS - 1), minlength=BINS).tolist()
