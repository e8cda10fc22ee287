"""The summed loss against transformers' own."""

import pytest
import torch

from espnet_spire.model.causal_lm import CausalLMLoss, SpireShell


@pytest.fixture
def lm(lm_dir):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(lm_dir)


@pytest.fixture
def batch():
    """Three right-padded rows; the second has no target; the first token of the third is one."""
    draw = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 380, (3, 12), generator=draw)
    attention_mask = torch.ones_like(input_ids)
    labels = input_ids.clone()
    for row, length in enumerate((12, 7, 9)):
        input_ids[row, length:] = 2
        attention_mask[row, length:] = 0
        labels[row, length:] = -100
    labels[0, :5] = -100
    labels[1] = -100
    labels[2, 4:6] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


TARGETS = 7 + 0 + 6  # a label on the first token predicts nothing


def test_loss_is_transformers_loss_times_the_number_of_targets(lm, batch):
    output = CausalLMLoss(lm)(**batch)
    assert output.example_targets.tolist() == [7, 0, 6]
    expected = lm(**batch).loss.item() * TARGETS
    assert output.loss_sum.item() == pytest.approx(expected, rel=1e-6)
    assert output.example_loss.sum().item() == pytest.approx(expected, rel=1e-6)
    assert output.example_loss[1] == 0 and not output.example_loss.requires_grad


def test_gradients_are_transformers_gradients(lm, batch):
    lm.train()
    (lm(**batch).loss * TARGETS).backward()
    expected = {name: p.grad.clone() for name, p in lm.named_parameters()}
    lm.zero_grad()
    CausalLMLoss(lm)(**batch).loss_sum.backward()
    for name, parameter in lm.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


def test_each_row_alone_gives_its_part(lm, batch):
    model = CausalLMLoss(lm)
    together = model(**batch)
    for row, length in enumerate((12, 7, 9)):
        alone = model(**{name: value[row : row + 1, :length] for name, value in batch.items()})
        assert alone.loss_sum.item() == pytest.approx(
            together.example_loss[row].item(), rel=1e-5, abs=1e-6
        )


def test_a_batch_without_targets_has_loss_and_gradient_zero(lm, batch):
    batch["labels"] = torch.full_like(batch["labels"], -100)
    output = CausalLMLoss(lm)(**batch)
    assert output.loss_sum.item() == 0 and output.example_targets.tolist() == [0, 0, 0]
    output.loss_sum.backward()
    assert all(p.grad is None or not p.grad.any() for p in lm.parameters())


def test_the_shell_trains_nothing():
    shell = SpireShell("some/model")
    assert sum(p.numel() for p in shell.parameters()) == 1
    with pytest.raises(RuntimeError, match="SpireTrainer"):
        shell()
    assert "some/model" in repr(shell)
