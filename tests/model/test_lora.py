"""Adapters, and new rows that are trained while old ones stay."""

import pytest
import torch

from espnet_spire.model.causal_lm import CausalLMLoss
from espnet_spire.model.lora import LoraSettings, add_lora, lora_settings
from espnet_spire.model.new_rows import NewRowsEmbedding
from espnet_spire.utils.errors import SpireError

FIRST = 80


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_start_is_the_model_itself(make_lm, rows, family, tied):
    plain = make_lm(family, tie_word_embeddings=tied)
    lm = make_lm(family, tie_word_embeddings=tied)
    add_lora(lm, LoraSettings(r=2, alpha=4), FIRST)
    ids = rows.batch["input_ids"]
    assert (ids >= FIRST).any() and (ids < FIRST).any()
    with torch.no_grad():
        torch.testing.assert_close(lm(ids).logits, plain(ids).logits, rtol=0, atol=1e-6)
        expected = CausalLMLoss(plain)(**rows.batch).document_loss
        found = CausalLMLoss(lm, loss_chunk_tokens=4)(**rows.batch).document_loss
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_get_the_gradient_of_the_whole_matrix(make_lm, rows, family, tied):
    plain = make_lm(family, tie_word_embeddings=tied)
    lm = make_lm(family, tie_word_embeddings=tied)
    add_lora(lm, LoraSettings(r=2, alpha=4), FIRST)
    CausalLMLoss(plain)(**rows.batch).loss_sum.backward()
    CausalLMLoss(lm, loss_chunk_tokens=7)(**rows.batch).loss_sum.backward()
    for name in ("get_input_embeddings", "get_output_embeddings"):
        found = getattr(lm, name)().new_rows.grad
        expected = getattr(plain, name)().weight.grad[FIRST:]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.abs().max() > 0
    shared = lm.get_input_embeddings().new_rows is lm.get_output_embeddings().new_rows
    assert shared == tied


def test_the_row_of_the_padding_id_is_no_exception(make_lm):
    """``padding_idx`` names an old row; the new row of the same number is trained."""
    embedding = torch.nn.Embedding(10, 4, padding_idx=1)
    new = torch.nn.Parameter(embedding.weight.detach()[6:].clone())
    NewRowsEmbedding(embedding, 6, new)(torch.tensor([7])).sum().backward()
    assert new.grad.tolist() == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize("tied", [False, True])
def test_only_adapters_and_new_rows_are_trained(make_lm, rows, tied):
    lm = make_lm("Llama", tie_word_embeddings=tied).train()
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    add_lora(lm, LoraSettings(r=2, alpha=4), FIRST)
    trained = {name: p for name, p in lm.named_parameters() if p.requires_grad}
    matrices = 2 * 7  # of two layers
    assert len(trained) == 2 * matrices + (1 if tied else 2)
    assert all("lora_" in name or "new_rows" in name for name in trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        CausalLMLoss(lm)(**rows.batch).loss_sum.backward()
        optimizer.step()
    after = lm.state_dict()
    for name, tensor in before.items():
        base = name.replace(".weight", ".base_layer.weight")
        assert torch.equal(after[base if base in after else name], tensor), name
    assert not torch.equal(lm.get_output_embeddings().new_rows, before["lm_head.weight"][FIRST:])


def test_all_ranks_draw_the_same_adapters(make_lm):
    """Under ZeRO-3 each keeps a part of what it drew; the caller's generator is left alone."""
    drawn = []
    for seed in (1, 2):
        lm = make_lm("Llama")
        torch.manual_seed(seed)
        expected = torch.random.get_rng_state()
        add_lora(lm, LoraSettings(r=2), FIRST)
        assert torch.equal(torch.random.get_rng_state(), expected)
        drawn.append({n: p.detach() for n, p in lm.named_parameters() if "lora_A" in n})
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


def test_settings_are_checked():
    assert lora_settings({}) == (64, 128, 0.0, "all-linear")
    assert lora_settings({"r": 8, "target_modules": ["q_proj"]}).target_modules == ["q_proj"]
    with pytest.raises(SpireError, match="lora: no setting 'rank'"):
        lora_settings({"rank": 8})
    with pytest.raises(SpireError, match="lora: r is 0, it must be a whole number"):
        lora_settings({"r": 0})
    with pytest.raises(SpireError, match="lora: alpha must be above 0, dropout"):
        lora_settings({"dropout": 1.0})


def test_modules_that_do_not_fit_are_refused(make_lm):
    with pytest.raises(SpireError, match="lora: Target modules .*nothing"):
        add_lora(make_lm("Llama"), LoraSettings(target_modules=["nothing"]), FIRST)
    for name in ("lm_head", "embed_tokens"):
        with pytest.raises(SpireError, match="lora: target_modules has an embedding matrix"):
            add_lora(make_lm("Llama"), LoraSettings(target_modules=["q_proj", name]), FIRST)
    with pytest.raises(SpireError, match="lora: the model has 97 rows, none new from 97 on"):
        add_lora(make_lm("Llama"), LoraSettings(), 97)
