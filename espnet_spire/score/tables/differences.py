"""Where a hypothesis differs from its reference, in pieces that can be coloured."""

from difflib import SequenceMatcher
from typing import Any, List, Mapping, Sequence

from espnet_spire.text.normalize import UNSPACED

# [kind, words of the reference, words of the hypothesis]; of what is equal the former alone.
Piece = List[str]
_KINDS = {"equal": "=", "replace": "S", "delete": "D", "insert": "I"}


def pieces_of_alignment(entry: Mapping[str, Any], *, characters: bool) -> List[Piece]:
    """The pieces of an error rate's alignment, in the texts that were compared."""
    compared = entry["compared"]
    sides = [compared["reference"], compared["hypothesis"]]
    tokens = [text if characters else text.split() for text in sides]
    return _pieces(entry["alignment"], tokens, "" if characters else " ")


def pieces_of_texts(reference: str, hypothesis: str, lang: str) -> List[Piece]:
    """The pieces of a comparison word by word; by characters where words are not set apart."""
    characters = lang in UNSPACED
    tokens = [text if characters else text.split() for text in (reference, hypothesis)]
    matcher = SequenceMatcher(None, *tokens, autojunk=False)
    places = [(_KINDS[name], *where) for name, *where in matcher.get_opcodes()]
    return _pieces(places, tokens, "" if characters else " ")


def _pieces(
    places: Sequence[Sequence[Any]], tokens: Sequence[Sequence[str]], gap: str
) -> List[Piece]:
    pieces = []
    for kind, ref_start, ref_end, hyp_start, hyp_end in places:
        reference = gap.join(tokens[0][ref_start:ref_end])
        hypothesis = gap.join(tokens[1][hyp_start:hyp_end])
        pieces.append([kind, reference, "" if kind == "=" else hypothesis])
    return pieces
