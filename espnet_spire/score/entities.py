"""Named entities: F1 of tag sequences, as Tower-Eval has it.

Answers are what TowerInstruct is taught to write: a list of words with their tags in the IOB2
scheme, ``[("Lima", "B-Location"), ("is", "O")]``. References are that, too, or the tags alone with
blanks between them, as data directories have them (``text.tags.<lang>``). Words are not compared:
the n-th tag of an answer is about the n-th word; what is beyond the reference is cut off, what is
lacking is outside of entities, and so is an answer that cannot be read. An entity counts as found
if its type and both of its ends are right.

Source: deep-spin/tower-eval, ``metrics/f1_sequence`` (``hypothesis_format: text-tuple-list``), and
conlleval (Tjong Kim Sang and De Meulder 2003), whose rules for tags out of order are kept: ``I-``
begins an entity where none of its type goes on.
"""

import re
from importlib.metadata import version
from typing import List, Sequence, Set, Tuple

import numpy as np

from espnet_spire.score.measured import Measured, Texts
from espnet_spire.text.prompts import ENTITIES
from espnet_spire.utils.errors import SpireError

# What Tower-Eval asks for and counts of MultiCoNER 2023 (its valid_ner_tags).
TOWER_TYPES = tuple(name for name, _ in ENTITIES)
OUTSIDE = "O"
_TAGS = re.compile(r"(?:O|[BI]-\S+)(?: (?:O|[BI]-\S+))*")
_PAIR = re.compile(r'\("(.*?)", "(.*?)"\)')

Entity = Tuple[str, int, int]


def read_tags(text: str) -> List[str]:
    """Tags of a list of pairs, in order; none if there is no pair in the text."""
    return [tag for _, tag in _PAIR.findall(text)]


def reference_tags(text: str) -> List[str]:
    """Tags of a reference: of pairs, or with blanks between them; none if it is neither."""
    return text.split(" ") if _TAGS.fullmatch(text) else read_tags(text)


def entities(tags: Sequence[str], types: Sequence[str] = TOWER_TYPES) -> Set[Entity]:
    """Entities of a sequence of tags: type, first word and the word after the last.

    >>> sorted(entities(["B-Person", "I-Person", "O", "I-Location"]))
    [('Location', 3, 4), ('Person', 0, 2)]
    """
    found = set()
    kind, start, ended = "", 0, False
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = tag.partition("-")
        if name not in types or len(prefix) != 1:
            prefix = name = ""
        begins = ended or prefix in ("B", "S") or name != kind
        if kind and (begins or not name):
            found.add((kind, start, place))
            kind = ""
        if name and begins:
            kind, start = name, place
        ended = prefix in ("E", "S")
    return found


def sequence_f1(texts: Texts, types: Sequence[str] = TOWER_TYPES) -> Measured:
    """F1 over the entities of all utterances, of all types together; counts have it by type.

    Statistics are (correct, predicted, true) entities.

    Raises:
        SpireError: a reference is no list of tags, or no entity is in any.
    """
    statistics = np.zeros((len(texts.keys), 3), int)
    by_type = {name: [0, 0, 0] for name in types}
    unreadable = 0
    for row, key, reference, hypothesis in zip(
        statistics, texts.keys, texts.references, texts.hypotheses, strict=True
    ):
        gold, given = reference_tags(reference), read_tags(hypothesis)
        if not gold:
            raise SpireError(
                f"reference of {key} is no list of tags such as 'B-Location O' or"
                f' [("Lima", "B-Location"), ("is", "O")]: {reference[:60]!r}'
            )
        unreadable += not given
        true, predicted = entities(gold, types), entities(given[: len(gold)], types)
        row[:] = len(true & predicted), len(predicted), len(true)
        for column, some in enumerate((true & predicted, predicted, true)):
            for name, _, _ in some:
                by_type[name][column] += 1
    correct, predicted, true = (int(n) for n in statistics.sum(axis=0))
    if not true:
        raise SpireError(f"no reference has an entity of type {', '.join(types)}")
    fields = ["nrefs:1", "scheme:iob2", f"types:{','.join(types)}", "align:cut"]
    fields += ["tool:espnet_spire", f"version:{version('espnet_spire')}"]
    return Measured(
        value=_f1(correct, predicted, true),
        signature="|".join(fields),
        counts={
            "correct": correct,
            "predicted": predicted,
            "true": true,
            "precision": 100.0 * correct / predicted if predicted else 0.0,
            "recall": 100.0 * correct / true,
            "f1_by_type": {name: _f1(*numbers) for name, numbers in by_type.items()},
            "unreadable_hypotheses": unreadable,
        },
        statistics=statistics,
    )


def _f1(correct: int, predicted: int, true: int) -> float:
    return 200.0 * correct / (predicted + true) if predicted + true else 0.0
