"""A causal LM whose answers grow side by side, each in a slot of one cache.

transformers' ``generate`` keeps a batch until its last answer is finished. Here a row that is
finished makes room for the next prompt, or goes on with the next turn of its conversation from the
keys and values that it has. Prompts are encoded without padding that anyone sees: they are filled
up behind, where causal attention does not look.
"""

from typing import List, Optional, Sequence

import torch
from torch import Tensor

# Models that this was tried with, in the words of their configuration: each is a test.
MODEL_TYPES = ("llama", "mistral", "gemma2", "qwen2")
# Prompts that are encoded together, in tokens: what keeps a device busy and, on a CPU, stays in its
# cache.
_ENCODED_TOKENS = {"cpu": 1024}
_ENCODED_ELSEWHERE = 8192


def can_run(lm) -> bool:
    """Whether :class:`Slots` knows a model's kind of attention and of positions."""
    config = lm.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    # Where rotations depend on the longest of a batch, a batch is not one at a time.
    varying = any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)
    return config.model_type in MODEL_TYPES and not varying


def _make_cache(layers: int):
    from transformers.cache_utils import Cache

    class SlotCache(Cache):
        """Keys and values of each layer: (slots, heads, capacity, d).

        Before each pass ``rows`` and ``places`` say which slots its tokens belong to, and where:
        shape (rows,) and (rows, tokens). ``span``: how much of a slot attention looks at; ``None``
        where slots are empty and it looks at the tokens themselves.
        """

        is_compileable = False

        def __init__(self) -> None:
            super().__init__(layers=[])
            self.keys: List[Optional[Tensor]] = [None] * layers
            self.values: List[Optional[Tensor]] = [None] * layers
            self.shape = (0, 0)
            self.rows = self.places = self.span = None
            self.is_step = False

        is_sliding = property(lambda self: [False] * layers)
        is_linear = property(lambda self: [False] * layers)
        is_dummy = property(lambda self: [False] * layers)

        def __len__(self) -> int:
            return layers

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return 0

        def get_query_offset(self, layer_idx: int = 0) -> int:
            return 0

        def get_mask_sizes(self, query_length: int, layer_idx: int):
            # transformers makes masks of prompts alone; those of later passes are given to it.
            return query_length, 0

        def update(self, key_states, value_states, layer_idx, *args, **kwargs):
            found = []
            for kept, new in ((self.keys, key_states), (self.values, value_states)):
                if kept[layer_idx] is None:
                    heads, width = new.shape[1], new.shape[3]
                    slots, capacity = self.shape
                    # Not empty: what is masked is multiplied by 0, and must be a number.
                    kept[layer_idx] = new.new_zeros(slots, heads, capacity, width)
                found.append(self._put(kept[layer_idx], new))
            return tuple(found)

        def _put(self, kept: Tensor, new: Tensor) -> Tensor:
            kept[self.rows[:, None], :, self.places] = new.transpose(1, 2)
            if self.span is None:
                return new
            seen = kept[:, :, : self.span]
            return seen if self.is_step else seen[self.rows]

    return SlotCache()


class Slots:
    """``count`` rows of at most ``capacity`` tokens each.

    Args:
        lm: a causal LM of transformers, see :func:`can_run`.
        count, capacity: of the cache.
    """

    def __init__(self, lm, count: int, capacity: int) -> None:
        config = lm.config.get_text_config()
        self.lm, self.count, self.capacity = lm, count, capacity
        self.device, self.dtype = lm.device, lm.dtype
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._kinds = getattr(config, "layer_types", None)
        self._window = getattr(config, "sliding_window", None)
        self._cache = _make_cache(config.num_hidden_layers)
        self._cache.shape = (count, capacity)

    def encode(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """Put prompts into slots, each from its beginning.

        Returns:
            logits of what follows each, shape (prompts, V).
        """
        logits, first = [], 0
        together = _ENCODED_TOKENS.get(self.device.type, _ENCODED_ELSEWHERE)
        while first < len(rows):
            longest = max(map(len, prompts[first:]))
            last = first + max(1, together // longest)
            part = prompts[first:last]
            logits.append(self._pass(rows[first:last], part, [0] * len(part), None))
            first = last
        return torch.cat(logits)

    def extend(
        self, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> Tensor:
        """Go on with slots behind the first ``starts`` tokens of each, which stay.

        Returns:
            logits of what follows each, shape (rows, V).
        """
        longest = max(map(len, tokens))
        return self._pass(rows, tokens, starts, max(starts) + longest)

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """One token for each slot, behind the ``lengths`` that it has.

        Returns:
            logits of what follows each, shape (slots, V).
        """
        self._cache.is_step = True
        try:
            return self._pass(range(self.count), [[t] for t in tokens], lengths, max(lengths) + 1)
        finally:
            self._cache.is_step = False

    def keep(self, rows: Sequence[int]) -> None:
        """Leave all slots but these, which are counted anew."""
        index = torch.tensor(rows, device=self.device)
        self._change(lambda kept: kept[index])
        self.count = len(rows)

    def grow(self, capacity: int) -> None:
        """Have room for so many tokens in each slot."""
        more = capacity - self.capacity
        if more > 0:
            self._change(lambda kept: torch.nn.functional.pad(kept, (0, 0, 0, more)))
            self.capacity = capacity

    def _change(self, how) -> None:
        cache = self._cache
        for tensors in (cache.keys, cache.values):
            for layer, kept in enumerate(tensors):
                tensors[layer] = how(kept)

    def _pass(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        span: Optional[int],
    ) -> Tensor:
        lengths = torch.tensor([len(row) for row in tokens])
        longest = int(lengths.max())
        if longest == 1:
            ids = torch.tensor(tokens)
        else:
            ids = torch.zeros(len(tokens), longest, dtype=torch.int64)
            for row, words in enumerate(tokens):
                ids[row, : len(words)] = torch.tensor(words)
        places = torch.tensor(starts)[:, None] + torch.arange(longest)
        # What fills a row up is of no use: where there is no room for it, it may lie anywhere
        # behind the row's own.
        places = places.clamp_max(self.capacity - 1).to(self.device)
        cache = self._cache
        cache.rows, cache.places, cache.span = torch.tensor(rows).to(self.device), places, span
        hidden = self.lm.base_model(
            input_ids=ids.to(self.device),
            position_ids=places,
            attention_mask=None if span is None else self._masks(places, span),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        last = hidden[torch.arange(len(tokens)), (lengths - 1).to(self.device)]
        logits = self.lm.get_output_embeddings()(last).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def _masks(self, places: Tensor, span: int):
        """What is added to attention's scores, in the form that the model takes."""
        behind = places[:, :, None] - torch.arange(span, device=self.device)

        def mask(window: Optional[int]) -> Tensor:
            hidden = behind < 0
            if window is not None:
                hidden |= behind >= window
            zeros = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
            return zeros.masked_fill(hidden, torch.finfo(self.dtype).min)[:, None]

        if self._kinds is None:
            return mask(self._window)
        windows = {"full_attention": None, "sliding_attention": self._window}
        return {kind: mask(windows[kind]) for kind in set(self._kinds)}
