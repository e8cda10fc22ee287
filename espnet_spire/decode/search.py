"""How an answer is looked for among all that a model could say."""

import hashlib
from typing import NamedTuple, Sequence

import torch
from torch import Tensor

from espnet_spire.utils.errors import SpireError


class Search(NamedTuple):
    """Greedy by default.

    ``num_beams``: above 1, beam search. ``do_sample``: draw each token, from the likeliest that
    have ``top_p`` of the probability together, after division of the logits by ``temperature``.
    ``seed``: of the draws.
    """

    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def check(self) -> "Search":
        """Itself.

        Raises:
            SpireError: a setting is impossible, or says nothing together with the others.
        """
        if self.num_beams < 1:
            raise SpireError(f"--num_beams {self.num_beams}: at least 1 is needed")
        if self.do_sample and self.num_beams > 1:
            raise SpireError("--do_sample draws answers, --num_beams searches for one: leave one")
        if not self.do_sample and (self.temperature, self.top_p) != (1.0, 1.0):
            raise SpireError("--temperature and --top_p are for --do_sample")
        if not self.temperature > 0:
            raise SpireError(f"--temperature {self.temperature}: must be more than 0")
        if not 0 < self.top_p <= 1:
            raise SpireError(f"--top_p {self.top_p}: must be more than 0 and at most 1")
        return self

    @property
    def is_greedy(self) -> bool:
        return not self.do_sample and self.num_beams == 1

    def seed_of(self, prompt: Sequence[int]) -> int:
        """The seed of one answer, by what is asked alone: not by its place among others."""
        said = f"{self.seed}:{','.join(map(str, prompt))}"
        return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest()) >> 1


GREEDY = Search()


def draws(search: Search, prompt: Sequence[int], count: int) -> Tensor:
    """The random numbers, from 0 to 1, that decide the tokens of one answer; shape (count,)."""
    generator = torch.Generator().manual_seed(search.seed_of(prompt))
    return torch.rand(count, generator=generator)


def draw(logits: Tensor, numbers: Tensor, search: Search) -> Tensor:
    """Draw a token for each row.

    Args:
        logits: float32, shape (rows, V); what must not be chosen is -inf.
        numbers: shape (rows,), from 0 to 1: where in the distribution a row's token lies, the
            likeliest first.

    Returns:
        token ids, shape (rows,).
    """
    probabilities, tokens = (
        (logits / search.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    )
    before = probabilities.cumsum(dim=-1) - probabilities
    # The likeliest always stays.
    probabilities = probabilities.masked_fill(before >= search.top_p, 0)
    reached = probabilities.cumsum(dim=-1)
    place = (reached <= numbers[:, None].to(reached) * reached[:, -1:]).sum(dim=-1, keepdim=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]
