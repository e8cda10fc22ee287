"""A small instruction set in the manner of TowerBlocks, from the mini grammar.

Most of it is translation both ways between English and German, French, Chinese, with SPIRE's own
MT prompt; a tenth each asks which person and place a sentence names, and to mend a broken
translation. The form is ShareGPT's, as in Unbabel/TowerBlocks-v0.2: one JSON object a line with
``conversations`` (from ``human`` and ``gpt``), ``lang``, ``split``, ``dataset``, ``task``.
"""

import json
from typing import Any, Dict, List, Sequence

import numpy as np

from espnet_spire.mini.grammar import LANGS, SIZES, SLOTS, parts_of, phrases, render, sentence
from espnet_spire.text.languages import language_name
from espnet_spire.text.prompts import mt_instruction
from espnet_spire.utils.errors import SpireError

DATASET = "mini_grammar"
MT, NER, APE = "general_mt", "named_entity_recognition", "automatic_post_editing"
NER_SHARE = APE_SHARE = 0.1
FOREIGN = tuple(lang for lang in LANGS if lang != "en")
MT_PAIRS = tuple(("en", lang) for lang in FOREIGN) + tuple((lang, "en") for lang in FOREIGN)

Block = Dict[str, Any]


def _block(human: str, answer: str, lang: str, task: str) -> Block:
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
    return {
        "conversations": turns,
        "lang": lang,
        "split": "train",
        "dataset": DATASET,
        "task": task,
    }


def translation_block(index: int, source: str, target: str) -> Block:
    """Translate sentence ``index``."""
    texts = sentence(index)
    prompt = mt_instruction(source, target, texts[source])
    return _block(prompt, texts[target], f"{source}-{target}", MT)


def entity_block(index: int, lang: str) -> Block:
    """Name the person and the place of sentence ``index``, in its own words."""
    parts = parts_of(index)
    name, phrase = language_name(lang), phrases(parts, lang)
    prompt = f"Which person and which place are named in this text?\n{name}: {render(parts, lang)}"
    answer = f"person: {phrase['subject']}\nplace: {phrase['place']}"
    return _block(prompt + "\nEntities:", answer, lang, NER)


def post_editing_block(index: int, target: str, slot: str, shift: int) -> Block:
    """Mend a translation from English in which one slot says something else.

    Args:
        index: the sentence.
        target: language of the translation.
        slot: which of SLOTS is wrong.
        shift: the wrong phrase is so many places further on in the grammar's list.
    """
    texts, parts, name = sentence(index), parts_of(index), language_name(target)
    size = SIZES[SLOTS.index(slot)]
    wrong = parts._replace(**{slot: (getattr(parts, slot) + shift) % size})
    prompt = (
        f"Correct the following translation from English to {name}.\n"
        f"English: {texts['en']}\nTranslation: {render(wrong, target)}\n{name}:"
    )
    return _block(prompt, texts[target], f"en-{target}", APE)


def build_blocks(indices: Sequence[int], num_examples: int, seed: int) -> List[Block]:
    """Draw the instruction set.

    Args:
        indices: sentences of the grammar that may be used.
        num_examples: how many examples in all; languages and pairs come equally often.
        seed: of the draw and of the order.

    Raises:
        SpireError: fewer than one or no sentence to draw from.
    """
    if num_examples < 1 or not indices:
        raise SpireError(
            f"{num_examples} instructions from {len(indices)} sentences: both must be at least 1"
        )
    rng = np.random.default_rng([seed, num_examples])
    num_ner, num_ape = int(NER_SHARE * num_examples), int(APE_SHARE * num_examples)
    # Each sentence once before any comes a second time.
    rounds = -(-num_examples // len(indices))
    drawn = [int(i) for _ in range(rounds) for i in rng.permutation(list(indices))][:num_examples]
    blocks = []
    for number, index in enumerate(drawn):
        if number < num_ner:
            blocks.append(entity_block(index, LANGS[number % len(LANGS)]))
        elif number < num_ner + num_ape:
            slot = SLOTS[int(rng.integers(len(SLOTS)))]
            shift = int(rng.integers(1, SIZES[SLOTS.index(slot)]))
            target = FOREIGN[number % len(FOREIGN)]
            blocks.append(post_editing_block(index, target, slot, shift))
        else:
            blocks.append(translation_block(index, *MT_PAIRS[number % len(MT_PAIRS)]))
    return [blocks[position] for position in rng.permutation(len(blocks))]


def dump_blocks(blocks: Sequence[Block]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(block, ensure_ascii=False) + "\n" for block in blocks)
