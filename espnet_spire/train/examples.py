"""Prompts to token ids, and which of them carry loss.

Units are never tokenised: a text has one unit character where the units belong, and the ids of all
of them, which follow each other in the vocabulary, take its place. The rest of the text is
tokenised by the tokenizer's own fast code, many texts at a time.
"""

import bisect
import functools
import itertools
import re
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.text.prompts import CHATML_TOKENS, Piece, Turn, chatml_prompt
from espnet_spire.units.notation import UNIT_CHARS, unit_to_char
from espnet_spire.utils.errors import SpireError

IGNORE = -100


class Encoded(NamedTuple):
    """``input_ids``: shape (N,); ``target_spans``: shape (S, 2), ``[start, end)`` with loss."""

    input_ids: np.ndarray
    target_spans: np.ndarray


class Encoder(NamedTuple):
    """What there is to know of a tokenizer; it can be sent to another process.

    ``backend``: a ``tokenizers.Tokenizer``; ``bos`` is ``None`` where the tokenizer has none;
    ``first_unit`` is ``None`` before the vocabulary was extended.
    """

    backend: Any
    bos: Optional[int]
    eos: int
    first_unit: Optional[int]
    num_units: int
    specials: Tuple[str, ...]


class Rendered(NamedTuple):
    """A text with at most one unit character to be replaced.

    ``targets``: characters ``[start, end)`` that the model learns to write; ``None``: all of it is
    learned, between BOS and EOS (plain). ``units``: what takes the unit character's place.
    """

    text: str
    targets: Optional[List[Tuple[int, int]]]
    units: Optional[np.ndarray] = None


class Tokens(NamedTuple):
    """Ids of one :class:`Rendered`, the units not yet in it.

    ``place``: where the unit character stands, -1 if there is none; ``spans``: tokens that are
    learned, flat, ``None`` for all; ``cut``: an end was cut off, so that no EOS follows.
    """

    ids: List[int]
    place: int
    spans: Optional[List[int]]
    units: Optional[np.ndarray]
    cut: bool = False


class Ragged(NamedTuple):
    """Rows one after the other: row i is ``values[offsets[i] : offsets[i + 1]]``; both int32."""

    values: np.ndarray
    offsets: np.ndarray


def encoder_of(tokenizer) -> Encoder:
    """Look into a Hugging Face tokenizer.

    Raises:
        SpireError: it is not a fast one, or has no EOS.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise SpireError(
            f"{tokenizer.name_or_path}: not a fast tokenizer; it must have a tokenizer.json"
        )
    if tokenizer.eos_token_id is None:
        raise SpireError(f"{tokenizer.name_or_path}: the tokenizer has no eos_token")
    vocabulary = tokenizer.get_vocab()
    first = vocabulary.get(unit_to_char(0))
    count = 0
    while first is not None and vocabulary.get(unit_to_char(count)) == first + count:
        count += 1
    return Encoder(
        backend,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        first,
        count,
        tuple(special_tokens(tokenizer)),
    )


def render_pieces(pieces: Sequence[Piece], units: Optional[np.ndarray] = None) -> Rendered:
    """Join pieces; neighbouring targets become one."""
    targets: List[Tuple[int, int]] = []
    end = 0
    for text, is_target in pieces:
        start, end = end, end + len(text)
        if is_target and targets and targets[-1][1] == start:
            targets[-1] = (targets[-1][0], end)
        elif is_target:
            targets.append((start, end))
    return Rendered("".join(piece.text for piece in pieces), targets, units)


def tokenize(encoder: Encoder, rendered: Sequence[Rendered]) -> List[Tokens]:
    """Token ids of texts, and which tokens are learned.

    Each text is tokenised as one string, as it will be when the model is used; offsets tell which
    tokens are targets. A token across a border belongs to where it begins.
    """
    backend = encoder.backend
    backend.no_truncation()
    backend.no_padding()
    texts = [item.text for item in rendered]
    # without offsets, which plain texts do not need, it is twice as fast
    plain = all(item.targets is None for item in rendered)
    encode = backend.encode_batch_fast if plain else backend.encode_batch
    result = []
    for item, encoding in zip(rendered, encode(texts, add_special_tokens=False), strict=True):
        ids, spans = encoding.ids, None
        if item.targets is not None:
            starts = [start for start, _ in encoding.offsets]
            spans = []
            for span in item.targets:
                begin, end = (bisect.bisect_left(starts, place) for place in span)
                if begin < end:
                    spans += [begin, end]
        has_units = item.units is not None and len(item.units) > 0
        place = ids.index(encoder.first_unit) if has_units else -1
        result.append(Tokens(ids, place, spans, item.units if has_units else None))
    return result


def full_length(encoder: Encoder, tokens: Tokens) -> int:
    """How many ids an example will have, with its units, BOS and EOS."""
    units = 0 if tokens.units is None else len(tokens.units) - 1
    ends = (encoder.bos is not None) + (tokens.spans is None and not tokens.cut)
    return len(tokens.ids) + units + ends


def cut_off(encoder: Encoder, tokens: Tokens, max_length: int) -> Tokens:
    """The first ``max_length`` ids of a plain text without units, and no EOS after them."""
    return tokens._replace(ids=tokens.ids[: max_length - (encoder.bos is not None)], cut=True)


def assemble(encoder: Encoder, batch: Sequence[Tokens]) -> Tuple[Ragged, Ragged]:
    """``input_ids`` and ``target_spans`` (flat: start, end, start, …) of examples.

    The first token predicts nothing before it, so no span has it.
    """
    count = len(batch)
    sizes = np.fromiter((len(tokens.ids) for tokens in batch), np.int64, count)
    places = np.fromiter((tokens.place for tokens in batch), np.int64, count)
    plain = np.fromiter((tokens.spans is None for tokens in batch), bool, count)
    closed = plain & ~np.fromiter((tokens.cut for tokens in batch), bool, count)
    units = [tokens.units for tokens in batch if tokens.units is not None]
    unit_sizes = np.zeros(count, np.int64)
    unit_sizes[places >= 0] = [len(row) for row in units]
    extra = np.where(places >= 0, unit_sizes - 1, 0)
    lead = int(encoder.bos is not None)
    lengths = lead + sizes + extra + closed
    offsets = _offsets(lengths)

    ids = np.empty(offsets[-1], np.int32)
    if lead:
        ids[offsets[:-1]] = encoder.bos
    ids[offsets[1:][closed] - 1] = encoder.eos
    owner = np.repeat(np.arange(count), sizes)
    within = np.arange(len(owner)) - np.repeat(_offsets(sizes)[:-1], sizes)
    begins = offsets[:-1] + lead
    place = begins[owner] + within + np.where(within > places[owner], extra[owner], 0)
    ids[place] = np.fromiter(
        itertools.chain.from_iterable(tokens.ids for tokens in batch), np.int32, len(owner)
    )
    if units:
        # over the one character that stood for them
        starts = (begins + places)[places >= 0] - _offsets(unit_sizes)[:-1][places >= 0]
        number = np.arange(int(unit_sizes.sum()))
        ids[np.repeat(starts, unit_sizes[places >= 0]) + number] = encoder.first_unit + (
            np.concatenate(units)
        )

    spans = [[] if tokens.spans is None else tokens.spans for tokens in batch]
    span_sizes = np.fromiter(map(len, spans), np.int64, count)
    owner = np.repeat(np.arange(count), span_sizes)
    inside = np.fromiter(itertools.chain.from_iterable(spans), np.int64, len(owner))
    inside = inside + lead + np.where(inside > places[owner], extra[owner], 0)
    if not plain.any():
        return Ragged(ids, offsets), Ragged(inside.astype(np.int32), _offsets(span_sizes))
    whole = np.stack([np.ones(count, np.int64), lengths], axis=1)
    if not plain.all():
        raise ValueError("plain examples and conversations are not assembled together")
    return (
        Ragged(ids, offsets),
        Ragged(whole.reshape(-1).astype(np.int32), 2 * np.arange(count + 1, dtype=np.int32)),
    )


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def encode_plain(tokenizer, text: str) -> Encoded:
    """``<s> text </s>`` with loss on all of it but the first token (continued pre-training)."""
    # units are tokenised as any other text here: encoder_of looks for them for a long time
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoder = Encoder(tokenizer.backend_tokenizer, *ends, None, 0, ())
    ids, spans = assemble(encoder, tokenize(encoder, [Rendered(text, None)]))
    return Encoded(ids.values, spans.values.reshape(-1, 2))


def encode_chatml_prompt(tokenizer, turns: Sequence[Turn]) -> List[int]:
    """Ids that a conversation is decoded from: a prefix of what training saw.

    Raises:
        SpireError: the tokenizer does not know the tokens of ChatML.
    """
    ids = encode_plain_prompt(tokenizer, chatml_prompt(turns))
    for token in CHATML_TOKENS:
        index = tokenizer.convert_tokens_to_ids(token)
        if index == tokenizer.unk_token_id or index not in ids:
            raise SpireError(
                f"{tokenizer.name_or_path}: {token} is not one token, so that the model cannot"
                " have learned ChatML prompts; give an instruction-tuned model"
            )
    return ids


def encode_plain_prompt(tokenizer, prompt: str) -> List[int]:
    """Ids that a plain prompt is decoded from; BOS before them where the tokenizer has one."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*bos, *tokenizer(prompt, add_special_tokens=False).input_ids]


def forbidden_text(text: str, special_tokens: Sequence[str]) -> Optional[str]:
    """Why a text from a corpus cannot stand in an example, or ``None``.

    A transcript that holds the characters of units or the name of a special token would be read
    as those.
    """
    if not text.isascii() and UNIT_CHARS.search(text):
        return "text has private use characters, which stand for units"
    found = _any_of(tuple(special_tokens)).search(text)
    return f"text has the special token {found[0]}" if found else None


@functools.lru_cache
def _any_of(tokens: Tuple[str, ...]) -> "re.Pattern[str]":
    # Llama 3 has hundreds: a text is searched once for all of them
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def special_tokens(tokenizer) -> List[str]:
    """Names that must not occur in a corpus."""
    # all_special_tokens has those with a role (BOS, EOS …) and not <PAD>, <SEP> and their like.
    added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    return sorted({*tokenizer.all_special_tokens, *added, *CHATML_TOKENS})
