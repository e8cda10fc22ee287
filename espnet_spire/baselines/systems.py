"""What every baseline has in common: speech or text in, text out."""

from abc import ABC, abstractmethod
from typing import List, NamedTuple, Optional, Sequence, Union

import numpy as np

from espnet_spire.text.jobs import Job
from espnet_spire.utils.errors import SpireError, model_error

# Samples at 16 kHz, float32, shape (samples,), or a text to translate.
Input = Union[np.ndarray, str]
# Tasks whose input is a text.
OF_TEXT = ("mt", "st_cascade")


class Said(NamedTuple):
    """``cut``: tokens of an answer that reached the limit before its end."""

    text: str
    cut: Optional[int] = None


class System(ABC):
    """A model that recognises or translates.

    ``title``: for messages. ``tasks``: those it knows.
    """

    title: str
    tasks: Sequence[str]

    def check(self, job: Job) -> None:
        """Raise :class:`SpireError` for a task or a language that the model does not know."""
        if job.task not in self.tasks:
            raise SpireError(
                f"job {job.name}: {self.title} is for {', '.join(self.tasks)}; leave it out"
            )

    def why_unusable(self, samples: np.ndarray) -> Optional[str]:
        """Why there is no answer to some audio, ``None`` if there is one."""
        return None

    def padded_samples(self, num_samples: int) -> int:
        """What audio of so many samples costs in a batch."""
        return num_samples

    @abstractmethod
    def answer(self, job: Job, batch: Sequence[Input]) -> List[Said]:
        """The texts of a batch, each as it would be alone.

        Args:
            job: has passed :meth:`check`.
            batch: texts if the task is one of ``OF_TEXT``, else samples.
        """


def load_or_explain(load, name: str):
    """``load(name)``; what transformers cannot find or read is a :class:`SpireError`."""
    try:
        return load(name)
    except (OSError, ValueError, KeyError) as error:
        raise model_error(name, error) from None


def one_line(text: str) -> str:
    """A text as it can stand in a table."""
    return " ".join(text.split())
