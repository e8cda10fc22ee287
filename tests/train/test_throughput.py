import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_spire.train.throughput import (
    ModelSize,
    memory_gib,
    model_size,
    peak_flops,
    step_flops,
)
from espnet_spire.utils.errors import SpireError


def small_llama(**more):
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        **more,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("tied", [False, True])
def test_sizes_by_hand(tied):
    # q and o 16×16, k and v 16×8; three matrices 16×24; three layers
    per_layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24
    size = model_size(small_llama(tie_word_embeddings=tied))
    assert size == ModelSize(3 * per_layer, 3 * per_layer, 1600, 3 * 16)


def test_frozen_matrices_get_no_gradient():
    lm = small_llama()
    for parameter in lm.model.layers.parameters():
        parameter.requires_grad = False
    size = model_size(lm)
    assert size.trained_matrices == 0 and size.matrices == 3 * 1920


def test_operations_equal_torchs_own_count():
    """torch counts the matrix products of a forward pass; a step is three of them."""
    from torch.utils.flop_counter import FlopCounterMode

    lm = small_llama(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        lm(torch.zeros(1, 40, dtype=torch.long), use_cache=False)
    # torch has the head at every token, and attention to what comes later too.
    attention = 2 * 2 * 3 * 16 * 40 * 40
    expected = 3 * (counter.get_total_flops() - attention / 2)
    found = step_flops(model_size(lm), np.array([40]), 40)
    assert found == pytest.approx(expected, rel=0.02)


def test_documents_do_not_attend_to_each_other():
    size = ModelSize(0, 0, 0, 10)
    assert step_flops(size, np.array([30, 40]), 5) == 6 * 10 * (900 + 1600)
    assert step_flops(ModelSize(0, 0, 7, 0), np.array([30]), 5) == 6 * 7 * 5
    # LoRA: no gradient of the frozen matrices
    assert step_flops(ModelSize(100, 0, 0, 0), np.array([3]), 0) == 1200
    assert step_flops(ModelSize(100, 100, 0, 0), np.array([3]), 0) == 1800


def test_peak(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert peak_flops(cpu, torch.float32, 1.5) == 1.5e12
    assert peak_flops(cpu, torch.float32, None) > 1e8
    with pytest.raises(SpireError, match="--peak_tflops 0"):
        peak_flops(cpu, torch.float32, 0)
    for name, tflops in (
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", 0),  # neither an A10 nor an A100
        ("NVIDIA RTX A4000", 0),
        ("Somebody's", 0),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_flops(gpu, torch.bfloat16, None) == tflops * 1e12
        assert peak_flops(gpu, torch.float32, None) == 0


def test_memory_is_what_the_system_says():
    import psutil

    now = psutil.Process().memory_info().rss / 2**30
    assert now * 0.95 < memory_gib(torch.device("cpu")) < now * 20
