"""Generation by vLLM in this process, where it is installed.

Token ids go in and come out: vLLM's tokenizer is not used, so that no second BOS can appear and
units are what they were in training.
"""

from typing import Any, Dict, Iterator, List, Sequence, Tuple

from espnet_spire.decode.answers import Answer, Answerer, Prompt, load_tokenizer, positions_of
from espnet_spire.decode.search import GREEDY, Search
from espnet_spire.model.generation import end_tokens, load_settings, padding_rows
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError

# Prompts handed over together: it batches them itself, and what is answered is kept in between.
_TOGETHER = 4096


def is_installed() -> bool:
    """Whether there is a vLLM to import."""
    import importlib.util

    return importlib.util.find_spec("vllm") is not None


class VllmGenerator(Answerer):
    """A causal LM that vLLM runs on this machine's GPUs.

    Args:
        name: directory or hub name of the model.
        dtype: float32 or bfloat16.
        max_new_tokens: limit of an answer.
        search: how answers are looked for; not beam search.
        engine: further arguments of ``vllm.LLM``, such as ``tensor_parallel_size``.

    Raises:
        SpireError: vLLM is not installed, nothing ends the model's answers, or a setting is
            impossible.
    """

    def __init__(
        self,
        name: str,
        *,
        dtype: str = "bfloat16",
        max_new_tokens: int = MAX_NEW_TOKENS,
        search: Search = GREEDY,
        **engine: Any,
    ) -> None:
        if not is_installed():
            raise SpireError("--backend vllm needs the package vllm: pip install vllm")
        if search.check().num_beams > 1:
            raise SpireError("--backend vllm: no beam search; use --backend hf for --num_beams")
        config, generation = load_settings(name)
        super().__init__(load_tokenizer(name), max_new_tokens, positions_of(config))
        self.search = search
        self.eos_ids = end_tokens(self.tokenizer, generation)
        if not self.eos_ids:
            raise SpireError(f"--model {name}: nothing says which token ends an answer")
        self._suppressed = {row: -100.0 for row in padding_rows(self.tokenizer, config)}
        import vllm

        # Sampling as we say, not as the model's generation_config.json does.
        settings = {"dtype": dtype, "skip_tokenizer_init": True, "generation_config": "vllm"}
        self._llm = vllm.LLM(model=name, **settings, **engine)

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[List[Tuple[int, Answer]]]:
        """Yield the answers of some thousand prompts after the others."""
        import vllm

        for start in range(0, len(prompts), _TOGETHER):
            ids = [self.encode(prompt) for prompt in prompts[start : start + _TOGETHER]]
            outputs = self._llm.generate(
                [vllm.TokensPrompt(prompt_token_ids=row) for row in ids],
                [vllm.SamplingParams(**self._settings(row)) for row in ids],
                use_tqdm=False,
            )
            yield [(start + i, self._read(output.outputs[0])) for i, output in enumerate(outputs)]

    def _settings(self, prompt: List[int]) -> Dict[str, Any]:
        drawn: Dict[str, Any] = {"temperature": 0.0}
        if self.search.do_sample:
            drawn = {"temperature": self.search.temperature, "top_p": self.search.top_p}
            drawn["seed"] = self.search.seed_of(prompt)
        return {
            **drawn,
            "max_tokens": self.max_new_tokens,
            "stop_token_ids": self.eos_ids,
            "logit_bias": self._suppressed or None,
            "detokenize": False,
        }

    def _read(self, output) -> Answer:
        ids = list(output.token_ids)
        for position, token in enumerate(ids):
            if token in self.eos_ids:
                return Answer(ids[:position], False)
        return Answer(ids, output.finish_reason == "length")
