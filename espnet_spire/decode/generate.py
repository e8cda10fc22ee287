"""Greedy generation in this process, in batches."""

from typing import Iterator, List, Sequence, Tuple

import torch

from espnet_spire.decode.answers import Answer, Answerer, Prompt, load_tokenizer
from espnet_spire.model.generation import end_tokens, padding_rows
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError


class Generator(Answerer):
    """A causal LM that answers prompts.

    Args:
        name: directory or hub name of the model.
        device: torch device.
        dtype: float32 or bfloat16.
        batch_tokens: prompt and answer tokens of a batch, counting padding.
        max_new_tokens: limit of an answer.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 16384,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig

        super().__init__(load_tokenizer(name), max_new_tokens)
        try:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise SpireError(f"--model {name}: {str(error).splitlines()[0]}") from None
        self.model = model.eval().to(device)
        self.device = device
        self.batch_tokens = batch_tokens
        self.eos_ids = end_tokens(self.tokenizer, self.model.generation_config)
        if not self.eos_ids:
            raise SpireError(
                f"--model {name}: nothing says which token ends an answer; set eos_token in its"
                " tokenizer_config.json or eos_token_id in its generation_config.json"
            )
        # Any token will do: it is masked.
        self.pad_id = self.eos_ids[0]
        self.padding_rows = padding_rows(self.tokenizer, model.config)
        # transformers takes from here what the settings of a call leave open, greedy or not: a
        # penalty of repetitions, forced tokens, a minimal length.
        self.model.generation_config = GenerationConfig()

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[List[Tuple[int, Answer]]]:
        """Yield the answers of a batch after the other, the longest prompts first.

        Whoever goes on after so many batches with the prompts that are left, in their order, has
        the batches that would have come, and so the same answers to the last bit.
        """
        ids = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        while order:
            room = len(ids[order[0]]) + self.max_new_tokens
            count = max(1, self.batch_tokens // room)
            batch, order = order[:count], order[count:]
            yield list(zip(batch, self._answer([ids[index] for index in batch]), strict=True))

    @torch.inference_mode()
    def _answer(self, prompts: Sequence[Sequence[int]]) -> List[Answer]:
        from transformers import GenerationConfig

        longest = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            attention_mask[row, longest - len(prompt) :] = 1
        greedy = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.eos_ids,
            pad_token_id=self.pad_id,
            suppress_tokens=self.padding_rows or None,
        )
        output = self.model.generate(
            input_ids=input_ids.to(self.device),
            attention_mask=attention_mask.to(self.device),
            generation_config=greedy,
        )[:, longest:].tolist()
        return [self._trim(ids) for ids in output]

    def _trim(self, ids: List[int]) -> Answer:
        for position, token in enumerate(ids):
            if token in self.eos_ids:
                return Answer(ids[:position], cut=False)
        return Answer(ids, cut=True)
