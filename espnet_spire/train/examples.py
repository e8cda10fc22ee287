"""Prompts to token ids, and which of them carry loss."""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from espnet_spire.text.prompts import CHATML_TOKENS, Piece, Turn, chatml_pieces, chatml_prompt
from espnet_spire.units.notation import FIRST_CODE_POINT

IGNORE = -100


class Encoded(NamedTuple):
    """``input_ids``: token ids; ``loss_mask``: as long, True where the model learns to write."""

    input_ids: List[int]
    loss_mask: List[bool]


def forbidden_text(text: str, special_tokens: Sequence[str]) -> Optional[str]:
    """Why a text from a corpus cannot stand in an example, or ``None``.

    A transcript that holds the characters of units or the name of a special token would be read
    as those.
    """
    if any(ord(char) >= FIRST_CODE_POINT for char in text):
        return "text has private use characters, which stand for units"
    for token in special_tokens:
        if token in text:
            return f"text has the special token {token}"
    return None


def encode_plain(tokenizer, text: str) -> Encoded:
    """``<s> text </s>`` with loss on all of it (continued pre-training).

    The first token predicts nothing before it, so its mask is False.
    """
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return Encoded(ids, [False] + [True] * (len(ids) - 1))


def encode_pieces(tokenizer, pieces: Sequence[Piece]) -> Encoded:
    """Token ids of the joined pieces; loss on tokens that lie in target pieces.

    The text is tokenised as one string, as it will be when the model is used; offsets tell which
    tokens are targets. A token across a border belongs to where it begins.
    """
    text = "".join(piece.text for piece in pieces)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = np.cumsum([len(piece.text) for piece in pieces])
    starts = np.array([start for start, _ in encoding.offset_mapping])
    owner = np.searchsorted(ends, starts, side="right")
    is_target = np.array([piece.is_target for piece in pieces])[owner]
    return Encoded(
        [tokenizer.bos_token_id, *encoding.input_ids],
        [False, *is_target.tolist()],
    )


def encode_conversation(tokenizer, turns: Sequence[Turn]) -> Encoded:
    """ChatML with loss on the answers and their end tokens (instruction tuning)."""
    return encode_pieces(tokenizer, chatml_pieces(turns))


def encode_chatml_prompt(tokenizer, turns: Sequence[Turn]) -> List[int]:
    """Ids that a conversation is decoded from: a prefix of what training saw."""
    text = chatml_prompt(turns)
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]


def encode_plain_prompt(tokenizer, prompt: str) -> List[int]:
    """Ids that a plain prompt is decoded from."""
    return [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]


def special_tokens(tokenizer) -> List[str]:
    """Names that must not occur in a corpus."""
    # all_special_tokens has those with a role (BOS, EOS …) and not <PAD>, <SEP> and their like.
    added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    return sorted({*tokenizer.all_special_tokens, *added, *CHATML_TOKENS})
