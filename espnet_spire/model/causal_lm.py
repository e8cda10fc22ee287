"""A causal LM with the loss that SPIRE trains."""

from typing import Callable, NamedTuple, Optional

import torch

from espnet_spire.model.attention import check_packable, packed_hidden
from espnet_spire.model.head import HeadLoss, check_logits
from espnet_spire.train.examples import IGNORE
from espnet_spire.train.pairs import GMU_WEIGHTS, KdWeights
from espnet_spire.utils.errors import SpireError


class LossOutput(NamedTuple):
    """``loss_sum``: scalar, summed over target tokens; ``document_loss``: the same for each
    document, float32 of shape (D,), without gradient and without weights of distillation;
    ``divergence``: the divergence of each pair's student from its teacher, shape (P,), likewise."""

    loss_sum: torch.Tensor
    document_loss: torch.Tensor
    divergence: torch.Tensor


class CausalLMLoss(torch.nn.Module):
    """Next-token cross entropy of packed rows, *summed*: the trainer knows the global batch.

    Logits are computed at target positions only, which in instruction tuning is a small part.

    Args:
        lm: a causal LM of transformers; its parameters are named ``lm.…``.
        fused: Liger's fused linear cross entropy.
        loss_chunk_tokens: target tokens whose logits are in memory at once; ``None`` for all.
        kd_weights: of the losses of pairs, see :mod:`espnet_spire.train.pairs`.

    Raises:
        SpireError: the model cannot be trained on packed rows, or does something unknown to its
            logits.
    """

    def __init__(
        self,
        lm,
        *,
        fused: bool = False,
        loss_chunk_tokens: Optional[int] = None,
        kd_weights: KdWeights = GMU_WEIGHTS,
    ) -> None:
        super().__init__()
        self.kd_weights = kd_weights
        check_packable(lm)
        self.lm = lm
        self.head_loss = HeadLoss(lm, fused=fused, chunk_tokens=loss_chunk_tokens)
        check_logits(lm, self.head_loss)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        documents: torch.Tensor,
        num_documents: int,
        students: Optional[torch.Tensor] = None,
    ) -> LossOutput:
        """All of shape (B, L), as ``train.collate.PackedRows`` has them.

        Args:
            position_ids: restart at 0 with each document and with the padding tail.
            labels: not shifted; -100 at the first token of each document and in padding.
            documents: number of the document within the batch.
            num_documents: how many there are, padding not counted.
            students: numbers of documents that learn from the next one too, ascending, shape (P,).
                Both have the same target tokens.
        """
        hidden = packed_hidden(self.lm, input_ids, position_ids)
        targets = labels[:, 1:]
        is_target = targets != IGNORE
        owners = documents[:, 1:][is_target]
        given = hidden[:, :-1][is_target], targets[is_target]
        if students is None or len(students) == 0:
            losses = self.head_loss(*given)
            loss_sum, divergence = losses.sum(), losses.new_zeros(0)
        else:
            roles = torch.isin(owners, students), torch.isin(owners, students + 1)
            losses, divergences = self.head_loss(*given, *roles).tensor_split([len(owners)])
            loss_sum = self._weighted(losses, divergences, *roles)
            pair = torch.searchsorted(students, owners[roles[0]])
            divergence = _sums(divergences, pair, len(students))
        return LossOutput(loss_sum, _sums(losses, owners, num_documents), divergence)

    def _weighted(self, losses, divergences, is_student, is_teacher) -> torch.Tensor:
        weights = torch.ones_like(losses)
        weights[is_student], weights[is_teacher] = self.kd_weights.st, self.kd_weights.mt
        return (losses * weights).sum() + self.kd_weights.kd * divergences.sum()


def _sums(values: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of values by owner, float32, shape (count,), without gradient."""
    sums = torch.zeros(count, dtype=torch.float32, device=values.device)
    return sums.index_add_(0, owners, values.detach().float())


@torch.no_grad()
def check_packing(model: Callable[..., LossOutput], lm, device: torch.device) -> None:
    """Refuse a model whose documents in one row see each other (GPT-OSS in transformers 5.23).

    Two documents are packed; the second one's loss must not change with what is in the first.
    Costs two passes over twelve tokens; collective under ZeRO-3, so call it on every rank.

    Args:
        model: a :class:`CausalLMLoss`, or DeepSpeed's engine around it.
        lm: its language model.
        device: where tensors go.
    """
    size = lm.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, size, (1, 12), generator=draw)
    position_ids = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    labels = input_ids.masked_fill(position_ids == 0, IGNORE)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    others = input_ids.clone()
    others[0, :5] = (others[0, :5] + size // 2) % size
    was_training = model.training
    model.eval()
    before, after = (
        model(*(t.to(device) for t in (ids, position_ids, labels, documents)), 2).document_loss[1]
        for ids in (input_ids, others)
    )
    model.train(was_training)
    # Experts of a mixture round differently in other company.
    tolerance = 1e-5 if lm.dtype == torch.float32 else 1e-3
    if abs(float(after - before)) > tolerance * float(before):
        raise SpireError(
            f"{lm.config.model_type} with attention {lm.config._attn_implementation}: documents in"
            " one row see each other; choose another --attention, or another model"
        )
