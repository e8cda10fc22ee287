"""Which sets a recipe makes of which corpora, and what each is for: ``conf/full_corpora.yaml``."""

import logging
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import yaml

from espnet_spire.corpus.registry import SPEECH, TEXT
from espnet_spire.corpus.rules import parse_rule
from espnet_spire.train.mixture import fixed_tokens, load_mixture
from espnet_spire.utils.atomic import PathLike, atomic_write
from espnet_spire.utils.config import read_yaml
from espnet_spire.utils.errors import SpireError

USES = ("cpt", "it", "pseudo", "kmeans", "valid", "test")
EVERYTHING = "all"


@dataclass(frozen=True)
class RecipeSet:
    """One data directory of a recipe; the fields are those of the file, which explains them."""

    set: str
    corpus: str
    split: str
    use: Sequence[str]
    rules: Sequence[str] = ()
    targets: Optional[Sequence[str]] = None
    kmeans_max_per_speaker: int = 0
    hours: float = 0.0
    utterances: int = 0
    share: float = 1.0
    units: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def spoken(self) -> bool:
        """Whether it has audio."""
        return self.corpus in SPEECH

    def with_rules(self, rules: Optional[Sequence[str]]) -> "RecipeSet":
        """With other rules (``None``: its own); without any all of it is kept."""
        if rules is None:
            return self
        return replace(self, rules=rules, share=self.share if rules else 1.0)


def load_recipe(path: PathLike) -> List[RecipeSet]:
    """Read and check a recipe's sets; errors name the file, the set and the key."""
    content = read_yaml(path)
    entries = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise SpireError(f"{path}: a list 'sets' was expected")
    known = {one.name for one in fields(RecipeSet)}
    found: Dict[str, RecipeSet] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}, set {number}"
        if not isinstance(entry, dict) or not {"set", "corpus", "split", "use"} <= entry.keys():
            raise SpireError(f"{where}: {{set, corpus, split, use}} was expected")
        where = f"{path}: set {entry['set']}"
        for key in entry.keys() - known:
            raise SpireError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        one = RecipeSet(**entry)
        if one.set in found:
            raise SpireError(f"{where}: is there twice")
        if one.corpus not in SPEECH + TEXT:
            raise SpireError(f"{where}: corpus {one.corpus!r} is unknown")
        if not set(one.use) <= set(USES):
            raise SpireError(f"{where}: use: {one.use}; known are {', '.join(USES)}")
        for rule in one.rules:
            parse_rule(rule)
        found[one.set] = one
    return list(found.values())


def choose(sets: Sequence[RecipeSet], corpora: str) -> List[RecipeSet]:
    """The sets of some corpora.

    Args:
        corpora: their names, or ``all``.

    Raises:
        SpireError: a name is not among those of the recipe.
    """
    names = corpora.split()
    if names == [EVERYTHING]:
        return list(sets)
    known = list(dict.fromkeys(one.corpus for one in sets))
    for name in names or [""]:
        if name not in known:
            raise SpireError(f"--corpora: {name!r} is none of {', '.join(known)}, or all")
    return [one for one in sets if one.corpus in names]


def settings(sets: Sequence[RecipeSet]) -> Dict[str, str]:
    """Options of ``spire.sh`` that follow from the sets.

    Raises:
        SpireError: no training set is among them.
    """

    def names(*uses: str, spoken: bool = True) -> str:
        found = [one.set for one in sets if one.spoken == spoken and set(uses) & set(one.use)]
        return " ".join(found)

    kmeans = [one for one in sets if "kmeans" in one.use]
    train = names("cpt", "it")
    if not train:
        raise SpireError(
            "--corpora: no training set of speech is among "
            + ", ".join(dict.fromkeys(one.corpus for one in sets))
        )
    # a subset without the corpora of the paper's k-means learns it on what there is
    return {
        "train_set": train,
        "valid_set": names("valid"),
        "test_sets": names("test"),
        "text_test_sets": names("test", spoken=False),
        "pseudo_set": names("pseudo"),
        "kmeans_set": " ".join(one.set for one in kmeans) or train,
        "kmeans_max_per_speaker": " ".join(str(one.kmeans_max_per_speaker) for one in kmeans),
    }


def select_mixture(
    path: PathLike, recipe: Sequence[RecipeSet], chosen: Sequence[RecipeSet]
) -> Optional[Dict[str, Any]]:
    """A mixture without the sources whose sets are not made; ``None`` if none is left.

    A source belongs to the set that its path ends with; one of a set that the recipe does not know
    stays. A ``budget`` shrinks by the share of what is left out, so that every other source gives
    as many tokens as it would have.
    """
    mixture = load_mixture(path, "{dumpdir}")
    made = {one.set for one in chosen}
    missing = {one.set for one in recipe} - made
    kept, left_out = [], []
    for source in mixture["sources"]:
        place = source.get("data_dir") or source.get("text_dir") or source["file"]
        (left_out if Path(place).name in missing else kept).append(source)
    if not kept:
        logging.warning("%s: nothing is left of it", path)
        return None
    if left_out:
        logging.info("%s: without %s", path, ", ".join(source["name"] for source in left_out))
    if "budget" in mixture and left_out:
        before = mixture["budget"]
        fixed = fixed_tokens(mixture["sources"])
        weight = sum(source.get("weight", 0) for source in mixture["sources"])
        share = sum(source.get("weight", 0) for source in kept) / weight if weight else 0
        mixture["budget"] = max(1, round((before - fixed) * share) + fixed_tokens(kept))
        logging.info(
            "%s: budget %s → %s tokens, so that the other sources give what they gave",
            *(path, f"{before:,}", f"{mixture['budget']:,}"),
        )
    return {**mixture, "sources": kept}


def write_mixture(path: PathLike, mixture: Dict[str, Any], origin: PathLike) -> None:
    """Write a mixture file."""
    with atomic_write(path) as stream:
        stream.write(
            f"# Made of {origin} by recipe_settings, for some of its corpora; do not edit.\n"
        )
        yaml.safe_dump(mixture, stream, sort_keys=False, allow_unicode=True)
