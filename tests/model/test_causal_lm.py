"""Packed rows against transformers' own forward, one document at a time.

A leak between documents moves a loss too little to be seen, so logits are compared.
"""

import pytest
import torch

from espnet_spire.model.attention import packed_hidden
from espnet_spire.model.causal_lm import CausalLMLoss, check_packing
from espnet_spire.utils.errors import SpireError

FAMILIES = [
    *((family, how) for family in ("Llama", "Qwen2", "Mistral") for how in ("sdpa", "varlen")),
    *((family, "eager") for family in ("Llama", "Gemma2", "Cohere", "Granite")),
]


def packed_logits(model, rows):
    """Logits of each document, cut from its row."""
    hidden = packed_hidden(model.lm, rows.batch["input_ids"], rows.batch["position_ids"])
    head = model.head_loss
    logits = head.logits(hidden, None, head.weights())
    pieces = []
    for row, in_row in enumerate(rows.documents):
        sizes = [len(ids) for ids in in_row]
        pieces += logits[row, : sum(sizes)].split(sizes)
    return pieces


def document_loss(lm, ids):
    """Summed loss of one document by transformers."""
    logits = lm(input_ids=ids[None], labels=ids[None])
    return logits.loss * (len(ids) - 1)


@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_packed_logits_are_those_of_each_document_alone(make_lm, rows, family, attention):
    model, plain = CausalLMLoss(make_lm(family, attention=attention)), make_lm(family)
    with torch.no_grad():
        packed = packed_logits(model, rows)
        alone = [plain(ids[None]).logits[0] for row in rows.documents for ids in row]
    for found, expected in zip(packed, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert expected.abs().max() > 0.5


@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_what_is_in_a_document_changes_no_other(make_lm, rows, family, attention):
    model = CausalLMLoss(make_lm(family, attention=attention))
    with torch.no_grad():
        before = packed_logits(model, rows)
        for number, (row, place) in enumerate([(0, slice(0, 7)), (0, slice(7, 9))]):
            rows.batch["input_ids"][row, place] = 96 - rows.batch["input_ids"][row, place]
            after = packed_logits(model, rows)
            for other, (old, new) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(old, new) == (other != number)
            before = after


@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_loss_is_the_sum_of_transformers_losses(make_lm, rows, family, attention):
    model, plain = CausalLMLoss(make_lm(family, attention=attention)), make_lm(family)
    output = model(**rows.batch)
    expected = [document_loss(plain, ids).item() for row in rows.documents for ids in row]
    assert output.document_loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert output.loss_sum.item() == pytest.approx(sum(expected), rel=1e-6)
    assert output.document_loss.dtype == torch.float32 and not output.document_loss.requires_grad


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("family", "attention"), [("Llama", "sdpa"), ("Llama", "varlen")])
def test_gradients_are_those_of_the_documents(make_lm, rows, family, attention, checkpointing):
    plain = make_lm(family).train()
    sum(document_loss(plain, ids) for row in rows.documents for ids in row).backward()
    lm = make_lm(family, attention=attention).train()
    if checkpointing:
        lm.activation_checkpointing_enable({"use_reentrant": False})
    CausalLMLoss(lm)(**rows.batch).loss_sum.backward()
    for (name, found), expected in zip(lm.named_parameters(), plain.parameters(), strict=True):
        scale = expected.grad.abs().max()
        assert (found.grad - expected.grad).abs().max() < 1e-5 * scale, name


def test_only_labels_that_are_given_count(make_lm, rows):
    model, plain = CausalLMLoss(make_lm("Llama")), make_lm("Llama")
    labels = rows.batch["labels"]
    labels[0, 7:] = -100  # all of the second and third document
    labels[0, 3:5] = -100
    output = model(**rows.batch)
    ids = rows.documents[0][0]
    logits = plain(ids[None]).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    assert output.document_loss[0].item() == pytest.approx(losses[[0, 1, 4, 5]].sum().item())
    assert output.document_loss[1:3].tolist() == [0, 0] and output.document_loss[3] > 0


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_batch_without_targets_has_loss_and_gradient_zero(make_lm, rows, chunk):
    model = CausalLMLoss(make_lm("Llama"), loss_chunk_tokens=chunk)
    rows.batch["labels"].fill_(-100)
    rows.batch["num_documents"] = 0
    output = model(**rows.batch)
    assert output.loss_sum.item() == 0 and output.document_loss.shape == (0,)
    output.loss_sum.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_parameters_have_one_name_each(make_lm):
    lm = make_lm("Llama")
    names = [name for name, _ in CausalLMLoss(lm).named_parameters(remove_duplicate=False)]
    assert names == [f"lm.{name}" for name, _ in lm.named_parameters()]


def test_a_recurrent_model_is_refused():
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(SpireError, match="mamba cannot be trained on packed rows: it has recurr"):
        CausalLMLoss(MambaForCausalLM(config))


def test_a_model_without_positions_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(SpireError, match="bloom cannot .*: it takes no position_ids"):
        CausalLMLoss(BloomForCausalLM(config))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_the_check_of_packing_passes(make_lm, family, attention, dtype):
    lm = make_lm(family, attention=attention).to(dtype)
    model = CausalLMLoss(lm).train()
    check_packing(model, lm, torch.device("cpu"))
    assert model.training


def test_a_model_that_leaks_is_refused():
    """GPT-OSS makes its masks without positions."""
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        initializer_range=0.3,
    )
    lm = GptOssForCausalLM._from_config(config, attn_implementation="eager")
    words = "gpt_oss with attention eager: documents in one row see each other"
    with pytest.raises(SpireError, match=words):
        check_packing(CausalLMLoss(lm), lm, torch.device("cpu"))
