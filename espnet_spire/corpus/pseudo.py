"""Pseudo-labels: translate transcripts with a causal LM, keep what scores well.

Paper, section 3.3.1: translations of ASR transcripts by TowerInstruct-13B, kept when their
reference-free quality score reaches 0.85. Which of them become direct and which multi-turn
prompts is decided by the mixture (``range``).
"""

from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

from espnet_spire.text import prompts
from espnet_spire.text.defuse import defused_table
from espnet_spire.train.examples import (
    encode_chatml_prompt,
    encode_plain_prompt,
    special_tokens,
)
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import (
    REJECTED,
    TEXT,
    iter_table,
    read_table,
    shard_of,
    translation_file,
    write_rejected,
    write_table,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.shards import join_tables, remove_shards, shard_file

# Reference-free quality of translations: (sources, translations, src, tgt) → scores in [0, 1].
Scorer = Callable[[Sequence[str], Sequence[str], str, str], List[float]]

SCORES = "scores"
PROMPT_STYLES = ("plain", "chatml")


class Labelled(NamedTuple):
    """``translation`` and ``score`` by utterance."""

    translation: Dict[str, str]
    score: Dict[str, float]


def translate(
    generator, texts: Dict[str, str], src: str, tgt: str, *, style: str
) -> Dict[str, str]:
    """Translate by utterance; an answer cut at the limit gives an empty translation.

    Args:
        generator: an :class:`espnet_spire.decode.generate.Generator`.
        style: ``chatml`` for instruction-tuned models, ``plain`` for base models.
    """
    tokenizer = generator.tokenizer
    if style == "chatml":
        turns = [
            [prompts.Turn("user", prompts.mt_instruction(src, tgt, text))]
            for text in texts.values()
        ]
        try:
            ids = [encode_chatml_prompt(tokenizer, turn) for turn in turns]
        except SpireError as error:
            raise SpireError(f"{error}, or --prompt_style plain") from None
    else:
        ids = [
            encode_plain_prompt(tokenizer, prompts.mt_plain_prompt(src, tgt, text))
            for text in texts.values()
        ]
    answers = generator(ids, f"translate {src}-{tgt}")
    return {
        key: "" if answer.cut else generator.text(answer)
        for key, answer in zip(texts, answers, strict=True)
    }


def label(
    generator,
    scorer: Scorer,
    data_dir: PathLike,
    outs: Dict[str, PathLike],
    *,
    src: str,
    style: str,
    num_shards: int,
    shard: int,
) -> None:
    """Translate and score (a shard of) a data directory; one part for each target language."""
    texts = read_table(Path(data_dir) / TEXT)
    texts = {key: texts[key] for key in shard_of(list(texts), num_shards, shard)}
    # What is scored is what was translated.
    texts = defused_table(texts, special_tokens(generator.tokenizer), str(data_dir))
    for tgt, out in outs.items():
        parts = [shard_file(Path(out) / name, num_shards, shard) for name in (TEXT, SCORES)]
        if all(part.exists() for part in parts):
            continue
        translations = translate(generator, texts, src, tgt, style=style)
        scores = scorer(list(texts.values()), list(translations.values()), src, tgt)
        write_table(parts[0], translations)
        write_table(
            parts[1], {key: f"{score:.4f}" for key, score in zip(texts, scores, strict=True)}
        )


def select(
    data_dir: PathLike, out: PathLike, tgt: str, *, threshold: float, num_shards: int
) -> float:
    """Join the parts, keep what scores at least ``threshold``, list the rest.

    Leaves ``text.tc.<tgt>``, ``scores`` and ``rejected.tsv``.

    Returns:
        the share that was kept.
    """
    out = Path(out)
    translations = join_tables(out / TEXT, num_shards)
    scores = {key: float(value) for key, value in join_tables(out / SCORES, num_shards).items()}
    for key, _ in iter_table(Path(data_dir) / TEXT):
        if key not in translations:
            raise SpireError(f"{out}: utterance {key} of {data_dir} was not translated; run again")
    rejected = {}
    for key, translation in translations.items():
        if not translation:
            rejected[key] = "no translation within the limit of new tokens"
        elif scores[key] < threshold:
            rejected[key] = f"score {scores[key]:.4f} is below {threshold}: {translation}"
    kept = {key: text for key, text in translations.items() if key not in rejected}
    write_rejected(out / REJECTED, rejected)
    if not kept:
        raise SpireError(
            f"{out}: no translation scores {threshold}; see {out / REJECTED} and --threshold"
        )
    write_table(out / SCORES, {key: f"{score:.4f}" for key, score in scores.items()})
    write_table(out / translation_file(tgt), kept)
    remove_shards([out / TEXT, out / SCORES], num_shards)
    return len(kept) / len(translations)
