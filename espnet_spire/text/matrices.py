"""The two matrices of a causal LM that have a row for each token, found and extended."""

from pathlib import Path
from typing import Dict, List, NamedTuple

import torch

from espnet_spire.text.embeddings import draw_rows
from espnet_spire.text.weight_files import (
    Extension,
    check_float,
    read_header,
    weight_files,
    write_extended,
)
from espnet_spire.utils.atomic import PathLike, read_json, write_json
from espnet_spire.utils.errors import SpireError


class Matrices(NamedTuple):
    """Names of the input and the output matrix; ``tied`` where the model uses one for both."""

    inputs: str
    outputs: str
    tied: bool


def empty_model(directory: PathLike):
    """The architecture of a model directory, without weights.

    Raises:
        SpireError: no causal LM.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise SpireError(str(error).splitlines()[0]) from None


def find_matrices(directory: Path) -> Matrices:
    """Ask transformers which parameters of a model directory's architecture they are.

    Raises:
        SpireError: no causal LM, or an output layer with a bias.
    """
    model = empty_model(directory)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None:
        raise SpireError(f"{type(model).__name__} has no output matrix")
    if getattr(outputs, "bias", None) is not None:
        raise SpireError("output layers with a bias are not supported")
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for which, wanted in (("inputs", inputs), ("outputs", outputs)):
            if module is wanted:
                names.setdefault(which, f"{name}.weight")
    return Matrices(**names, tied=names["outputs"] in model.all_tied_weights_keys)


def write_config(base: Path, out: Path, base_size: int, rows: int) -> None:
    """``config.json`` for ``rows`` rows, all else as the base has it.

    Raises:
        SpireError: a quantised or multimodal base, or special tokens beyond its tokenizer.
    """
    config = read_json(base / "config.json")
    for key, what in (("quantization_config", "quantised"), ("text_config", "multimodal")):
        if config.get(key) is not None:
            raise SpireError(f"{base / 'config.json'}: the model is {what} ({key}); give another")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = config.get(key)
        for index in ids if isinstance(ids, list) else [ids]:
            if index is not None and index >= base_size:
                raise SpireError(
                    f"{base / 'config.json'}: {key} is {index}, but the tokenizer has"
                    f" {base_size} tokens; set it to one of them"
                )
    write_json(out / "config.json", {**config, "vocab_size": rows})


def _converted(base: Path, aside: Path) -> List[Path]:
    """Safetensors files in ``aside`` of a base that has PyTorch's own; this loads the model."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    except (OSError, ValueError) as error:
        raise SpireError(str(error).splitlines()[0]) from None
    model.save_pretrained(aside, max_shard_size="5GB")
    return weight_files(aside)


def _locate(files: List[Path], names: Matrices) -> Dict[str, Path]:
    """Which file holds which matrix. Where they are tied, one of the two names will do."""
    wanted = {names.inputs, names.outputs}
    found = {}
    for path in files:
        for name in wanted & read_header(path)[1].keys():
            found[name] = path
    if len(found) < (1 if names.tied else 2):
        missing = min(wanted - found.keys())
        raise SpireError(f"its files have no tensor {missing}; they are not whole")
    return found


def extend_matrices(
    base: Path, out: Path, aside: Path, *, base_size: int, rows: int, seed: int, method: str
) -> None:
    """Write the weights of ``base`` with ``rows`` rows in both matrices.

    The first ``base_size`` rows are those of the base bit for bit, the others are drawn: rows
    that the base has beyond its tokenizer, to pad the matrices, are dropped and take no part in
    mean and covariance. Each matrix has its own statistics; tied ones stay one, drawn once.

    Args:
        base: model directory, safetensors or PyTorch's own files (those are loaded).
        out: directory to write to, with the ``config.json`` of :func:`write_config`.
        aside: a directory that need not exist, for a converted copy of the latter.
        base_size: tokens of the base tokenizer.
        rows: of the new matrices.
        seed: of the draws; input matrix first.
        method: see :func:`~espnet_spire.text.embeddings.draw_rows`.
    """
    from safetensors import safe_open

    names = find_matrices(base)
    files = weight_files(base) or _converted(base, aside)
    found = _locate(files, names)
    generator = torch.Generator().manual_seed(seed)
    extensions: Dict[str, Extension] = {}
    for name in dict.fromkeys((names.inputs, names.outputs)):
        if name not in found:
            continue
        stored = read_header(found[name])[1][name]
        check_float(found[name], name, stored)
        if stored.shape[0] < base_size:
            raise SpireError(
                f"{found[name]}: {name} has {stored.shape[0]} rows, but the tokenizer"
                f" {base_size} tokens; they do not belong together"
            )
        with safe_open(found[name], framework="pt") as file:
            weight = file.get_slice(name)
            if names.tied and extensions:
                _check_same(found, names, base_size)
                extensions[name] = extensions[names.inputs]
                continue
            fresh = draw_rows(weight, base_size, rows - base_size, generator, method=method)
            dtype = weight[:1].dtype
        if not torch.isfinite(fresh).all():
            raise SpireError(f"{found[name]}: {name} has values that are not finite")
        extensions[name] = Extension(base_size, fresh.to(dtype))
    write_extended(files, out, extensions)
    _check_architecture(out, rows)


def _check_same(found: Dict[str, Path], names: Matrices, base_size: int) -> None:
    """Some tied models' files hold their matrix twice; transformers ties them if they are equal."""
    from safetensors import safe_open

    with safe_open(found[names.inputs], "pt") as one, safe_open(found[names.outputs], "pt") as two:
        first, second = one.get_slice(names.inputs), two.get_slice(names.outputs)
        for start in range(0, base_size, 4096):
            end = min(start + 4096, base_size)
            if not torch.equal(first[start:end], second[start:end]):
                raise SpireError(
                    f"{found[names.outputs]}: {names.outputs} differs from {names.inputs}, but"
                    " config.json says tie_word_embeddings; set it to false"
                )


def _check_architecture(out: Path, rows: int) -> None:
    """What was written has the shapes that its config asks for."""
    model = empty_model(out)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module.weight.shape[0] != rows:
            raise SpireError(
                f"{type(model).__name__} does not take its matrices' size from vocab_size in"
                " config.json; this base is not supported"
            )
