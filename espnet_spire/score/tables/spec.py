"""What a table is made of before there are figures of ours in it."""

from dataclasses import dataclass, field
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple

# As the paper prints them; other metrics have one digit.
_DECIMALS = {"comet22": 2, "xcomet": 2, "cometkiwi": 2, "f1": 2}


class Part(NamedTuple):
    """One test set in one direction; a column is about one or is an average over several."""

    set: str
    src: str
    tgt: str

    @property
    def name(self) -> str:
        """``fleurs_test en→de``, or the set alone where one language is left."""
        return self.set if self.src == self.tgt else f"{self.set} {self.src}→{self.tgt}"


class Figure(NamedTuple):
    """A figure as the paper prints it, and what is to be known of it."""

    value: float
    note: Optional[str] = None

    @property
    def doubtful(self) -> bool:
        """Whether it cannot be what was measured: a slip of the paper's."""
        return bool(self.note) and self.note.startswith("sic")


@dataclass(frozen=True)
class Column:
    """A metric on one part, or averaged over several.

    Attributes:
        head: words of the heading, from the widest to the narrowest.
        task: ``None``: that of the section.
    """

    head: Tuple[str, ...]
    metric: str
    parts: Tuple[Part, ...]
    task: Optional[str] = None

    @property
    def title(self) -> str:
        """The heading in one line."""
        return " ".join(word for word in self.head if word)

    @property
    def decimals(self) -> int:
        """Digits after the point."""
        return _DECIMALS.get(self.metric, 1)


@dataclass(frozen=True)
class Section:
    """Rows under a heading of their own; ``figures`` are the paper's by system, one a column."""

    title: str = ""
    task: Optional[str] = None
    figures: Mapping[str, Sequence[Optional[Figure]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """A table.

    Attributes:
        number: the paper's, ``None`` where it has no such table.
        ablation: models stand side by side in it, by all tasks.
    """

    title: str
    columns: Tuple[Column, ...]
    sections: Tuple[Section, ...]
    number: Optional[int] = None
    ablation: bool = False

    @property
    def name(self) -> str:
        """``Table 2: …``, or the title alone."""
        return self.title if self.number is None else f"Table {self.number}: {self.title}"
