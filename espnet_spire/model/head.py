"""From hidden states to the loss of each target token, with bounded memory for logits.

The decoder is called without transformers' own head, so what families do to logits after the
matrix (caps, scales) is done here, and :func:`check_logits` compares with the model's own.
"""

from typing import List, Optional, Sequence

import torch
from torch.nn.functional import cross_entropy, kl_div, linear, log_softmax
from torch.utils.checkpoint import checkpoint

from espnet_spire.model.new_rows import NewRowsHead
from espnet_spire.utils.errors import SpireError


class HeadLoss(torch.nn.Module):
    """Cross entropy of target tokens from their hidden states.

    A module of its own, without parameters: under ZeRO-3 DeepSpeed gathers the head's matrix once
    when this is entered, on each rank alike, however many chunks follow.

    Args:
        lm: a causal LM of transformers.
        fused: whether Liger's fused kernel is used, which never has all logits in memory.
        chunk_tokens: target tokens whose logits are in memory at once; they are computed again in
            the backward pass. ``None``: all at once. It holds for pairs with ``fused`` too: the
            kernel does not give distributions.
    """

    def __init__(self, lm, *, fused: bool, chunk_tokens: Optional[int]) -> None:
        super().__init__()
        if chunk_tokens is not None and chunk_tokens < 1:
            raise SpireError(f"--loss_chunk_tokens {chunk_tokens}: must be at least 1")
        head = lm.get_output_embeddings()
        if not isinstance(head, (torch.nn.Linear, NewRowsHead)):
            raise SpireError(f"{lm.config.model_type}: its head is no matrix, it cannot be trained")
        self._head = [head]  # in a list it is no child: its parameters have one name only
        config = lm.config.get_text_config()
        self.softcap = getattr(config, "final_logit_softcapping", None)
        self.scale = float(getattr(config, "logit_scale", None) or 1.0)
        self.scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self.chunk_tokens = chunk_tokens
        self.fused_loss = _liger(self.softcap) if fused else None

    def forward(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        is_student: Optional[torch.Tensor] = None,
        is_teacher: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """Loss of each token, float32, shape (T,); with pairs (T + S,).

        With pairs the S tokens of students have a second number at the end: how far their
        distribution diverges from their teacher's. It is one tensor, not two, since DeepSpeed
        counts what a module gives: under ZeRO-3 ranks with and without pairs must be alike.

        Args:
            hidden: states from which the targets are predicted, shape (T, D).
            targets: token ids, shape (T,).
            is_student: boolean, shape (T,): tokens of documents that learn from another one.
            is_teacher: the same of those others; the k-th belongs to the k-th student.
        """
        weights, bias = self.weights(), getattr(self._head[0], "bias", None)
        if is_student is None:
            return self._cross_entropy(hidden, targets, bias, weights)
        student, teacher = is_student.nonzero()[:, 0], is_teacher.nonzero()[:, 0]
        others = (~(is_student | is_teacher)).nonzero()[:, 0]
        plain = self._cross_entropy(hidden[others], targets[others], bias, weights)
        # Of each token there are two rows of logits.
        size = max(1, (self.chunk_tokens or 2 * len(student)) // 2)
        chunks = zip(student.split(size), teacher.split(size), strict=True)
        parts = []
        for mine, its in chunks:
            given = (hidden[mine], hidden[its], targets[mine], bias, *weights)
            if len(student) <= size:
                parts.append(self._distilled(*given))
            else:
                parts.append(checkpoint(self._distilled, *given, use_reentrant=False))
        of_student, of_teacher, divergence = torch.cat(parts, dim=1)
        place = torch.cat([others, student, teacher]).argsort()
        return torch.cat([torch.cat([plain, of_student, of_teacher])[place], divergence])

    def _cross_entropy(self, hidden, targets, bias, weights) -> torch.Tensor:
        if self.fused_loss is not None and len(targets) > 0:
            matrix = weights[0] if len(weights) == 1 else torch.cat(weights)
            return self.fused_loss(matrix, hidden * self.scale, targets, bias)
        size = self.chunk_tokens
        if size is None or len(targets) <= size:
            return self._losses(hidden, targets, bias, *weights)
        parts = zip(hidden.split(size), targets.split(size), strict=True)
        return torch.cat(
            [checkpoint(self._losses, *part, bias, *weights, use_reentrant=False) for part in parts]
        )

    def weights(self) -> List[torch.Tensor]:
        """The head's matrix, in one piece or in old and new rows."""
        head = self._head[0]
        return head.blocks() if isinstance(head, NewRowsHead) else [head.weight]

    def _losses(self, hidden, targets, bias, *weights) -> torch.Tensor:
        return cross_entropy(self.logits(hidden, bias, weights), targets, reduction="none")

    def _distilled(self, student, teacher, targets, bias, *weights) -> torch.Tensor:
        """Cross entropy of student and teacher, and KL(teacher ‖ student), shape (3, S).

        The divergence moves the student alone: to its gradient the teacher is a constant.
        """
        learned, given = (
            log_softmax(self.logits(states, bias, weights), dim=-1) for states in (student, teacher)
        )
        each = [-some.gather(1, targets[:, None])[:, 0] for some in (learned, given)]
        divergence = kl_div(learned, given.detach(), reduction="none", log_target=True)
        return torch.stack([*each, divergence.sum(dim=-1)])

    def logits(
        self, hidden: torch.Tensor, bias: Optional[torch.Tensor], weights: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """What the model says of each token of the vocabulary, float32, shape (T, V)."""
        products = [linear(hidden, weight) for weight in weights]
        logits = (products[0] if len(products) == 1 else torch.cat(products, dim=-1)).float()
        if bias is not None:
            logits = logits + bias.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def _liger(softcap: Optional[float]) -> torch.nn.Module:
    """Liger's fused linear cross entropy, a loss for each token."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        raise SpireError(
            "--fused_loss needs the package liger-kernel; install it or leave the option off"
        ) from None
    # Gradients of the matrix are sums over chunks: in bfloat16 each addition would round them.
    return LigerFusedLinearCrossEntropyLoss(
        reduction="none", softcap=softcap, accum_dtype=torch.float32
    )


class _States:
    """What a decoder returns: its last states; whatever else a family asks for is ``None``."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> torch.Tensor:
        return (self.last_hidden_state,)[index]


@torch.no_grad()
def check_logits(lm, head: HeadLoss) -> None:
    """Compare :meth:`HeadLoss.logits` with what the model's own ``forward`` makes of hidden states.

    The decoder is replaced for one call by random states, so this costs next to nothing.

    Raises:
        SpireError: the family does something to logits that :class:`HeadLoss` does not know.
    """
    with gathered(list(lm.get_output_embeddings().parameters())):
        weights = head.weights()
        draw = torch.Generator().manual_seed(0)
        hidden = 4 * torch.randn(1, 2, weights[0].shape[1], generator=draw)
        hidden = hidden.to(weights[0])
        decoder = lm.base_model
        decoder.forward = lambda *args, **kwargs: _States(hidden)
        try:
            ids = torch.zeros(1, 2, dtype=torch.int64, device=hidden.device)
            theirs = lm(input_ids=ids, use_cache=False).logits[0].float()
        except (AttributeError, TypeError, KeyError):  # it wants more of its decoder
            theirs = None
        finally:
            del decoder.forward
        ours = head.logits(hidden[0], getattr(lm.get_output_embeddings(), "bias", None), weights)
    # Caps in bfloat16, as transformers has them, are off by up to 1 %.
    if theirs is None or not torch.allclose(ours, theirs, 0.02, 0.02 * float(theirs.abs().max())):
        raise SpireError(
            f"{lm.config.model_type} changes its logits in a way that is not known here, so its"
            " loss would be wrong; it cannot be trained"
        )


def gathered(parameters: List[torch.nn.Parameter], modifier_rank: Optional[int] = None):
    """Whole parameters for a while, also where ZeRO-3 has partitioned them (collective then)."""
    from contextlib import nullcontext

    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=modifier_rank)
