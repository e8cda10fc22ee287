"""Make units words of a causal LM: tokenizer, SentencePiece file and both matrices in step.

The layout is that of the models that SPIRE's authors released: the base vocabulary, the five
tokens of Megatron-LLM, the units, the two ChatML tokens, and rows that pad the matrices to a
multiple of 64 (32000 + 5 + 5000 + 2 → 37056 for Llama-2 with K = 5000). Tokens that the base has
already keep their ids; rows that it has beyond its tokenizer belong to no token, so that new ids
begin there. How units are held: :mod:`espnet_spire.text.tokenizer_files`.
"""

import contextlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from espnet_spire.text.embeddings import padded_rows
from espnet_spire.text.matrices import extend_matrices, write_config
from espnet_spire.text.tokenizer_check import check_sentencepiece, check_template, check_tokenizer
from espnet_spire.text.tokenizer_files import (
    ADDED_FILE,
    BYTE_LEVEL_FILES,
    CONFIG_FILE,
    ROLES_FILE,
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    Layout,
    plan_layout,
    write_tokenizer_files,
)
from espnet_spire.units.codebook import codebook_identity, load_codebook, save_codebook
from espnet_spire.units.subwords import unit_bpe_identity
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.outputs import check_output

SPIRE_JSON = "spire.json"
# A copy of the codebook, so that whoever has the model can give it audio.
CODEBOOK_DIR = "codebook"
_TOKENIZER_FILES = (
    *(TOKENIZER_FILE, CONFIG_FILE, SENTENCEPIECE_FILE, ADDED_FILE, ROLES_FILE),
    *BYTE_LEVEL_FILES,
)
# Generation settings name ids of the base, which stay; licences ask to be passed on.
_COPIED = ("generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")


def find_base(base: str) -> Path:
    """The directory of a base model; one of the hub is fetched, or found in its cache.

    Raises:
        SpireError: there is none, or it is extended already.
    """
    directory = Path(base)
    if not directory.is_dir():
        from huggingface_hub import snapshot_download

        files = ["*.json", "*.jinja", "tokenizer.model", "merges.txt", *_COPIED]
        others = ["*/*", "consolidated*"]  # the same weights again, in other formats
        try:
            for weights in ("*.safetensors", "*.bin"):
                wanted = [*files, weights]
                directory = Path(
                    snapshot_download(base, allow_patterns=wanted, ignore_patterns=others)
                )
                if any(directory.glob(weights)):
                    break
        except (OSError, ValueError) as error:
            raise SpireError(
                f"--base {base}: no such directory, and not from the hub:"
                f" {str(error).splitlines()[0]}"
            ) from None
    if (directory / SPIRE_JSON).exists():
        raise SpireError(
            f"--base {base} is extended already (it has {SPIRE_JSON}); give the base model"
        )
    return directory


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


@contextlib.contextmanager
def _of_base(base: PathLike) -> Iterator[None]:
    """Errors within name the base."""
    try:
        yield
    except SpireError as error:
        raise SpireError(f"--base {base}: {error}") from None


def load_tokenizer(directory: PathLike):
    """A model directory's Hugging Face tokenizer; one that cannot be read is an error of a line."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # for a broken file the libraries raise anything at all
        reason = " ".join(str(error).split())[:200]
        raise SpireError(
            f"{directory}: its tokenizer cannot be loaded ({type(error).__name__}: {reason})"
        ) from None


def _write_tokenizer(base: Path, out: Path, before, layout: Layout, work: Path) -> str:
    """Extend the base's tokenizer into ``out`` and try it out; returns how units are held."""
    # What transformers makes of the base, where it lacks a file; else the base's own, so that
    # settings such as `legacy` survive.
    before.save_pretrained(work)
    for name in _TOKENIZER_FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, work / name)
    kind = write_tokenizer_files(
        work, out, before.get_vocab(), layout, has_bos=before.bos_token_id is not None
    )
    after = load_tokenizer(out)
    check_tokenizer(before, after, layout)
    check_template(after)
    if (out / SENTENCEPIECE_FILE).exists():
        check_sentencepiece(work, out, layout)
    return kind


def extend_vocabulary(
    base: PathLike,
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
        out: directory to write; replaced as a whole if it is an extended model.
        seed: of the new rows.
        method: see :func:`~espnet_spire.text.embeddings.draw_rows`.
        codebook, unit_bpe: where the units come from; checked and noted in ``spire.json``, see
            :func:`describe_units`. The codebook is also copied, into the directory
            :data:`CODEBOOK_DIR` there.

    Returns:
        what was written to ``spire.json``: ``base``, ``base_vocab_size`` (tokens; rows from there
        on are new), ``first_unit_id``, ``num_units``, ``unit_tokens`` (``piece`` or ``added``),
        ``vocab_size`` (tokens), ``padded_vocab_size`` (rows), ``reused_tokens`` (with their ids),
        ``init``, ``seed``, ``codebook``, ``unit_bpe``.

    Raises:
        SpireError: the base cannot be extended, or what was written is not as it should be.
    """
    if num_units < 1:
        raise SpireError(f"--num_units {num_units}: must be at least 1")
    directory = find_base(str(base))
    units_from = [path for path in (codebook, unit_bpe) if path is not None]
    check_output(out, inputs=[directory, *units_from], marks=[SPIRE_JSON])
    origin = describe_units(num_units, codebook, unit_bpe)
    with atomic_dir(out) as aside:
        work = aside / "work"
        with _of_base(base):
            tokenizer = load_tokenizer(directory)
            layout = plan_layout(tokenizer.get_vocab(), num_units)
            rows = padded_rows(layout.size)
            # First, since transformers chooses the tokenizer's class by it.
            write_config(directory, aside, layout.base_size, rows)
            kind = _write_tokenizer(directory, aside, tokenizer, layout, work)
            extend_matrices(
                *(directory, aside, work / "weights"),
                base_size=layout.base_size,
                rows=rows,
                seed=seed,
                method=method,
            )
        shutil.rmtree(work)
        for pattern in _COPIED:
            for path in directory.glob(pattern):
                shutil.copyfile(path, aside / path.name)
        description = {
            "base": str(base),
            "base_vocab_size": layout.base_size,
            "first_unit_id": layout.first_unit_id,
            "num_units": num_units,
            "unit_tokens": kind,
            "vocab_size": layout.size,
            "padded_vocab_size": rows,
            "reused_tokens": layout.reused,
            "init": method,
            "seed": seed,
            **origin,
        }
        write_json(aside / SPIRE_JSON, description)
        if codebook is not None:
            save_codebook(load_codebook(codebook), aside / CODEBOOK_DIR)
    logging.info("%s", json.dumps({k: v for k, v in description.items() if k not in origin}))
    return description


def read_spire_json(model_dir: PathLike) -> Dict[str, Any]:
    """What :func:`extend_vocabulary` wrote, or an error that says what to do."""
    path = Path(model_dir) / SPIRE_JSON
    if not path.exists():
        raise SpireError(f"{path}: no such file; make the model with extend_vocabulary first")
    return read_json(path)
