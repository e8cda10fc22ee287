"""Loss sums by task and language, the same set on every rank."""

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from espnet_spire.train.pairs import PAIRED, KdWeights


class Group(NamedTuple):
    """What losses are reported of together.

    ``weight``: of its losses in the loss that is trained. ``counted``: whether its target tokens
    are among those that this is a mean over; those of pairs are counted once, with the student.
    """

    task: str
    lang: str
    weight: float = 1.0
    counted: bool = True


def loss_groups(
    pairs: Sequence[Tuple[str, str]], weights: KdWeights
) -> Tuple[List[Group], Dict[Tuple[str, str], int]]:
    """Groups of examples' tasks and languages, and the number of the first one of each.

    A pair for distillation has three in a row: its ``st``, ``mt`` and ``kd``.
    """
    groups: List[Group] = []
    first: Dict[Tuple[str, str], int] = {}
    for task, lang in pairs:
        first[task, lang] = len(groups)
        if task != PAIRED:
            groups.append(Group(task, lang))
            continue
        for name, weight in weights._asdict().items():
            groups.append(Group(name, lang, weight, counted=name == "st"))
    return groups, first


class GroupLosses:
    """Sums of loss and of target tokens for each (task, language).

    Every rank has all groups of the data, also those that its batch lacks: the sums of all ranks
    are added as one array.

    Args:
        groups: all of them, in the same order on each rank.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
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

        ``loss`` is what is trained, weights included; the others are without weights. Groups
        without target tokens are left out.
        """
        trained = np.array([group.weight for group in self.groups]) * self.sums[:, 0]
        counted = [n for n, group in enumerate(self.groups) if group.counted]
        report = {"loss": float(trained.sum() / self.sums[counted, 1].sum())}
        by_task: Dict[str, List[int]] = {}
        by_lang: Dict[str, List[int]] = {}
        for number, group in enumerate(self.groups):
            by_task.setdefault(f"loss_{group.task}", []).append(number)
            by_lang.setdefault(f"loss_{group.task}.{group.lang}", []).append(number)
        for name, rows in [*sorted(by_task.items()), *by_lang.items()]:
            loss, count = self.sums[rows].sum(axis=0)
            if count > 0:
                report[name] = float(loss / count)
        return report
