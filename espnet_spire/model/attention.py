"""Which attention runs over packed rows, and how a decoder is told where documents begin.

A row holds several documents; none may see another. All ways here rest on ``position_ids`` that
restart at 0 with each document: transformers makes its masks from them (``sdpa``, ``eager``,
``flex_attention``), or they give the borders of variable-length kernels (``flash_attention_2``,
``varlen``). transformers sees packed rows only if there is no attention mask and no cache; else
documents leak into each other in silence.
"""

import copy
import importlib.util
import inspect
from typing import Dict, Optional

import torch
from torch.nn.functional import scaled_dot_product_attention

from espnet_spire.utils.errors import SpireError

VARLEN = "varlen"
IMPLEMENTATIONS = ("flash_attention_2", "sdpa", "flex_attention", "eager", VARLEN)
# These take all rows as one and the borders of documents in it; others take a mask.
_TAKE_BORDERS = ("flash_attention_2", VARLEN)
# Arguments of attention that change its result and that not every implementation knows.
_SPECIAL = ("s_aux", "position_bias")
# Kinds of layers that transformers' masks keep apart.
_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


def choose_attention(name: str, lm, *, device: str, dtype: torch.dtype) -> str:
    """The implementation for ``set_attn_implementation`` of transformers.

    ``auto`` takes flash attention where it is installed (CUDA, bfloat16); else ``varlen`` on the
    CPU, ``sdpa`` on CUDA, and ``eager`` for models that cap attention logits (Gemma 2).

    Args:
        name: ``auto`` or one of :data:`IMPLEMENTATIONS`.
        lm: a causal LM of transformers.
        device: ``cpu`` or ``cuda``.
        dtype: of the weights.

    Raises:
        SpireError: the name is unknown, or the model, device or type cannot run it.
    """
    capped = getattr(lm.config.get_text_config(), "attn_logit_softcapping", None) is not None
    has_flash = importlib.util.find_spec("flash_attn") is not None
    can_flash = has_flash and device == "cuda" and dtype == torch.bfloat16
    if name == "auto":
        if (can_flash or device == "cpu" and not capped) and hands_borders_on(lm):
            return "flash_attention_2" if can_flash else VARLEN
        return "eager" if capped else "sdpa"
    if name not in IMPLEMENTATIONS:
        raise SpireError(f"--attention {name}: choose auto or one of {', '.join(IMPLEMENTATIONS)}")
    if name == "flash_attention_2" and not can_flash:
        reason = "needs CUDA and bfloat16" if has_flash else "needs the package flash-attn"
        raise SpireError(f"--attention flash_attention_2 {reason}; choose auto")
    if name in ("sdpa", VARLEN) and capped:
        raise SpireError(
            f"--attention {name}: {lm.config.model_type} caps attention logits, which it cannot;"
            " choose auto, eager or flex_attention"
        )
    if name in _TAKE_BORDERS and not hands_borders_on(lm):
        raise SpireError(
            f"--attention {name}: {lm.config.model_type} does not hand the borders of documents on"
            " to it, or wants more of it; choose auto"
        )
    return name


def check_packable(lm) -> None:
    """Refuse a model whose documents in one row would see each other.

    Raises:
        SpireError: its layers are recurrent, or it does not take positions.
    """
    config = lm.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    reason = None
    if kinds or getattr(lm, "_is_stateful", False):
        reason = f"it has recurrent layers ({', '.join(sorted(kinds)) or 'a state'})"
    elif "position_ids" not in inspect.signature(lm.base_model.forward).parameters:
        reason = "it takes no position_ids"
    elif not getattr(lm, "_supports_attention_backend", False):
        reason = "its attention is its own, not transformers' interface"
    if reason is not None:
        raise SpireError(f"{config.model_type} cannot be trained on packed rows: {reason}")


def packed_hidden(lm, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states of packed rows.

    Args:
        lm: a causal LM of transformers.
        input_ids: shape (B, L).
        position_ids: shape (B, L), 0 at the first token of each document and of padding.

    Returns:
        shape (B, L, D).
    """
    rows, length = input_ids.shape
    borders: Dict[str, object] = {}
    if lm.config._attn_implementation in _TAKE_BORDERS:
        input_ids, position_ids = input_ids.reshape(1, -1), position_ids.reshape(1, -1)
        borders = document_borders(position_ids)
    hidden = lm.base_model(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=None,
        use_cache=False,
        **borders,
    ).last_hidden_state
    return hidden.reshape(rows, length, -1)


def hands_borders_on(lm) -> bool:
    """Whether a model's layers pass the borders of documents on to a plain attention.

    Some drop them; flash attention would then let documents see each other in silence. Some want
    more of attention than :func:`varlen_attention` does. Tried with a copy of the model that has
    no weights (on PyTorch's meta device).
    """
    from transformers import AttentionInterface

    seen = []

    def spy(module, query, key, value, attention_mask, **kwargs):
        special = any(kwargs.get(name) is not None for name in _SPECIAL)
        seen.append("cu_seq_lens_q" in kwargs and not special)
        return query.transpose(1, 2), None

    AttentionInterface.register("spire_spy", spy)
    config = copy.deepcopy(lm.config)
    config._attn_implementation = "spire_spy"
    borders = document_borders(torch.tensor([[0, 1, 0, 1]]))
    try:
        with torch.device("meta"):
            decoder = type(lm)(config).base_model
            ids = torch.zeros(1, 4, dtype=torch.int64)
            decoder(
                input_ids=ids, position_ids=ids, attention_mask=None, use_cache=False, **borders
            )
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    return bool(seen) and all(seen)


def document_borders(position_ids: torch.Tensor) -> Dict[str, object]:
    """Where documents begin and end, under the names that flash attention wants them.

    Args:
        position_ids: shape (1, T); every 0 begins a document.
    """
    flat = position_ids.reshape(-1)
    end = torch.tensor([len(flat)], device=flat.device)
    borders = torch.cat([(flat == 0).nonzero()[:, 0], end]).to(torch.int32)
    longest = int(borders.diff().max())
    return {
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: Optional[float] = None,
    dropout: float = 0.0,
    sliding_window: Optional[int] = None,
    **unused: object,
):
    """PyTorch's own attention document by document, in transformers' interface.

    No mask of L×L is made, and nothing is spent on pairs of different documents. Shapes: query
    (1, H, T, D), key and value (1, H/groups, T, D); returns (1, T, H, D) and None for weights.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if query.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        window = -1 if sliding_window is None else sliding_window - 1
        output = varlen_attn(
            *(x[0].transpose(0, 1).contiguous() for x in (query, key, value)),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(window, 0),
        )
        return output[None], None
    sizes = cu_seq_lens_q.diff().tolist()
    parts = (x.split(sizes, dim=2) for x in (query, key, value))
    outputs = []
    for q, k, v in zip(*parts, strict=True):
        mask = None
        if sliding_window is not None and q.shape[2] > sliding_window:
            mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril().triu(1 - sliding_window)
        outputs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def register_varlen() -> None:
    """Make ``varlen`` known to transformers as an ``attn_implementation``."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_attention)
