"""Estimates: the formulas against sizes that were published, and their sums."""

import json
from pathlib import Path

import pytest

from espnet_spire.corpus.estimate import (
    Machine,
    Work,
    cpt_tokens,
    encoder_operations,
    estimate,
    parameters,
    table,
)
from espnet_spire.corpus.recipe import load_recipe
from espnet_spire.train.mixture import load_mixture

CONF = Path(__file__).parents[2] / "conf"
LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
MACHINE = Machine(gpus=8, tflops=312, train=0.4, encode=0.3, decode=0.05)


@pytest.fixture
def sets():
    return load_recipe(CONF / "full_corpora.yaml")


def work(sets, **changes):
    values = {
        "sets": sets,
        "encoder": "facebook/hubert-large-ll60k",
        "layer": 22,
        "kmeans_hours": 720.0,
        "base_model": "Unbabel/TowerBase-7B-v0.1",
        "pseudo_model": "Unbabel/TowerInstruct-13B-v0.1",
        "pseudo_langs": 9,
        "pseudo_utterances": 300_000,
        "cpt_mixture": str(CONF / "mixture_cpt.yaml"),
        "cpt_config": str(CONF / "train_cpt.yaml"),
        "it_config": str(CONF / "train_it.yaml"),
        "jobs": 19,
        "text_jobs": 18,
        "variant": "spirefull",
    }
    return Work(**{**values, **changes})


def test_parameters_of_llama(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_7B))
    # 6,738,415,616 as published, norms among them
    assert parameters(str(tmp_path)) == pytest.approx(6_738_415_616, rel=1e-4)
    assert parameters("Unbabel/TowerBase-7B-v0.1") == 7e9
    assert parameters("utter-project/EuroLLM-1.7B") == 1.7e9
    assert parameters("gpt2") is None


def test_shared_heads_and_one_matrix(tmp_path):
    """Qwen2.5-1.5B: 1.54B parameters, 1.31B without the embedding (its model card)."""
    config = {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert parameters(str(tmp_path)) == pytest.approx(1.54e9, rel=0.01)


def test_operations_of_an_encoder_are_those_of_its_layers():
    """By torch's own counter, on a small HuBERT with HuBERT's convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=2
    )
    config.num_conv_pos_embedding_groups = 16
    model = HubertModel(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 16000))
    counted = counter.get_total_flops()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        assert encoder_operations(folder, 3) == pytest.approx(counted, rel=0.1)
    assert encoder_operations("someone/unknown", 3) is None


def test_tokens_of_cpt_and_what_is_short(sets):
    mixture = load_mixture(CONF / "mixture_cpt.yaml")
    tokens, short = cpt_tokens(mixture, sets)
    # MLS after 13 a speaker is the only one that lacks tokens
    assert len(short) == 1 and short[0].startswith("mls: 2,782M tokens are asked for")
    assert "max_per_speaker=13" in short[0]
    whole = [one.with_rules([]) if one.set == "mls_train" else one for one in sets]
    tokens_whole, short = cpt_tokens(mixture, whole)
    assert short == [] and tokens_whole == pytest.approx(6e9, rel=0.01)
    assert tokens_whole - tokens == pytest.approx(2.782e9 - 42e6, rel=0.01)


def test_training_is_six_operations_a_parameter_and_token(sets):
    whole = [one.with_rules([]) if one.set == "mls_train" else one for one in sets]
    rows, _ = estimate(work(whole), MACHINE)
    by_stage = {row.stage: row for row in rows}
    # 6 · 7e9 · 6e9 / (312e12 · 0.4) seconds
    expected = 6 * 7e9 * 6e9 / (312e12 * 0.4) / 3600
    assert by_stage[8].gpu_hours == pytest.approx(expected, rel=0.01)
    assert by_stage[10].tokens == pytest.approx(4 * by_stage[9].tokens)
    # 300K of three corpora into nine languages
    assert by_stage[6].what == "8.10M translations"
    assert by_stage[3].hours == 720


def test_towerfull_has_no_cpt(sets):
    rows, _ = estimate(work(sets, variant="towerfull"), MACHINE)
    assert not {7, 8} & {row.stage for row in rows}


def test_the_table_adds_up(sets):
    rows, _ = estimate(work(sets), MACHINE)
    cells = table(rows, MACHINE)
    assert cells[0][0] == "stage" and cells[-1][0] == "all"
    assert len({len(row) for row in cells}) == 1
    total = sum(row.gpu_hours or 0 for row in rows)
    assert cells[-1][6] == f"{total:,.0f}"


def test_unknown_models_are_said(sets):
    _, remarks = estimate(work(sets, encoder="mine", base_model="gpt2"), MACHINE)
    assert any("encoder mine" in line for line in remarks)
    assert any("gpt2" in line for line in remarks)
