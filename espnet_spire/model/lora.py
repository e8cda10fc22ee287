"""LoRA by peft, with the new rows of both embedding matrices trained in full."""

from typing import Any, Dict, List, NamedTuple, Union

import torch

from espnet_spire.model.head import gathered
from espnet_spire.model.new_rows import NewRowsEmbedding, NewRowsHead
from espnet_spire.utils.errors import SpireError


class LoraSettings(NamedTuple):
    """``lora`` of a training's config; peft's names but for ``alpha`` and ``dropout``."""

    r: int = 64
    alpha: float = 128
    dropout: float = 0.0
    target_modules: Union[str, List[str]] = "all-linear"


def lora_settings(value: Dict[str, Any]) -> LoraSettings:
    """Check the dictionary of a config.

    Raises:
        SpireError: an unknown key, or a value out of its range.
    """
    unknown = sorted(set(value) - set(LoraSettings._fields))
    if unknown:
        raise SpireError(f"lora: no setting {unknown[0]!r}; there are {LoraSettings._fields}")
    settings = LoraSettings(**value)
    if not isinstance(settings.r, int) or settings.r < 1:
        raise SpireError(f"lora: r is {settings.r!r}, it must be a whole number of at least 1")
    if not settings.alpha > 0 or not 0 <= settings.dropout < 1:
        raise SpireError("lora: alpha must be above 0, dropout at least 0 and below 1")
    return settings


def add_lora(lm, settings: LoraSettings, first_new_id: int, *, seed: int = 0) -> None:
    """Put adapters into a causal LM, in place; all else but the new rows is frozen.

    Args:
        lm: its parameters may be partitioned by ZeRO-3 (collective then).
        settings: of the adapters.
        first_new_id: ids from here on have rows that are trained.
        seed: of the adapters' start; all ranks draw the same.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, lm)
        except ValueError as error:  # target_modules that name nothing
            raise SpireError(f"lora: {str(error).splitlines()[0]}") from None
    if embedding is not lm.get_input_embeddings() or head is not lm.get_output_embeddings():
        raise SpireError("lora: target_modules has an embedding matrix; its new rows are trained")
    rows = _new_rows(embedding.weight, first_new_id)
    lm.set_input_embeddings(NewRowsEmbedding(embedding, first_new_id, rows))
    if head.weight is not embedding.weight:
        rows = _new_rows(head.weight, first_new_id)
    lm.set_output_embeddings(NewRowsHead(head, first_new_id, rows))


def _new_rows(matrix: torch.nn.Parameter, first: int) -> torch.nn.Parameter:
    """The rows from ``first`` on as a parameter of their own, on every rank."""
    with gathered([matrix]):
        if not 0 < first < len(matrix):
            raise SpireError(f"lora: the model has {len(matrix)} rows, none new from {first} on")
        return torch.nn.Parameter(matrix.detach()[first:].clone())
