"""The vLLM back-end against a stand-in with vLLM's documented names; vLLM itself needs a GPU."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, List, Optional

import pytest

from espnet_spire.decode import vllm as backend
from espnet_spire.decode.answers import Answer
from espnet_spire.decode.search import Search
from espnet_spire.text.prompts import Turn
from espnet_spire.utils.errors import SpireError


@dataclass
class SamplingParams:
    """The fields that are used, with vLLM's names; an unknown one is an error, as there."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: Optional[int] = None
    max_tokens: Optional[int] = 16
    stop_token_ids: Optional[List[int]] = None
    logit_bias: Optional[dict] = None
    detokenize: bool = True


@dataclass
class Completion:
    token_ids: tuple
    finish_reason: str


@dataclass
class Output:
    outputs: List[Completion]


class LLM:
    """Answers with the prompt's length (and 100) and its last token, then the end; keeps all."""

    made: List[Any] = []

    def __init__(self, **settings):
        self.settings, self.asked = settings, []
        LLM.made.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm):
        outputs = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            self.asked.append((prompt["prompt_token_ids"], params))
            ids = prompt["prompt_token_ids"]
            written = (100 + len(ids), ids[-1], params.stop_token_ids[0])
            reason = "stop" if params.max_tokens >= 3 else "length"
            outputs.append(Output([Completion(written[: params.max_tokens], reason)]))
        return outputs


@pytest.fixture
def fake(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    module.TokensPrompt = lambda prompt_token_ids: {"prompt_token_ids": prompt_token_ids}
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(backend, "is_installed", lambda: True)
    LLM.made.clear()


def test_ids_in_and_out_in_order(fake, lm_dir, lm_tokenizer):
    generator = backend.VllmGenerator(str(lm_dir), max_new_tokens=7, tensor_parallel_size=2)
    prompts = [[1, 300, 5], [1, 44], [Turn("user", "a cook")]]
    found = generator(prompts)
    assert found[:2] == [Answer([103, 5], False), Answer([102, 44], False)]
    (llm,) = LLM.made
    assert llm.settings == {
        **{"model": str(lm_dir), "dtype": "bfloat16", "skip_tokenizer_init": True},
        **{"generation_config": "vllm", "tensor_parallel_size": 2},
    }
    # One BOS, and the tokens of ChatML are one id each.
    ids = llm.asked[2][0]
    assert ids[0] == lm_tokenizer.bos_token_id and ids.count(ids[0]) == 1
    assert lm_tokenizer.convert_tokens_to_ids("<|im_start|>") == ids[1]
    params = llm.asked[0][1]
    assert (params.temperature, params.max_tokens, params.detokenize) == (0.0, 7, False)
    assert params.stop_token_ids == generator.eos_ids
    # Rows that pad the matrix are no tokens.
    rows = generator._suppressed
    assert min(rows) == len(lm_tokenizer) and set(rows.values()) == {-100.0}


def test_what_was_cut(fake, lm_dir):
    assert backend.VllmGenerator(str(lm_dir), max_new_tokens=2)([[1, 9]]) == [
        Answer([102, 9], True)
    ]


def test_drawn_by_prompt(fake, lm_dir):
    search = Search(do_sample=True, temperature=0.5, top_p=0.8, seed=3)
    backend.VllmGenerator(str(lm_dir), search=search)([[1, 9], [1, 8]])
    (_, one), (_, other) = LLM.made[0].asked
    assert (one.temperature, one.top_p, one.seed) == (0.5, 0.8, search.seed_of([1, 9]))
    assert other.seed == search.seed_of([1, 8]) != one.seed


def test_a_second_turn(fake, lm_dir):
    generator = backend.VllmGenerator(str(lm_dir))
    prompts = [[1, 5], [1, 6, 7]]
    follow_up = lambda index, answer: [*prompts[index], *answer.ids] if index else None  # noqa: E731
    found = dict(pair for part in generator.converse(prompts, follow_up) for pair in part)
    assert found == {
        0: [Answer([102, 5], False)],
        1: [Answer([103, 7], False), Answer([105, 7], False)],
    }


def test_what_it_cannot_do(fake, lm_dir, monkeypatch):
    with pytest.raises(SpireError, match="--backend vllm: no beam search"):
        backend.VllmGenerator(str(lm_dir), search=Search(num_beams=2))
    monkeypatch.setattr(backend, "is_installed", lambda: False)
    with pytest.raises(SpireError, match="needs the package vllm"):
        backend.VllmGenerator(str(lm_dir))
