"""Loss sums by task and language, the same set on every rank."""

from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np


class GroupLosses:
    """Sums of loss and of target tokens for each (task, language).

    Every rank has all groups of the data, also those that its batch lacks: the sums of all ranks
    are added as one array.

    Args:
        groups: all (task, language) pairs, in the same order on each rank.
    """

    def __init__(self, groups: Sequence[Tuple[str, str]]) -> None:
        self.groups = list(groups)
        self.sums = np.zeros((len(self.groups), 2))
        self.not_finite: List[str] = []

    def add(
        self,
        groups: Sequence[int],
        document_loss: np.ndarray,
        num_targets: np.ndarray,
        *,
        keys: Callable[[Sequence[int]], List[str]],
    ) -> None:
        """Add documents.

        Args:
            groups: index of each document's group, D of them.
            document_loss: summed over target tokens, shape (D,).
            num_targets: target tokens, shape (D,).
            keys: names documents by their numbers; asked where a loss is not finite.
        """
        np.add.at(self.sums[:, 0], groups, document_loss)
        np.add.at(self.sums[:, 1], groups, num_targets)
        bad = np.flatnonzero(~np.isfinite(document_loss))
        if len(bad):
            self.not_finite += keys(bad)

    def report(self) -> Dict[str, float]:
        """Nats a target token: ``loss``, ``loss_<task>`` and ``loss_<task>.<lang>``.

        Groups without target tokens are left out.
        """
        report = {"loss": float(self.sums[:, 0].sum() / self.sums[:, 1].sum())}
        for task in sorted({task for task, _ in self.groups}):
            rows = [n for n, group in enumerate(self.groups) if group[0] == task]
            loss, count = self.sums[rows].sum(axis=0)
            if count > 0:
                report[f"loss_{task}"] = float(loss / count)
        for (task, lang), (loss, count) in zip(self.groups, self.sums, strict=True):
            if count > 0:
                report[f"loss_{task}.{lang}"] = float(loss / count)
        return report
