"""Sequences of different lengths, one after the other, and where they lie in a padded batch."""

from typing import List, Optional

import torch
from torch import Tensor


class Layout:
    """Rows of sequences in a row ↔ a padded batch, in one copy each way.

    Args:
        lengths: rows of each sequence.
        device: where the rows are.
    """

    def __init__(self, lengths: List[int], device: torch.device) -> None:
        self.lengths = lengths
        self.longest = max(lengths)
        counts = torch.tensor(lengths, device=device)
        self.inside = torch.arange(self.longest, device=device) < counts[:, None]
        self._places = self.inside.flatten().nonzero()[:, 0]

    @property
    def mask(self) -> Optional[Tensor]:
        """bool, (sequences, longest): true inside; ``None`` where all are of one length."""
        return None if min(self.lengths) == self.longest else self.inside

    def pad(self, rows: Tensor) -> Tensor:
        """(rows of all, width) → (sequences, longest, width), zeros outside."""
        padded = rows.new_zeros(len(self.lengths) * self.longest, rows.shape[1])
        padded[self._places] = rows
        return padded.unflatten(0, (len(self.lengths), self.longest))

    def unpad(self, padded: Tensor) -> Tensor:
        """(sequences, at least longest, width) → (rows of all, width)."""
        return padded[:, : self.longest].flatten(0, 1)[self._places]
