"""Make units words of a causal LM: tokenizer, SentencePiece file and both matrices in step.

The layout is that of the models that SPIRE's authors released: the base vocabulary, the five
tokens of Megatron-LLM, the units, the two ChatML tokens, and rows that pad the matrices to a
multiple of 64 (32000 + 5 + 5000 + 2 → 37056 for Llama-2 with K = 5000).

Units are ordinary one-character pieces of the BPE model and not added tokens: no white space is
stripped or inserted around them, each is exactly one id, and loading stays fast.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from espnet_spire.text.prompts import CHAT_TEMPLATE, CHATML_TOKENS
from espnet_spire.units.codebook import codebook_identity
from espnet_spire.units.notation import unit_to_char
from espnet_spire.units.subwords import unit_bpe_identity
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.errors import SpireError

SPIRE_JSON = "spire.json"
MEGATRON_TOKENS = ("<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>")
ROW_MULTIPLE = 64
# The covariance of the existing rows is scaled by this (paper, section 3.2.2; Hewitt 2021).
COVARIANCE_SCALE = 1e-5

# What must tokenise as before: casing, digits, white space, scripts, special tokens.
_SAMPLE = (
    "The cat sat.  Two  spaces",
    " leading, trailing ",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 1234567890",
    "L'été à Nîmes; ¿qué? olá, então; è così",
    "今天天气很好。 한국어 문장입니다. Русский текст",
    "English: a\nGerman: b\n\n\tc",
    "</s> <s>x</s>y",
)


def draw_rows(
    weight: torch.Tensor,
    count: int,
    generator: torch.Generator,
    *,
    method: str = "gaussian",
) -> torch.Tensor:
    """New rows for an embedding matrix.

    ``gaussian`` draws from N(mean, 1e-5 · covariance) of the existing rows (paper, section
    3.2.2). Writing a draw as mean + √(1e-5/(N-1)) · zᵀ(E - mean) with z ~ N(0, I_N) has that
    covariance exactly, without forming or factoring it. ``mean`` repeats the mean.

    Args:
        weight: existing rows E, shape (N, D), any float type.
        count: how many rows to make.
        generator: where the randomness comes from.
        method: ``gaussian`` or ``mean``.

    Returns:
        float32, shape (count, D).
    """
    existing = weight.detach().to(torch.float32)
    mean = existing.mean(dim=0, keepdim=True)
    if method == "mean":
        return mean.repeat(count, 1)
    if method != "gaussian":
        raise SpireError(f"--init {method}: choose gaussian or mean")
    centred = existing - mean
    scale = (COVARIANCE_SCALE / (len(existing) - 1)) ** 0.5
    chunks = []
    for start in range(0, count, 512):  # bounds the size of z at large N
        z = torch.randn(min(512, count - start), len(existing), generator=generator)
        chunks.append(mean + scale * (z @ centred))
    return torch.cat(chunks) if chunks else mean[:0]


def padded_rows(size: int) -> int:
    """``size`` rounded up to a multiple of 64."""
    return -(-size // ROW_MULTIPLE) * ROW_MULTIPLE


def new_tokens(num_units: int) -> List[str]:
    """All tokens that are appended to the base vocabulary, in the order of their ids."""
    units = [unit_to_char(unit) for unit in range(num_units)]
    return [*MEGATRON_TOKENS, *units, *CHATML_TOKENS]


def _added_token(token: str, index: int) -> Dict[str, Any]:
    return {
        "id": index,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def extend_tokenizer_json(tokenizer: Dict[str, Any], base_size: int, num_units: int) -> None:
    """Append the new tokens to a parsed ``tokenizer.json``, in place."""
    model = tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise SpireError(
            f"the base tokenizer is {model.get('type')} without byte fallback; only"
            " SentencePiece BPE tokenizers in Llama's layout can be extended so far"
        )
    for index, token in enumerate(new_tokens(num_units), base_size):
        if token in model["vocab"]:
            raise SpireError(f"token {token!r} is in the vocabulary already: extended before?")
        model["vocab"][token] = index
        if token in MEGATRON_TOKENS or token in CHATML_TOKENS:
            tokenizer["added_tokens"].append(_added_token(token, index))


def extend_sentencepiece(path: Path, base_size: int, num_units: int) -> None:
    """Append the same tokens to a SentencePiece model file, in place."""
    from sentencepiece import sentencepiece_model_pb2 as pb2

    proto = pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    if len(proto.pieces) != base_size:
        raise SpireError(
            f"{path}: {len(proto.pieces)} pieces, but the tokenizer has {base_size}; the base"
            " model's tokenizer files do not belong together"
        )
    lowest = min(piece.score for piece in proto.pieces)
    kinds = pb2.ModelProto.SentencePiece
    for offset, token in enumerate(new_tokens(num_units)):
        piece = proto.pieces.add()
        piece.piece = token
        piece.score = lowest - 1 - offset
        special = token in MEGATRON_TOKENS or token in CHATML_TOKENS
        piece.type = kinds.USER_DEFINED if special else kinds.NORMAL
    path.write_bytes(proto.SerializeToString())


def _extend_tokenizer_files(base: Path, out: Path, num_units: int, base_size: int) -> None:
    tokenizer = read_json(base / "tokenizer.json")
    extend_tokenizer_json(tokenizer, base_size, num_units)
    write_json(out / "tokenizer.json", tokenizer)

    config = read_json(base / "tokenizer_config.json")
    config["chat_template"] = CHAT_TEMPLATE
    if "added_tokens_decoder" in config:
        for entry in tokenizer["added_tokens"]:
            entry = dict(entry)
            config["added_tokens_decoder"][str(entry.pop("id"))] = entry
    write_json(out / "tokenizer_config.json", config)

    if (base / "tokenizer.model").exists():
        shutil.copy(base / "tokenizer.model", out / "tokenizer.model")
        extend_sentencepiece(out / "tokenizer.model", base_size, num_units)


def _check_tokenizers(base_tokenizer, tokenizer, first_unit_id: int, num_units: int) -> None:
    """Every unit one id, in order, also between text; text as before."""
    for unit in range(num_units):
        char = unit_to_char(unit)
        if tokenizer.convert_tokens_to_ids(char) != first_unit_id + unit:
            raise SpireError(f"unit {unit} has not id {first_unit_id + unit}; this is a bug")
    every_unit = "".join(unit_to_char(unit) for unit in range(num_units))
    ids = tokenizer(f"a{every_unit}b", add_special_tokens=False).input_ids
    expected = list(range(first_unit_id, first_unit_id + num_units))
    position = ids.index(first_unit_id)
    if ids[position : position + num_units] != expected:
        raise SpireError("a sequence of all units is not one id a unit; this is a bug")
    for text in _SAMPLE:
        if base_tokenizer(text).input_ids != tokenizer(text).input_ids:
            raise SpireError(f"{text!r} is tokenised otherwise than before; this is a bug")


def _extend_matrix(
    weight: torch.Tensor, base_size: int, rows: int, generator: torch.Generator, method: str
) -> torch.nn.Parameter:
    existing = weight[:base_size]
    fresh = draw_rows(existing, rows - base_size, generator, method=method)
    return torch.nn.Parameter(torch.cat([existing.detach(), fresh.to(weight.dtype)]))


def extend_model(model, base_size: int, rows: int, seed: int, method: str) -> None:
    """Give both matrices of a causal LM ``rows`` rows; the first ``base_size`` stay as they are.

    Where input and output are one matrix it is extended once, else each from its own mean and
    covariance. transformers' ``resize_token_embeddings`` is avoided: it initialises its own way.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = outputs is None or outputs.weight is inputs.weight
    inputs.weight = _extend_matrix(inputs.weight, base_size, rows, generator, method)
    inputs.num_embeddings = rows
    if inputs.padding_idx is not None and inputs.padding_idx >= rows:
        inputs.padding_idx = None
    if outputs is not None:
        outputs.weight = (
            inputs.weight
            if tied
            else _extend_matrix(outputs.weight, base_size, rows, generator, method)
        )
        outputs.out_features = rows
        if getattr(outputs, "bias", None) is not None:
            raise SpireError("output layers with a bias are not supported")
    model.config.vocab_size = rows


def describe_units(
    num_units: int, codebook: Optional[PathLike], unit_bpe: Optional[PathLike]
) -> Dict[str, Any]:
    """What ``spire.json`` says of where units come from: ``codebook`` and ``unit_bpe``.

    Args:
        num_units: words to be added: the codebook's K or, with ``unit_bpe``, the model's V.
        codebook: directory; by default what the unit BPE was learned with.
        unit_bpe: directory that learn_unit_bpe made, where units are subwords of units.

    Raises:
        SpireError: sizes that do not agree, or a unit BPE of another codebook's units.
    """
    book = None if codebook is None else codebook_identity(codebook)
    if unit_bpe is None:
        if book is not None and book["num_clusters"] != num_units:
            raise SpireError(
                f"{codebook} has {book['num_clusters']} clusters, --num_units is {num_units}"
            )
        return {"codebook": book, "unit_bpe": None}
    bpe = unit_bpe_identity(unit_bpe)
    if bpe["vocab_size"] != num_units:
        raise SpireError(
            f"{unit_bpe} has a vocabulary of {bpe['vocab_size']}, --num_units is {num_units}"
        )
    learned_with = bpe.pop("codebook")
    if book is not None and book["num_clusters"] != bpe["num_units"]:
        raise SpireError(
            f"{codebook} has {book['num_clusters']} clusters, {unit_bpe} was learned on"
            f" {bpe['num_units']} units"
        )
    if book is not None and learned_with and learned_with["sha256"] != book["sha256"]:
        raise SpireError(
            f"{unit_bpe} was learned on units of another codebook than {codebook}; run"
            " learn_unit_bpe on units of this one"
        )
    return {"codebook": book or learned_with, "unit_bpe": bpe}


def extend_vocabulary(
    base: str,
    num_units: int,
    out: PathLike,
    *,
    seed: int = 0,
    method: str = "gaussian",
    codebook: Optional[PathLike] = None,
    unit_bpe: Optional[PathLike] = None,
) -> Dict[str, Any]:
    """Write a Hugging Face model directory that knows ``num_units`` units.

    Args:
        base: a directory or hub name of a causal LM.
        num_units: K, or V of the unit BPE.
        out: directory to write; replaced as a whole.
        seed: of the new rows.
        method: see :func:`draw_rows`.
        codebook, unit_bpe: where the units come from; checked and noted in ``spire.json``, see
            :func:`describe_units`.

    Returns:
        what was written to ``spire.json``.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if num_units < 1:
        raise SpireError(f"--num_units {num_units}: must be at least 1")
    if Path(base).is_dir() and (Path(base) / SPIRE_JSON).exists():
        raise SpireError(f"{base} is extended already (it has {SPIRE_JSON}); give the base model")
    origin = describe_units(num_units, codebook, unit_bpe)
    try:
        base_tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    except (OSError, ValueError) as error:
        raise SpireError(f"--base {base}: {str(error).splitlines()[0]}") from None
    if unit_to_char(0) in base_tokenizer.get_vocab():
        raise SpireError(f"{base} is extended already (it has units); give the base model")
    base_size = len(base_tokenizer)
    first_unit_id = base_size + len(MEGATRON_TOKENS)
    size = base_size + len(new_tokens(num_units))

    with atomic_dir(out) as aside:
        files = aside / "base_tokenizer"
        base_tokenizer.save_pretrained(files)
        if Path(base).is_dir():
            # The base's own files, where it has them: settings such as `legacy` survive.
            for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
                if (Path(base) / name).exists():
                    shutil.copy(Path(base) / name, files / name)
        _extend_tokenizer_files(files, aside, num_units, base_size)
        shutil.rmtree(files)
        tokenizer = AutoTokenizer.from_pretrained(aside)
        if len(tokenizer) != size:
            raise SpireError(f"the tokenizer has {len(tokenizer)} tokens, not {size}; a bug")
        _check_tokenizers(base_tokenizer, tokenizer, first_unit_id, num_units)

        extend_model(model, base_size, padded_rows(size), seed, method)
        model.save_pretrained(aside)
        description = {
            "base": str(base),
            "base_vocab_size": base_size,
            "first_unit_id": first_unit_id,
            "num_units": num_units,
            "vocab_size": size,
            "padded_vocab_size": padded_rows(size),
            "init": method,
            "seed": seed,
            **origin,
        }
        write_json(aside / SPIRE_JSON, description)
    logging.info("%s", json.dumps({k: v for k, v in description.items() if k not in origin}))
    return description


def read_spire_json(model_dir: PathLike) -> Dict[str, Any]:
    """What :func:`extend_vocabulary` wrote, or an error that says what to do."""
    path = Path(model_dir) / SPIRE_JSON
    if not path.exists():
        raise SpireError(f"{path}: no such file; make the model with extend_vocabulary first")
    return read_json(path)
