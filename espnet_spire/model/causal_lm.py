"""A causal LM with the loss that SPIRE trains."""

from typing import Callable, NamedTuple, Optional

import torch

from espnet_spire.model.attention import check_packable, packed_hidden
from espnet_spire.model.head import HeadLoss, check_logits
from espnet_spire.train.examples import IGNORE
from espnet_spire.utils.errors import SpireError


class LossOutput(NamedTuple):
    """``loss_sum``: scalar, summed over target tokens; ``document_loss``: the same for each
    document, float32 of shape (D,), without gradient."""

    loss_sum: torch.Tensor
    document_loss: torch.Tensor


class CausalLMLoss(torch.nn.Module):
    """Next-token cross entropy of packed rows, *summed*: the trainer knows the global batch.

    Logits are computed at target positions only, which in instruction tuning is a small part.

    Args:
        lm: a causal LM of transformers; its parameters are named ``lm.…``.
        fused: Liger's fused linear cross entropy.
        loss_chunk_tokens: target tokens whose logits are in memory at once; ``None`` for all.

    Raises:
        SpireError: the model cannot be trained on packed rows, or does something unknown to its
            logits.
    """

    def __init__(self, lm, *, fused: bool = False, loss_chunk_tokens: Optional[int] = None) -> None:
        super().__init__()
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
    ) -> LossOutput:
        """All of shape (B, L), as ``train.collate.PackedRows`` has them.

        Args:
            position_ids: restart at 0 with each document and with the padding tail.
            labels: not shifted; -100 at the first token of each document and in padding.
            documents: number of the document within the batch.
            num_documents: how many there are, padding not counted.
        """
        hidden = packed_hidden(self.lm, input_ids, position_ids)
        targets = labels[:, 1:]
        is_target = targets != IGNORE
        losses = self.head_loss(hidden[:, :-1][is_target], targets[is_target])
        document_loss = torch.zeros(num_documents, dtype=torch.float32, device=losses.device)
        document_loss.index_add_(0, documents[:, 1:][is_target], losses.detach().float())
        return LossOutput(losses.sum(), document_loss)


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
