"""The choice of attention, and kernels that take the borders of documents."""

import importlib
from collections import defaultdict
from functools import partial

import pytest
import torch

from espnet_spire.model import attention
from espnet_spire.model.attention import choose_attention, document_borders, packed_hidden
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def with_flash(monkeypatch):
    """Pretend that flash-attn is installed, or is not."""

    def pretend(installed):
        monkeypatch.setattr(
            attention.importlib.util,
            "find_spec",
            lambda name: object() if installed and name == "flash_attn" else None,
        )

    return pretend


@pytest.mark.parametrize(
    ("family", "device", "dtype", "installed", "expected"),
    [
        ("Llama", "cuda", torch.bfloat16, True, "flash_attention_2"),
        ("Gemma2", "cuda", torch.bfloat16, True, "flash_attention_2"),
        ("Llama", "cuda", torch.float32, True, "sdpa"),
        ("Llama", "cuda", torch.bfloat16, False, "sdpa"),
        ("Llama", "cpu", torch.bfloat16, True, "varlen"),
        ("Gemma2", "cpu", torch.float32, False, "eager"),
        ("Gemma2", "cuda", torch.bfloat16, False, "eager"),
    ],
)
def test_auto(make_lm, with_flash, family, device, dtype, installed, expected):
    lm = make_lm(family)
    with_flash(installed)
    assert choose_attention("auto", lm, device=device, dtype=dtype) == expected


def test_names_are_taken_as_they_are(make_lm, with_flash):
    lm = make_lm("Llama")
    with_flash(True)
    for name in ("flash_attention_2", "sdpa", "flex_attention", "eager", "varlen"):
        assert choose_attention(name, lm, device="cuda", dtype=torch.bfloat16) == name


@pytest.mark.parametrize(
    ("name", "family", "installed", "message"),
    [
        (
            "flash",
            "Llama",
            True,
            "--attention flash: choose auto or one of flash_attention_2, sdpa",
        ),
        ("flash_attention_2", "Llama", False, "needs the package flash-attn; choose auto"),
        ("flash_attention_2", "Llama", True, "needs CUDA and bfloat16; choose auto"),
        ("sdpa", "Gemma2", False, "--attention sdpa: gemma2 caps attention logits"),
        ("varlen", "Gemma2", False, "--attention varlen: gemma2 caps attention logits"),
    ],
)
def test_what_cannot_run_is_refused(make_lm, with_flash, name, family, installed, message):
    lm = make_lm(family)
    with_flash(installed)
    with pytest.raises(SpireError, match=message):
        choose_attention(name, lm, device="cpu", dtype=torch.float32)


@pytest.fixture
def nemotron():
    """A model whose layers drop what they do not know."""
    from transformers import NemotronConfig, NemotronForCausalLM

    config = NemotronConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return NemotronForCausalLM(config)


def test_borders_that_do_not_reach_attention_are_noticed(nemotron, with_flash):
    with_flash(True)
    for device, dtype in (("cuda", torch.bfloat16), ("cpu", torch.float32)):
        assert choose_attention("auto", nemotron, device=device, dtype=dtype) == "sdpa"
    for name in ("flash_attention_2", "varlen"):
        with pytest.raises(SpireError, match=f"--attention {name}: nemotron does not hand the bor"):
            choose_attention(name, nemotron, device="cuda", dtype=torch.bfloat16)


def test_borders_by_hand():
    position_ids = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 0, 1]])
    borders = document_borders(position_ids)
    assert borders["cu_seq_lens_q"].tolist() == [0, 3, 4, 8, 10]
    assert borders["cu_seq_lens_q"].dtype == torch.int32
    assert borders["max_length_q"] == borders["max_length_k"] == 4
    assert borders["cu_seq_lens_k"].tolist() == [0, 3, 4, 8, 10]


def reference_varlen(
    q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, softmax_scale, causal, **settings
):
    """Flash attention's varlen kernel written out: (T, H, D) each, softmax by hand."""
    assert causal and torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    before = settings.get("window_size", (-1, -1))[0]
    softcap = settings.get("softcap", 0)
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    output = torch.empty_like(q)
    for start, end in zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], strict=True):
        scores = torch.einsum("qhd,khd->hqk", q[start:end], k[start:end]) * softmax_scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        seen = torch.ones_like(scores[0], dtype=torch.bool).tril()
        if before >= 0:
            seen = seen.triu(-before)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
        output[start:end] = torch.einsum("hqk,khd->qhd", weights, v[start:end])
    return output


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma2"])
def test_flash_attention_gets_all_rows_as_one_with_borders(make_lm, rows, monkeypatch, family):
    """transformers' own flash path, with the kernel itself replaced."""
    from transformers import modeling_flash_attention_utils as flash

    plain, lm = make_lm(family), make_lm(family)

    def refuse(*args, **kwargs):
        raise AssertionError("documents must be told apart by borders")

    def load(implementation):
        supported = defaultdict(bool, window_size=True, softcap=True, max_seqlen_q=True)
        process = partial(flash._process_flash_attention_kwargs, supports_mapping=supported)
        return (refuse, reference_varlen, refuse, refuse, refuse), (process, None)

    monkeypatch.setattr(flash, "lazy_import_flash_attention", load)
    lm.config._attn_implementation_internal = "flash_attention_2"
    with torch.no_grad():
        hidden = packed_hidden(lm, rows.batch["input_ids"], rows.batch["position_ids"])
        expected = packed_hidden(plain, rows.batch["input_ids"], rows.batch["position_ids"])
    torch.testing.assert_close(hidden, expected, rtol=0, atol=2e-5)


def test_cuda_varlen_gets_what_its_kernel_wants(monkeypatch):
    """The call of PyTorch's kernel, against the same attention on the CPU."""
    module, draw = importlib.import_module("torch.nn.attention.varlen"), torch.manual_seed(0)
    calls = []

    def kernel(q, k, v, borders, borders_k, longest, longest_k, *, scale, window_size):
        calls.append((q.shape, window_size))
        assert borders is borders_k and longest == longest_k and q.is_contiguous()
        return reference_varlen(
            *(q, k, v),
            cu_seqlens_q=borders,
            cu_seqlens_k=borders_k,
            max_seqlen_q=longest,
            softmax_scale=scale,
            causal=True,
            window_size=window_size,
        )

    class OnCuda(torch.Tensor):
        """Says that it lies on a GPU."""

        device = torch.device("cuda")

    monkeypatch.setattr(module, "varlen_attn", kernel)
    query = torch.randn(1, 4, 11, 8, generator=draw)
    key, value = (torch.randn(1, 2, 11, 8, generator=draw) for _ in range(2))
    borders = document_borders(torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6]]))
    borders = {name: borders[name] for name in ("cu_seq_lens_q", "max_length_q")}
    for window in (None, 3):
        settings = {**borders, "scaling": 0.3, "sliding_window": window}
        expected, _ = attention.varlen_attention(None, query, key, value, None, **settings)
        on_cuda = query.as_subclass(OnCuda)
        found, _ = attention.varlen_attention(None, on_cuda, key, value, None, **settings)
        assert found.shape == (1, 11, 4, 8)
        torch.testing.assert_close(found.as_subclass(torch.Tensor), expected)
    assert calls == [((11, 4, 8), (-1, 0)), ((11, 4, 8), (2, 0))]
