"""Generation in this process: many answers at a time, as if each had been alone."""

import logging
from collections import deque
from typing import Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from espnet_spire.decode.answers import (
    Answer,
    Answerer,
    FollowUp,
    Prompt,
    load_tokenizer,
    positions_of,
)
from espnet_spire.decode.products import Products
from espnet_spire.decode.search import GREEDY, Search, draw, draws
from espnet_spire.decode.slots import Slots, can_run
from espnet_spire.model.generation import end_tokens, padding_rows
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError, model_error

# Answers that a slot gives one after the other before all slots are made anew.
_ROUNDS = 8
# New prompts wait until this share of the slots is free: encoding a few takes as long as a step.
_FREE_SHARE = 1 / 8
# Slots that nobody waits for go when this share of them has work.
_BUSY_SHARE = 3 / 4
# Of a second prompt, without what was said before; where it is longer, slots grow.
_SECOND_TOKENS = 64
# float32 logits of a batch and of one at a time differ by rounding: by 6e-7 of the largest at most,
# measured on 1500 prompts of the mini model; deeper ones round more often. Answers with a choice
# that was closer than this are done again, alone.
SAFE_MARGIN = 4e-5


class _Row:
    """An answer that is being written in a slot, and what the slot holds.

    ``held``: the tokens with keys and values; ``waiting``: those that come next, none of them yet.
    """

    def __init__(self, index: int, prompt: List[int], numbers: Optional[Tensor]) -> None:
        self.index, self.numbers = index, numbers
        self.held: List[int] = []
        self.waiting = prompt
        self.new: List[int] = []
        self.logprobs: List[float] = []
        self.answers: List[Answer] = []
        self.is_close = False

    def next_turn(self, prompt: List[int], numbers: Optional[Tensor]) -> None:
        """Go on with a prompt that begins with what is held, as far as it does."""
        same = 0
        for ours, theirs in zip(self.held, prompt[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        self.held, self.waiting, self.numbers = self.held[:same], prompt[same:], numbers
        self.new, self.logprobs = [], []


class _Choice(NamedTuple):
    """Of each row: the token, whether another one was as good, and its log-probability."""

    tokens: List[int]
    close: List[bool]
    logprobs: Optional[List[float]]


class Generator(Answerer):
    """A causal LM that answers prompts.

    In float32 each prompt gets the tokens that transformers' ``generate`` gives it alone, whatever
    else is asked: answers with a choice within rounding of another are done again that way. In
    bfloat16, and where answers are drawn, that is so but for rounding; beam search is transformers'
    own, in padded batches.

    Args:
        name: directory or hub name of the model.
        device: torch device.
        dtype: float32 or bfloat16.
        batch_tokens: room for prompts and answers that are worked on at a time, in tokens.
        max_new_tokens: limit of an answer.
        search: how answers are looked for.
        logprobs: whether answers have the log-probabilities of their tokens.

    Raises:
        SpireError: there is no such model, nothing ends its answers, or a setting is impossible.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 16384,
        max_new_tokens: int = MAX_NEW_TOKENS,
        search: Search = GREEDY,
        logprobs: bool = False,
    ) -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig

        super().__init__(load_tokenizer(name), max_new_tokens)
        try:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise model_error(name, error) from None
        self.model = model.eval().to(device)
        self.positions = positions_of(model.config)
        self.device = device
        self.batch_tokens = batch_tokens
        self.search = search.check()
        self.logprobs = logprobs
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
        self._checks = self.search.is_greedy and dtype == "float32"
        self._has_slots = self.search.num_beams == 1 and can_run(model)
        if self.search.num_beams == 1 and not self._has_slots:
            if self.search.do_sample:
                raise SpireError(f"--do_sample: not for models of type {model.config.model_type}")
            logging.info("%s: decoded in padded batches by transformers", model.config.model_type)
        # How many answers were done again alone.
        self.alone = 0
        self._products = Products(model) if self._has_slots else None

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[List[Tuple[int, Answer]]]:
        """Yield the answers of a part of the prompts after the other, the longest first.

        Whoever goes on after so many parts with the prompts that are left, in their order, has
        the parts that would have come, and so the same answers to the last bit.
        """
        for part in self.converse(prompts, lambda index, answer: None):
            yield [(index, answer) for index, (answer,) in part]

    def converse(
        self, prompts: Sequence[Prompt], follow_up: FollowUp
    ) -> Iterator[List[Tuple[int, List[Answer]]]]:
        """See :meth:`Answerer.converse`; the parts are those of :meth:`stream`."""
        ids = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        while order:
            room = (len(ids[order[0]]) + self.max_new_tokens) * self.search.num_beams
            slots = max(1, self.batch_tokens // room)
            count = slots * _ROUNDS if self._has_slots else slots
            part, order = order[:count], order[count:]
            if self._has_slots:
                with self._products.in_use():
                    found, close = self._answer(ids, part, min(slots, len(part)), follow_up)
                for index in close:
                    found[index] = self._alone(ids[index], index, follow_up)
            else:
                found = self._in_batches(ids, part, follow_up)
            yield [(index, found[index]) for index in part]

    # Side by side ---------------------------------------------------------------------------

    @torch.inference_mode()
    def _answer(
        self, prompts: Sequence[List[int]], part: Sequence[int], count: int, follow_up: FollowUp
    ) -> Tuple[Dict[int, List[Answer]], List[int]]:
        """Answer some of the prompts, with so many slots; the first of them is the longest.

        Returns:
            the answers by prompt, and for which of them rounding may have made a choice.
        """
        capacity = len(prompts[part[0]]) + self.max_new_tokens
        slots = Slots(self.model, count, capacity)
        queue: Deque[_Row] = deque(_Row(i, prompts[i], self._numbers(prompts[i])) for i in part)
        rows: List[Optional[_Row]] = [None] * count
        done: Dict[int, List[Answer]] = {}
        close: List[int] = []
        while queue or any(rows):
            self._fill(slots, rows, queue)
            busy = [slot for slot, row in enumerate(rows) if row is not None]
            if not queue and len(busy) <= _BUSY_SHARE * slots.count:
                slots.keep(busy)
                rows = [rows[slot] for slot in busy]
            self._advance(slots, rows)
            for slot, row in enumerate(rows):
                if row is None or not self._is_finished(row):
                    continue
                following = self._finish(row, follow_up)
                if following is not None:
                    row.next_turn(following, self._numbers(following))
                else:
                    done[row.index] = row.answers
                    if row.is_close:
                        close.append(row.index)
                    rows[slot] = None
        return done, close

    def _numbers(self, prompt: Sequence[int]) -> Optional[Tensor]:
        return draws(self.search, prompt, self.max_new_tokens) if self.search.do_sample else None

    def _fill(self, slots: Slots, rows: List[Optional[_Row]], queue: Deque[_Row]) -> None:
        """Give free slots to prompts that wait, and turns their turn, some together."""
        for slot, row in enumerate(rows):
            if row is None and queue:
                rows[slot] = queue.popleft()
        starting = [s for s, row in enumerate(rows) if row is not None and row.waiting]
        working = sum(row is not None for row in rows) - len(starting)
        if not starting or (working and len(starting) < _FREE_SHARE * slots.count):
            return
        fresh = [slot for slot in starting if not rows[slot].held]
        later = [slot for slot in starting if rows[slot].held]
        if fresh:
            logits = slots.encode(fresh, [rows[slot].waiting for slot in fresh])
            self._took(rows, fresh, logits)
        if later:
            held = [len(rows[slot].held) for slot in later]
            waiting = [rows[slot].waiting for slot in later]
            needed = max(map(sum, zip(held, map(len, waiting), strict=True)))
            slots.grow(needed + self.max_new_tokens)
            self._took(rows, later, slots.extend(later, waiting, held))

    def _advance(self, slots: Slots, rows: List[Optional[_Row]]) -> None:
        """Write one more token of each answer that is begun and not finished."""
        busy = [
            slot
            for slot, row in enumerate(rows)
            if row is not None and row.new and not self._is_finished(row)
        ]
        if not busy:
            return
        tokens, lengths = [self.pad_id] * len(rows), [0] * len(rows)
        for slot, row in enumerate(rows):
            if row is not None:
                # A row that waits is written behind what it holds, where it will write itself.
                lengths[slot] = len(row.held)
        for slot in busy:
            tokens[slot] = rows[slot].new[-1]
            rows[slot].waiting = [tokens[slot]]
        logits = slots.step(tokens, lengths)
        self._took(rows, busy, logits if len(busy) == len(rows) else logits[busy])

    def _took(self, rows: List[Optional[_Row]], some: List[int], logits: Tensor) -> None:
        """Note that rows have what waited, and which token comes next."""
        numbers = None
        if self.search.do_sample:
            numbers = torch.stack([rows[slot].numbers[len(rows[slot].new)] for slot in some])
        choice = self._choose(logits, numbers)
        for place, slot in enumerate(some):
            row = rows[slot]
            row.held.extend(row.waiting)
            row.waiting = []
            row.new.append(choice.tokens[place])
            row.is_close = row.is_close or choice.close[place]
            if choice.logprobs is not None:
                row.logprobs.append(choice.logprobs[place])

    def _choose(self, logits: Tensor, numbers: Optional[Tensor]) -> _Choice:
        if self.padding_rows:
            logits[:, self.padding_rows] = -torch.inf
        close = [False] * len(logits)
        if numbers is not None:
            tokens = draw(logits, numbers.to(logits.device), self.search)
        elif self._checks:
            best, likeliest = logits.topk(2, dim=-1)
            tokens = likeliest[:, 0]
            close = (best[:, 0] - best[:, 1] <= SAFE_MARGIN * best[:, 0].abs()).tolist()
        else:
            tokens = logits.argmax(dim=-1)
        logprobs = None
        if self.logprobs:
            chosen = logits.gather(1, tokens[:, None])[:, 0]
            logprobs = (chosen - logits.logsumexp(dim=-1)).tolist()
        return _Choice(tokens.tolist(), close, logprobs)

    def _is_finished(self, row: _Row) -> bool:
        return bool(row.new) and (
            row.new[-1] in self.eos_ids or len(row.new) >= self.max_new_tokens
        )

    def _finish(self, row: _Row, follow_up: FollowUp) -> Optional[List[int]]:
        """Note an answer; returns the prompt that follows, after the first one."""
        answer = self._trim(row.new)
        if self.logprobs:
            answer = answer._replace(logprobs=row.logprobs)
        row.answers.append(answer)
        prompt = follow_up(row.index, answer) if len(row.answers) == 1 else None
        return None if prompt is None else self.encode(prompt)

    def _trim(self, ids: List[int]) -> Answer:
        for position, token in enumerate(ids):
            if token in self.eos_ids:
                return Answer(ids[:position], cut=False)
        return Answer(ids, cut=True)

    # By transformers ------------------------------------------------------------------------

    def _alone(self, prompt: List[int], index: int, follow_up: FollowUp) -> List[Answer]:
        """One conversation by transformers' ``generate``, which is what answers are defined by."""
        self.alone += 1
        return self._in_batches({index: prompt}, [index], follow_up)[index]

    def _in_batches(self, prompts, part: Sequence[int], follow_up: FollowUp):
        """Answers by transformers in one padded batch, and the turns that follow in another."""
        first = self._generate([prompts[index] for index in part])
        found = {index: [answer] for index, answer in zip(part, first, strict=True)}
        second = {index: follow_up(index, answers[0]) for index, answers in found.items()}
        second = {index: self.encode(p) for index, p in second.items() if p is not None}
        if second:
            answers = self._generate(list(second.values()))
            for index, answer in zip(second, answers, strict=True):
                found[index].append(answer)
        return found

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[List[int]]) -> List[Answer]:
        from transformers import GenerationConfig

        longest = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            attention_mask[row, longest - len(prompt) :] = 1
        settings = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=self.search.num_beams,
            eos_token_id=self.eos_ids,
            pad_token_id=self.pad_id,
            suppress_tokens=self.padding_rows or None,
        )
        output = self.model.generate(
            input_ids=input_ids.to(self.device),
            attention_mask=attention_mask.to(self.device),
            generation_config=settings,
        )[:, longest:].tolist()
        answers = [self._trim(ids) for ids in output]
        if not self.logprobs:
            return answers
        pairs = zip(prompts, answers, output, strict=True)
        return [a._replace(logprobs=self._score(prompt, a, ids)) for prompt, a, ids in pairs]

    def _score(self, prompt: List[int], answer: Answer, output: List[int]) -> List[float]:
        """Log-probabilities of an answer and its end, in one pass."""
        written = output[: len(answer.ids) + (not answer.cut)]
        ids = torch.tensor([prompt + written], device=self.device)
        logits = self.model(ids, logits_to_keep=len(written) + 1).logits[0, :-1].float()
        if self.padding_rows:
            logits[:, self.padding_rows] = -torch.inf
        chosen = logits.gather(1, ids[0, -len(written) :, None])[:, 0]
        return (chosen - logits.logsumexp(dim=-1)).tolist()
