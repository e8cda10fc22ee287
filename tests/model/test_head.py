"""The loss of target tokens: chunks, caps and scales, Liger."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from espnet_spire.model import head as head_module
from espnet_spire.model.head import HeadLoss, check_logits
from espnet_spire.utils.errors import SpireError


def states(count=11, width=32):
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(count, width, generator=draw).requires_grad_()
    return hidden, torch.randint(0, 97, (count,), generator=draw)


def run(lm, **options):
    """Losses, and gradients of their weighted sum by states and matrix."""
    hidden, targets = states()
    lm.zero_grad()
    losses = HeadLoss(lm, **options)(hidden, targets)
    (losses * torch.arange(len(losses))).sum().backward()
    return losses.detach(), hidden.grad, lm.get_output_embeddings().weight.grad.clone()


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere"])
@pytest.mark.parametrize("chunk", [1, 4, 10, 11])
def test_chunks_give_the_same_values_and_gradients(make_lm, family, chunk):
    lm = make_lm(family)
    whole = run(lm, fused=False, chunk_tokens=None)
    for found, expected in zip(run(lm, fused=False, chunk_tokens=chunk), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_logits_of_one_chunk_are_in_memory_at_once(make_lm, monkeypatch):
    lm, sizes = make_lm("Llama"), []

    def record(logits, *args, **kwargs):
        sizes.append(len(logits))
        return cross_entropy(logits, *args, **kwargs)

    monkeypatch.setattr(head_module, "cross_entropy", record)
    run(lm, fused=False, chunk_tokens=4)
    assert sizes == [4, 4, 3] * 2 or sorted(sizes) == [3, 3, 4, 4, 4, 4]  # forward and backward


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_of_nothing_is_refused(make_lm, chunk):
    with pytest.raises(SpireError, match=f"--loss_chunk_tokens {chunk}: must be at least 1"):
        HeadLoss(make_lm("Llama"), fused=False, chunk_tokens=chunk)


def test_an_unknown_change_of_logits_is_noticed(make_lm):
    """As if a family halved its logits and this module knew nothing of it."""
    lm = make_lm("Cohere")
    head = HeadLoss(lm, fused=False, chunk_tokens=None)
    check_logits(lm, head)
    head.scale *= 2
    with pytest.raises(SpireError, match="cohere changes its logits in a way that is not known"):
        check_logits(lm, head)
    assert "forward" not in vars(lm.base_model)
    lm = make_lm("Gemma2").to(torch.bfloat16)
    head = HeadLoss(lm, fused=False, chunk_tokens=None)
    check_logits(lm, head)
    head.softcap = None
    with pytest.raises(SpireError, match="gemma2 changes its logits"):
        check_logits(lm, head)


# Liger's kernel itself, run by Triton's interpreter, against PyTorch. Triton 3.6 converts arrays of
# one element in a way that NumPy 2.4 no longer has.
_INTERPRETED = """
import torch
import triton.runtime.interpreter as interpreter

patch = interpreter._patch_lang_tensor

def patched(tensor, scope):
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

interpreter._patch_lang_tensor = patched
from transformers import LlamaConfig, LlamaForCausalLM
from espnet_spire.model.head import HeadLoss

torch.manual_seed(0)
config = LlamaConfig(vocab_size=37, hidden_size=16, intermediate_size=8, num_hidden_layers=1,
                     num_attention_heads=2)
lm = LlamaForCausalLM(config)
hidden, targets = torch.randn(11, 16), torch.randint(0, 37, (11,))
results = []
for fused in (True, False):
    lm.zero_grad()
    states = hidden.clone().requires_grad_()
    losses = HeadLoss(lm, fused=fused, chunk_tokens=None)(states, targets)
    (losses * torch.arange(11)).sum().backward()
    results.append((losses.detach(), states.grad, lm.lm_head.weight.grad.clone()))
for found, expected in zip(*results):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
print("equal")
"""


def test_liger_gives_the_same_values_and_gradients():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _INTERPRETED], env=environment, capture_output=True, text=True
    )
    assert done.stdout.endswith("equal\n"), done.stderr[-3000:]


class Reference:
    """In place of Liger's loss: the same call in plain PyTorch (its kernel wants a GPU)."""

    def __init__(self, reduction, softcap, accum_dtype):
        assert reduction == "none" and accum_dtype == torch.float32
        self.softcap = softcap

    def __call__(self, weight, hidden, targets, bias):
        assert bias is None and len(targets) > 0
        logits = hidden @ weight.T
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return cross_entropy(logits, targets, reduction="none")


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere", "Granite"])
def test_liger_is_told_of_caps_and_scales(make_lm, monkeypatch, family):
    liger = SimpleNamespace(LigerFusedLinearCrossEntropyLoss=Reference)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", liger)
    lm = make_lm(family)
    plain = run(lm, fused=False, chunk_tokens=None)
    for found, expected in zip(run(lm, fused=True, chunk_tokens=None), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    fused = HeadLoss(lm, fused=True, chunk_tokens=None)
    assert fused(torch.zeros(0, 32), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_without_liger_an_error_says_so(make_lm, monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    with pytest.raises(SpireError, match="--fused_loss needs the package liger-kernel"):
        HeadLoss(make_lm("Llama"), fused=True, chunk_tokens=None)
