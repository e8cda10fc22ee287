"""STAND-IN for CometKiwi, which cannot be downloaded offline: dual conditional cross-entropy.

Junczys-Dowmunt (2018), "Dual Conditional Cross-Entropy Filtering of Noisy Parallel Corpora":
a translation is good when the LM finds both directions likely, and equally so. With A and B the
mean negative log-probabilities a token of target given source and of source given target, the
score is exp(-(|A - B| + (A + B) / 2)), in (0, 1].
"""

from typing import List, Sequence

import torch

from espnet_spire.text.prompts import mt_plain, mt_plain_prompt
from espnet_spire.train.examples import IGNORE, encode_plain, encode_plain_prompt


def dual_score(forward: float, backward: float) -> float:
    """The score of two mean negative log-probabilities."""
    return float(torch.exp(torch.tensor(-(abs(forward - backward) + (forward + backward) / 2))))


class DualCrossEntropy:
    """Scores with the causal LM of a :class:`espnet_spire.decode.generate.Generator`."""

    def __init__(self, generator, batch_tokens: int = 8192) -> None:
        self.generator = generator
        self.batch_tokens = batch_tokens

    def __call__(
        self, sources: Sequence[str], translations: Sequence[str], src: str, tgt: str
    ) -> List[float]:
        """Scores in (0, 1]; an empty translation scores 0."""
        there = [index for index, text in enumerate(translations) if text]
        forward = self._nll([(sources[i], translations[i]) for i in there], src, tgt)
        backward = self._nll([(translations[i], sources[i]) for i in there], tgt, src)
        scores = [0.0] * len(translations)
        for index, a, b in zip(there, forward, backward, strict=True):
            scores[index] = dual_score(a, b)
        return scores

    def _nll(self, pairs, src: str, tgt: str) -> List[float]:
        """Mean negative log-probability a token of the second text given the first."""
        tokenizer = self.generator.tokenizer
        encoded = []
        for source, target in pairs:
            ids = encode_plain(tokenizer, mt_plain(src, tgt, source, target)).input_ids
            start = len(encode_plain_prompt(tokenizer, mt_plain_prompt(src, tgt, source)))
            encoded.append((ids, start))
        result = [0.0] * len(encoded)
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
        while order:
            count = max(1, self.batch_tokens // len(encoded[order[-1]][0]))
            batch, order = order[-count:], order[:-count]
            for index, value in zip(
                batch, self._batch_nll([encoded[i] for i in batch]), strict=True
            ):
                result[index] = value
        return result

    @torch.inference_mode()
    def _batch_nll(self, batch) -> List[float]:
        longest = max(len(ids) for ids, _ in batch)
        input_ids = torch.full((len(batch), longest), self.generator.pad_id)
        mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, IGNORE)
        for row, (ids, start) in enumerate(batch):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
            labels[row, start : len(ids)] = torch.tensor(ids[start:])
        device = self.generator.device
        logits = self.generator.model(
            input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False
        ).logits[:, :-1]
        targets = labels[:, 1:].to(device)
        losses = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), targets, ignore_index=IGNORE, reduction="none"
        )
        return (losses.sum(dim=1) / (targets != IGNORE).sum(dim=1)).tolist()
