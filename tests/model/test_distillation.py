"""Losses of pairs and their gradients against a plain computation, one document at a time."""

import sys
from types import SimpleNamespace

import pytest
import torch

from espnet_spire.model import head as head_module
from espnet_spire.model.causal_lm import CausalLMLoss
from espnet_spire.train.collate import Document, collate
from espnet_spire.train.pairs import KdWeights

WEIGHTS = KdWeights(0.7, 1.3, 2.5)


def document(draw, length, answer=None):
    """A document that ends with its answer; without one all of it but the first is learned."""
    ids = torch.randint(3, 97, (length,), generator=draw)
    if answer is None:
        return Document(ids.numpy(), torch.tensor([[1, length]]).numpy())
    ids = torch.cat([ids, answer])
    return Document(ids.numpy(), torch.tensor([[length, len(ids)]]).numpy())


@pytest.fixture
def documents():
    """Ordinary, student, teacher | student, teacher, ordinary, student, teacher."""
    draw = torch.Generator().manual_seed(5)
    answers = [torch.randint(3, 97, (n,), generator=draw) for n in (4, 1, 3)]
    return [
        [document(draw, 5), document(draw, 6, answers[0]), document(draw, 3, answers[0])],
        [
            *(document(draw, 4, answers[1]), document(draw, 2, answers[1])),
            *(document(draw, 3), document(draw, 2, answers[2]), document(draw, 5, answers[2])),
        ],
    ]


STUDENTS = [1, 3, 6]
# Of each row those that are no teachers.
KEPT = ([0, 1], [0, 2, 3])


def batch_of(rows):
    tensors = collate(rows, 0)._asdict()
    return {**tensors, "num_documents": 8, "students": torch.tensor(STUDENTS)}


def by_hand(lm, rows, weights, teacher=None):
    """Loss, and that of each document and pair, from the definitions, by transformers' forward.

    ``teacher``: another model in the place of the teacher of the divergence.
    """
    flat = [one for row in rows for one in row]

    def log_probabilities(model, one):
        ids = torch.from_numpy(one.input_ids)
        (start, end) = one.target_spans[0].tolist()
        logits = model(ids[None]).logits[0]
        return logits[start - 1 : end - 1].log_softmax(-1), ids[start:end]

    total, each, divergences = 0.0, [], []
    for number, one in enumerate(flat):
        logs, targets = log_probabilities(lm, one)
        loss = sum(-logs[i, target] for i, target in enumerate(targets))
        is_student, is_teacher = number in STUDENTS, number - 1 in STUDENTS
        total = total + (weights.st if is_student else weights.mt if is_teacher else 1.0) * loss
        each.append(loss.item())
        if is_student:
            with torch.no_grad():
                wanted, _ = log_probabilities(teacher or lm, flat[number + 1])
            kl = (wanted.exp() * (wanted - logs)).sum()
            total = total + weights.kd * kl
            divergences.append(kl.item())
    return total, each, divergences


def gradients(lm):
    return {name: p.grad.clone() for name, p in lm.named_parameters()}


def assert_close(found, expected, rtol):
    for name, value in expected.items():
        scale = value.abs().max()
        assert (found[name] - value).abs().max() <= rtol * scale, name


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere"])
@pytest.mark.parametrize("chunk", [None, 1, 5, 1000])
def test_loss_and_gradient_are_those_of_the_definition(make_lm, documents, family, chunk):
    """In chunks or not; caps and scales of logits too. Heads compute in float32."""
    lm = make_lm(family)
    expected, each, divergences = by_hand(lm, documents, WEIGHTS)
    expected.backward()
    wanted = gradients(lm)
    lm.zero_grad()
    model = CausalLMLoss(lm, loss_chunk_tokens=chunk, kd_weights=WEIGHTS)
    output = model(**batch_of(documents))
    output.loss_sum.backward()
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.document_loss.tolist() == pytest.approx(each, rel=1e-5)
    assert output.divergence.tolist() == pytest.approx(divergences, rel=1e-4)
    assert min(divergences) > 0.01 and not output.divergence.requires_grad
    assert_close(gradients(lm), wanted, rtol=2e-5)


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_head_in_double_precision(make_lm, monkeypatch, chunk):
    """To twelve digits, where its conversion to float32 is left out."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    lm = make_lm("Llama").double()
    draw = torch.Generator().manual_seed(2)
    hidden = torch.randn(8, 32, generator=draw, dtype=torch.float64).requires_grad_()
    targets = torch.tensor([11, 5, 6, 7, 5, 6, 7, 12])
    roles = torch.tensor([0, 1, 1, 1, 2, 2, 2, 0])
    head = head_module.HeadLoss(lm, fused=False, chunk_tokens=chunk)
    found = head(hidden, targets, roles == 1, roles == 2).split([8, 3])
    mix = torch.rand(11, generator=draw, dtype=torch.float64)
    (torch.cat(found) * mix).sum().backward()
    matrix = lm.lm_head.weight
    found_gradients = hidden.grad.clone(), matrix.grad.clone()

    hidden.grad = matrix.grad = None
    scores = (hidden @ matrix.T).exp()
    probabilities = scores / scores.sum(dim=1, keepdim=True)
    losses = -probabilities[torch.arange(8), targets].log()
    teacher, student = probabilities[4:7].detach(), probabilities[1:4]
    divergence = (teacher * (teacher / student).log()).sum(dim=1)
    (torch.cat([losses, divergence]) * mix).sum().backward()
    expected = losses, divergence, hidden.grad, matrix.grad
    for one, two in zip((*found, *found_gradients), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_no_gradient_flows_through_the_teacher(make_lm, documents):
    """Of the divergence alone: states of teachers get none, those of students do."""
    lm = make_lm("Llama")
    states = []
    real = head_module.HeadLoss.forward

    def spy(self, hidden, *args):
        states.append((hidden, *args))
        hidden.retain_grad()
        return real(self, hidden, *args)

    head_module.HeadLoss.forward, kept = spy, real
    try:
        model = CausalLMLoss(lm, kd_weights=KdWeights(0, 0, 1))
        batch = batch_of(documents)
        batch["labels"][batch["documents"] == 0] = -100  # ordinary documents
        batch["labels"][batch["documents"] == 5] = -100
        model(**batch).loss_sum.backward()
    finally:
        head_module.HeadLoss.forward = kept
    ((hidden, _, is_student, is_teacher),) = states
    assert not hidden.grad[is_teacher].any()
    assert (hidden.grad[is_student].abs().amax(dim=1) > 1e-4).all()


def test_weights_of_ordinary_st_give_its_loss_and_gradient(make_lm, documents):
    lm = make_lm("Llama")
    batch = batch_of(documents)
    CausalLMLoss(lm, kd_weights=KdWeights(1, 0, 0))(**batch).loss_sum.backward()
    found = gradients(lm)
    lm.zero_grad()
    students = [[row[i] for i in kept] for row, kept in zip(documents, KEPT, strict=True)]
    output = CausalLMLoss(lm)(**collate(students, 0)._asdict(), num_documents=5)
    output.loss_sum.backward()
    assert_close(found, gradients(lm), rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "varlen"])
def test_packed_or_not_is_the_same(make_lm, documents, attention):
    model = CausalLMLoss(make_lm("Llama", attention=attention), kd_weights=WEIGHTS)
    packed = model(**batch_of(documents))
    alone = model(**batch_of([[one] for row in documents for one in row]))
    for found, expected in zip(packed, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_without_pairs_is_computed_as_ever(make_lm, rows):
    model = CausalLMLoss(make_lm("Llama"), loss_chunk_tokens=3, kd_weights=WEIGHTS)
    plain = model(**rows.batch)
    none = model(**rows.batch, students=torch.zeros(0, dtype=torch.int64))
    assert all(torch.equal(a, b) for a, b in zip(plain, none, strict=True))
    assert plain.divergence.shape == (0,)


def test_logits_of_a_chunk_are_in_memory_at_once(make_lm, documents, monkeypatch):
    """Student's and teacher's rows together."""
    sizes = []
    real = head_module.HeadLoss.logits

    def spy(self, hidden, *args):
        sizes.append(len(hidden))
        return real(self, hidden, *args)

    model = CausalLMLoss(make_lm("Llama"), loss_chunk_tokens=4, kd_weights=WEIGHTS)
    monkeypatch.setattr(head_module.HeadLoss, "logits", spy)
    model(**batch_of(documents)).loss_sum.backward()
    assert max(sizes) == 4 and sizes.count(2) >= 16  # 8 tokens of pairs, twice, two at a time


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_with_ligers_kernel_for_the_others(make_lm, documents, monkeypatch, family):
    """Its place is taken by plain PyTorch here (tests/model/test_head.py runs the kernel)."""
    seen = []

    class Reference:
        def __init__(self, reduction, softcap, accum_dtype):
            self.softcap = softcap

        def __call__(self, weight, hidden, targets, bias):
            seen.append(len(targets))
            logits = hidden @ weight.T
            if self.softcap is not None:
                logits = torch.tanh(logits / self.softcap) * self.softcap
            return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    liger = SimpleNamespace(LigerFusedLinearCrossEntropyLoss=Reference)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", liger)
    lm = make_lm(family)
    outputs = [
        CausalLMLoss(lm, fused=fused, kd_weights=WEIGHTS)(**batch_of(documents))
        for fused in (True, False)
    ]
    assert seen == [6]  # the targets of both ordinary documents
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
