"""Greedy generation in batches, with ids in and ids out."""

from typing import Dict, List, NamedTuple, Sequence

import torch

from espnet_spire.model.generation import end_tokens, padding_rows
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress


class Answer(NamedTuple):
    """``ids``: without the end token; ``cut``: whether the limit came before the end."""

    ids: List[int]
    cut: bool


class Generator:
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
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise SpireError(f"--model {name}: {str(error).splitlines()[0]}") from None
        self.model = model.eval().to(device)
        self.device = device
        self.batch_tokens = batch_tokens
        self.max_new_tokens = max_new_tokens
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

    def __call__(self, prompts: Sequence[Sequence[int]], desc: str = "decode") -> List[Answer]:
        """Answer prompts (token ids); batches are made by length, results keep the order."""
        answers: Dict[int, Answer] = {}
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
        with progress(total=len(prompts), desc=desc, unit="utt") as bar:
            while order:
                room = len(prompts[order[0]]) + self.max_new_tokens
                count = max(1, self.batch_tokens // room)
                batch, order = order[:count], order[count:]
                for index, answer in zip(
                    batch, self._answer([prompts[i] for i in batch]), strict=True
                ):
                    answers[index] = answer
                bar.update(len(batch))
        return [answers[index] for index in range(len(prompts))]

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

    def text(self, answer: Answer) -> str:
        """The answer as one line of text."""
        return " ".join(self.tokenizer.decode(answer.ids, skip_special_tokens=True).split())
