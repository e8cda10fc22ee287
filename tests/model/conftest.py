"""Tiny random models of several families, and packed rows made by hand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

VOCABULARY = 97
NORM = "model.layers.1.input_layernorm.weight"


class Rows(NamedTuple):
    """``CausalLMLoss.forward``'s arguments by name, and the documents they were made of."""

    batch: dict
    documents: List[List[torch.Tensor]]


def pack(documents, length: int) -> Rows:
    """Rows of whole documents; every token but a document's first carries loss."""
    shape, count = (len(documents), length), sum(map(len, documents))
    input_ids, position_ids = torch.zeros(shape, dtype=torch.int64), torch.empty(shape).long()
    labels, numbers = torch.full(shape, -100), torch.full(shape, count)
    number = 0
    for row, in_row in enumerate(documents):
        start = 0
        for ids in in_row:
            place = slice(start, start + len(ids))
            input_ids[row, place], position_ids[row, place] = ids, torch.arange(len(ids))
            labels[row, start + 1 : start + len(ids)] = ids[1:]
            numbers[row, place] = number
            start, number = start + len(ids), number + 1
        position_ids[row, start:] = torch.arange(length - start)
    batch = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "labels": labels,
        "documents": numbers,
        "num_documents": count,
    }
    return Rows(batch, documents)


@pytest.fixture
def rows():
    """Two rows of 20: documents of 7, 2 and 9 tokens and padding; 5 and 15 without padding."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((7, 2, 9), (5, 15))
    return pack([[torch.randint(3, 97, (n,), generator=draw) for n in row] for row in sizes], 20)


@pytest.fixture
def make_rows():
    """:func:`pack`, for tests with documents of their own."""
    return pack


def tiny_config(family: str, **changes):
    """Two layers of width 32; windows and caps small enough that 20 tokens feel them."""
    import transformers

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    own = {
        "Llama": {},
        "Qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        "Mistral": {"sliding_window": 4},
        "Gemma2": {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
        "Cohere": {"logit_scale": 0.25},
        "Granite": {"logits_scaling": 4.0},
    }
    config = getattr(transformers, f"{family}Config")
    return config(**{**settings, **own[family], **changes})


@pytest.fixture
def make_lm():
    """A random model of a family: ``make_lm("Llama", attention="eager", tie_word_embeddings=…)``.

    The same weights for the same arguments, whatever the attention.
    """
    from transformers import AutoModelForCausalLM

    from espnet_spire.model.attention import register_varlen

    register_varlen()

    def make(family: str, *, attention: str = "eager", **changes):
        torch.manual_seed(0)
        config = tiny_config(family, **changes)
        lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        return lm.eval()

    return make


# Model directories and checkpoints ----------------------------------------------------------

LORA = {"r": 4, "alpha": 12}


def model_dir(lm_dir, out, family: str, **changes):
    """The tokenizer of ``lm_dir`` with a model of another family, in two files of weights."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(lm_dir, out, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    rows = json.loads((lm_dir / "config.json").read_text())["vocab_size"]
    config = tiny_config(family, vocab_size=rows, head_dim=8, **changes)
    torch.manual_seed(4)
    AutoModelForCausalLM.from_config(config).save_pretrained(out, max_shard_size="60KB")
    assert len(list(out.glob("*.safetensors"))) > 1
    return out


@pytest.fixture(scope="session")
def model_dirs(lm_dir, tmp_path_factory):
    """Extended models: Llama; Gemma 2 with tied matrices; Qwen 2, tied and without BOS."""
    folder = tmp_path_factory.mktemp("models")
    llama = model_dir(lm_dir, folder / "llama", "Llama")
    gemma = model_dir(lm_dir, folder / "gemma", "Gemma2", tie_word_embeddings=True)
    qwen = model_dir(lm_dir, folder / "qwen", "Qwen2", tie_word_embeddings=True)
    path = qwen / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    kept = {
        name: settings[name]
        for name in ("eos_token", "unk_token", "added_tokens_decoder")
        if name in settings
    }
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(kept))
    return {"llama": llama, "gemma": gemma, "qwen": qwen}


def run_worker(folder, ranks: int, runs) -> None:
    """``train_worker.py`` by so many ranks over gloo."""
    path = folder / f"runs{ranks}.json"
    path.write_text(json.dumps(runs))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)),
            *("--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"),
            *(str(Path(__file__).parent / "train_worker.py"), str(path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]


# name: (ranks, model, ZeRO stage, type, LoRA)
RUNS = {
    "zero0": (1, "llama", 0, "float32", None),
    "zero0_bfloat16": (1, "llama", 0, "bfloat16", None),
    "zero0_lora": (1, "llama", 0, "float32", LORA),
    "zero1": (2, "llama", 1, "float32", None),
    "zero2_bfloat16": (2, "llama", 2, "bfloat16", None),
    "zero3": (2, "llama", 3, "float32", None),
    "zero3_bfloat16": (2, "gemma", 3, "bfloat16", None),
    "zero3_tied": (2, "qwen", 3, "float32", None),
    "zero2_tied": (2, "qwen", 2, "float32", None),
    "zero2_lora": (2, "llama", 2, "float32", LORA),
    "zero3_lora": (2, "llama", 3, "float32", LORA),
    "zero3_lora_tied": (2, "gemma", 3, "float32", LORA),
    "zero1_lora_tied": (2, "qwen", 1, "bfloat16", LORA),
}


@pytest.fixture(scope="session")
def checkpoints(model_dirs, tmp_path_factory):
    """Directory with a short training of each of :data:`RUNS`, and refused models."""
    folder = tmp_path_factory.mktemp("checkpoints")
    runs = {1: [], 2: []}
    for name, (ranks, model, stage, dtype, lora) in RUNS.items():
        run = {"out": str(folder / name), "model": str(model_dirs[model]), "lora": lora}
        runs[ranks].append({**run, "stage": stage, "dtype": dtype})
    for name in ("missing", "unexpected", "shape"):
        broken = break_model(model_dirs["llama"], folder / f"{name}_model", name)
        runs[2].append({"out": str(folder / name), "refused": str(broken)})
    for ranks in runs:
        run_worker(folder, ranks, runs[ranks])
    return folder


def break_model(model, out, how: str):
    """A copy of a model directory that lacks a weight, has one too many, or one of wrong shape."""
    shutil.copytree(model, out)
    path = next(p for p in sorted(out.glob("*.safetensors")) if NORM in load_file(p))
    tensors = load_file(path)
    norm = tensors.pop(NORM)
    if how == "unexpected":
        tensors.update({NORM: norm, "model.extra.weight": norm.clone()})
    elif how == "shape":
        tensors[NORM] = norm[:-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    return out


@pytest.fixture
def broken_model():
    """:func:`break_model`."""
    return break_model
