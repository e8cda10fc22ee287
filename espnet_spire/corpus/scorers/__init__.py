"""Quality scores of translations without a reference: one module each, found by its file name.

To add a scorer, add a file. Its module has

* a docstring whose first line says what it is (``--help`` shows it);
* ``add_options(parser)``: options of its own, whose names begin so that they meet no others;
* ``identity(args)``: JSON of what its scores depend on, without loading the model: scores are kept
  by it;
* ``make(args, device, local_model)``: a :class:`Scorer`; ``local_model()`` is the translating model
  in this process (:class:`espnet_spire.decode.generate.Generator`), loaded when it is called.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType
from typing import Dict, List, Protocol, Sequence


class Scorer(Protocol):
    """Scores in [0, 1], one for each pair; higher is better."""

    def __call__(
        self, sources: Sequence[str], translations: Sequence[str], src: str, tgt: str
    ) -> List[float]:
        """Score translations, none of them empty, from language ``src`` into ``tgt``."""

    def close(self) -> None:
        """Let go of the model."""


def find_scorers(packages: Sequence[str]) -> Dict[str, ModuleType]:
    """The scorers in packages, by name; a later package's take precedence."""
    found = {}
    for package in packages:
        places = importlib.util.find_spec(package).submodule_search_locations
        for module in pkgutil.iter_modules(places):
            found[module.name] = importlib.import_module(f"{package}.{module.name}")
    return found


def describe(scorers: Dict[str, ModuleType]) -> str:
    """One line that says what each is."""
    first = {name: module.__doc__.splitlines()[0].rstrip(".") for name, module in scorers.items()}
    return "; ".join(f"{name}: {line}" for name, line in first.items())
