"""STAND-IN for CometKiwi, which cannot be downloaded offline: dual conditional cross-entropy.

Junczys-Dowmunt (2018), "Dual Conditional Cross-Entropy Filtering of Noisy Parallel Corpora":
a translation is good when the LM finds both directions likely, and equally so. With A and B the
mean negative log-probabilities a token of target given source and of source given target, the
score is exp(-(|A - B| + (A + B) / 2)), in (0, 1].
"""

from typing import List, Sequence

import numpy as np
import torch

from espnet_spire.model.causal_lm import CausalLMLoss
from espnet_spire.text.prompts import mt_plain, mt_plain_prompt
from espnet_spire.train.collate import Document, collate
from espnet_spire.train.examples import encode_plain, encode_plain_prompt


def dual_score(forward: float, backward: float) -> float:
    """The score of two mean negative log-probabilities."""
    return float(torch.exp(torch.tensor(-(abs(forward - backward) + (forward + backward) / 2))))


class DualCrossEntropy:
    """Scores with the causal LM of a :class:`espnet_spire.decode.generate.Generator`."""

    def __init__(self, generator, batch_tokens: int = 8192) -> None:
        self.generator = generator
        self.network = CausalLMLoss(generator.model)
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

    def close(self) -> None:
        """Nothing: the model is the generator's."""

    def _nll(self, pairs, src: str, tgt: str) -> List[float]:
        """Mean negative log-probability a token of the second text given the first."""
        tokenizer = self.generator.tokenizer
        documents = []
        for source, target in pairs:
            ids = encode_plain(tokenizer, mt_plain(src, tgt, source, target)).input_ids
            start = len(encode_plain_prompt(tokenizer, mt_plain_prompt(src, tgt, source)))
            documents.append(Document(ids, np.array([[start, len(ids)]])))
        result = [0.0] * len(documents)
        order = sorted(range(len(documents)), key=lambda index: len(documents[index].input_ids))
        while order:
            count = max(1, self.batch_tokens // len(documents[order[-1]].input_ids))
            batch, order = order[-count:], order[:-count]
            values = self._batch_nll([documents[index] for index in batch])
            for index, value in zip(batch, values, strict=True):
                result[index] = value
        return result

    @torch.inference_mode()
    def _batch_nll(self, documents: List[Document]) -> List[float]:
        rows = [[document] for document in documents]
        tensors = [x.to(self.generator.device) for x in collate(rows, self.generator.pad_id)]
        losses = self.network(*tensors, num_documents=len(documents)).document_loss.tolist()
        targets = [int(np.diff(document.target_spans).sum()) for document in documents]
        return [loss / count for loss, count in zip(losses, targets, strict=True)]
