"""Units, Megatron's and ChatML's tokens in a base tokenizer's files, all in step.

Two kinds of tokenizers, two ways to make a unit exactly one id:

- ``piece``: BPE over characters with byte fallback (Llama-2, TinyLlama, EuroLLM, Gemma). A unit
  is an ordinary one-character piece without merges. These tokenizers put white space (``▁``)
  about added tokens; about a piece they do not.
- ``added``: byte-level BPE (Qwen, Llama 3). There a character is up to four byte symbols, which
  only merges could join and others could join differently. A unit is an added token that is not
  special, not normalised and strips nothing; text is cut at it before anything else is done.

Either way text before units is tokenised as if it ended there, and text behind them as if it
began there (but for the space that Llama's layout puts before the beginning of a text), whichever
and however many the units are. So a prompt's ids can be had with one unit in place of all.

Tokens that the base has already (EuroLLM and Qwen have ChatML's) are used as they are.
"""

import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from espnet_spire.text.prompts import CHAT_TEMPLATE, CHATML_TOKENS
from espnet_spire.units.notation import unit_to_char
from espnet_spire.utils.atomic import atomic_write, read_json, write_json
from espnet_spire.utils.errors import SpireError

MEGATRON_TOKENS = ("<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>")
SPECIAL_TOKENS = MEGATRON_TOKENS + CHATML_TOKENS
PIECE, ADDED = "piece", "added"

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SENTENCEPIECE_FILE, ADDED_FILE = "tokenizer.model", "added_tokens.json"
TEMPLATE_FILE = "chat_template.jinja"
ROLES_FILE = "special_tokens_map.json"
# Byte-level BPE without the added tokens, for slow tokenizers: stays as it is.
BYTE_LEVEL_FILES = ("vocab.json", "merges.txt")


class Layout(NamedTuple):
    """Which token gets which id.

    Attributes:
        base_size: tokens of the base; ids of new ones follow.
        new_tokens: in the order of their ids.
        first_unit_id: id of unit 0; unit u has ``first_unit_id + u``.
        num_units: how many units.
        reused: tokens wanted that the base has, with its ids.
    """

    base_size: int
    new_tokens: Tuple[str, ...]
    first_unit_id: int
    num_units: int
    reused: Dict[str, int]

    @property
    def size(self) -> int:
        """Tokens in all."""
        return self.base_size + len(self.new_tokens)

    def new_ids(self) -> Dict[str, int]:
        """New tokens and their ids."""
        return {token: self.base_size + index for index, token in enumerate(self.new_tokens)}


def plan_layout(vocab: Mapping[str, int], num_units: int) -> Layout:
    """Lay new tokens out behind those of a base, in the order of SPIRE's released models.

    Megatron's five, the units, ChatML's two, without those that the base has.

    Args:
        vocab: all tokens of the base with their ids, added ones included.
        num_units: K.

    Raises:
        SpireError: the base has units already, or its ids have gaps.
    """
    units = [unit_to_char(unit) for unit in range(num_units)]
    clash = [number for number, unit in enumerate(units) if unit in vocab]
    if clash and clash[0] == 0:
        raise SpireError("the tokenizer is extended already (it has units); give the base model")
    if clash:
        raise SpireError(
            f"the tokenizer has the character U+{ord(units[clash[0]]):X} as a token, which stands"
            f" for unit {clash[0]}; this base cannot be used"
        )
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise SpireError(
            f"the tokenizer's {len(vocab)} ids are not 0 to {len(vocab) - 1}; fill the gaps with"
            " placeholder tokens first"
        )
    before = [token for token in MEGATRON_TOKENS if token not in vocab]
    after = [token for token in CHATML_TOKENS if token not in vocab]
    return Layout(
        base_size=len(vocab),
        new_tokens=(*before, *units, *after),
        first_unit_id=len(vocab) + len(before),
        num_units=num_units,
        reused={token: vocab[token] for token in SPECIAL_TOKENS if token in vocab},
    )


def _types(part: Any) -> List[str]:
    """Types of a normaliser, pre-tokeniser or decoder and of its members."""
    if isinstance(part, list):
        return [name for member in part for name in _types(member)]
    if not isinstance(part, dict):
        return []
    return [part.get("type"), *(name for member in part.values() for name in _types(member))]


def tokenizer_kind(tokenizer: Dict[str, Any]) -> str:
    """``piece`` or ``added`` for a parsed ``tokenizer.json``.

    Raises:
        SpireError: neither byte fallback nor byte-level BPE.
    """
    model = tokenizer["model"]
    if model.get("type", "BPE") == "BPE":
        if model.get("byte_fallback"):
            return PIECE
        if "ByteLevel" in _types([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")]):
            return ADDED
    raise SpireError(
        f"the base tokenizer is {model.get('type')} without byte fallback, nor byte-level BPE;"
        " only SentencePiece BPE with byte fallback (Llama-2, EuroLLM, Gemma) and byte-level BPE"
        " (Qwen, Llama 3) can be extended"
    )


def _added_token(token: str) -> Dict[str, Any]:
    return {
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": token in SPECIAL_TOKENS,
    }


def extend_tokenizer_json(tokenizer: Dict[str, Any], layout: Layout) -> Dict[int, Dict[str, Any]]:
    """Append the new tokens to a parsed ``tokenizer.json``, in place.

    Returns:
        the added tokens that are new or changed, by id: for the files that repeat them.
    """
    kind, vocab, added = tokenizer_kind(tokenizer), tokenizer["model"]["vocab"], {}
    listed = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    if len(vocab.keys() | listed.keys()) != layout.base_size:
        raise SpireError(
            f"{TOKENIZER_FILE} has {len(vocab.keys() | listed.keys())} tokens, but the tokenizer"
            f" has {layout.base_size} when it is loaded; the base model's tokenizer files do not"
            f" belong together (a token that {CONFIG_FILE} alone knows?)"
        )
    for token, index in layout.reused.items():
        if token not in listed:
            listed[token] = {"id": index, **_added_token(token)}
            tokenizer["added_tokens"].append(listed[token])
        listed[token]["special"] = True
        added[index] = {key: value for key, value in listed[token].items() if key != "id"}
    if kind == PIECE:
        # Ids of added tokens that are no pieces are counted from the number of pieces, so that
        # pieces behind them would move them.
        for token, entry in listed.items():
            vocab.setdefault(token, entry["id"])
    for token, index in layout.new_ids().items():
        if kind == PIECE:
            vocab[token] = index
        if kind == ADDED or token in SPECIAL_TOKENS:
            added[index] = _added_token(token)
            tokenizer["added_tokens"].append({"id": index, **added[index]})
    return added


def extend_sentencepiece(path: Path, vocab: Mapping[str, int], layout: Layout) -> None:
    """Append the same tokens to a SentencePiece model file, in place.

    Tokens that the base has added to its SentencePiece model's come first, so that ids agree.

    Args:
        path: file to change.
        vocab: all tokens of the base with their ids.
        layout: what is appended.
    """
    from sentencepiece import sentencepiece_model_pb2 as pb2

    proto = pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    if len(proto.pieces) > layout.base_size:
        raise SpireError(
            f"{path.name}: {len(proto.pieces)} pieces, but the tokenizer has {layout.base_size};"
            " the base model's tokenizer files do not belong together"
        )
    names = sorted(vocab, key=vocab.__getitem__)
    missing = names[len(proto.pieces) :]
    present = {piece.piece for piece in proto.pieces}
    for token in missing:
        if token in present:
            raise SpireError(
                f"{path.name}: {token!r} has another id than in the tokenizer; the base model's"
                " tokenizer files do not belong together"
            )
    lowest = min(piece.score for piece in proto.pieces)
    kinds = pb2.ModelProto.SentencePiece
    special = {*missing, *SPECIAL_TOKENS}
    for offset, token in enumerate((*missing, *layout.new_tokens)):
        piece = proto.pieces.add()
        piece.piece = token
        piece.score = lowest - 1 - offset
        piece.type = kinds.USER_DEFINED if token in special else kinds.NORMAL
    path.write_bytes(proto.SerializeToString())


def chat_template(has_bos: bool) -> str:
    """The template of the prompts, for tokenizers with and without BOS."""
    return CHAT_TEMPLATE if has_bos else CHAT_TEMPLATE.removeprefix("{{ bos_token }}")


def write_tokenizer_files(
    files: Path, out: Path, vocab: Mapping[str, int], layout: Layout, *, has_bos: bool
) -> str:
    """Write the extended tokenizer of the base whose files lie in ``files``.

    Returns:
        how units are held: ``piece`` or ``added``.
    """
    tokenizer = read_json(files / TOKENIZER_FILE)
    kind = tokenizer_kind(tokenizer)
    added = extend_tokenizer_json(tokenizer, layout)
    write_json(out / TOKENIZER_FILE, tokenizer)

    config = read_json(files / CONFIG_FILE)
    config["chat_template"] = chat_template(has_bos)
    if "added_tokens_decoder" in config:
        # transformers then takes the added tokens from here and not from tokenizer.json.
        config["added_tokens_decoder"].update({str(index): entry for index, entry in added.items()})
    write_json(out / CONFIG_FILE, config)
    # transformers 5 prefers this file to the entry of the config, older ones know the entry alone.
    with atomic_write(out / TEMPLATE_FILE) as stream:
        stream.write(chat_template(has_bos))

    for name in (ROLES_FILE, *(BYTE_LEVEL_FILES if kind == ADDED else ())):
        if (files / name).exists():
            shutil.copyfile(files / name, out / name)
    if (files / ADDED_FILE).exists():
        ids = {entry["content"]: index for index, entry in added.items()}
        write_json(out / ADDED_FILE, {**read_json(files / ADDED_FILE), **ids})
    if kind == PIECE and (files / SENTENCEPIECE_FILE).exists():
        shutil.copyfile(files / SENTENCEPIECE_FILE, out / SENTENCEPIECE_FILE)
        extend_sentencepiece(out / SENTENCEPIECE_FILE, vocab, layout)
    return kind
