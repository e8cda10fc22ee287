"""Where scores lie in experiment directories, and whose they are.

Layout: ``spire_it_<variant>_<tag>/<inference_tag>/<set>/<task>.<src>-<tgt>/score_*/`` with
``score.json`` (and ``spire_cpt_<tag>/…``, the variant ``spirebase``; ``baseline_<name>/…``, the
system of that name). A directory of any other name holds the scores of a system if it is given with
the system's name.
"""

import os
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.score.files import SCORE_JSON
from espnet_spire.text.jobs import Job, match_job
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

VARIANTS = {
    "spirebase": "SpireBase",
    "spirefull": "SpireFull",
    "spirefull_kd": "SpireFull, distilled",
    "towerfull": "TowerFull",
    "towerfull_kd": "TowerFull, distilled",
    "spirenoblocks": "SpireNoBlocks",
    "spirenopseudo": "SpireNoPseudo",
}
_EXPERIMENT = re.compile(r"spire_it_(?P<variant>[^_]+(?:_kd)?)(?:_(?P<tag>.+))?")
_BASE = re.compile(r"spire_cpt(?:_(?P<tag>.+))?")
_BASELINE = re.compile(r"baseline_(?P<name>.+)")


class Run(NamedTuple):
    """One trained model, decoded in one way."""

    tag: str
    inference: str
    variant: str

    @property
    def system(self) -> str:
        """What the paper calls the model, or what it was named when its directory was given."""
        return VARIANTS.get(self.variant, self.variant)


class Scored(NamedTuple):
    """A score directory: ``path`` is that of its ``score.json``."""

    run: Run
    set: str
    job: Job
    path: Path


def run_of(directory: str) -> Optional[Dict[str, str]]:
    """Variant and tag of an experiment by its directory's name; ``None`` if it is none."""
    found = _EXPERIMENT.fullmatch(directory)
    if found:
        return {"variant": found["variant"], "tag": found["tag"] or ""}
    found = _BASE.fullmatch(directory)
    if found:
        return {"variant": "spirebase", "tag": found["tag"] or ""}
    found = _BASELINE.fullmatch(directory)
    return {"variant": found["name"], "tag": ""} if found else None


def scored(expdir: PathLike) -> List[Scored]:
    """Every score directory under ``expdir``, sorted by path.

    Raises:
        SpireError: no such directory, or no score in it.
    """
    expdir = _existing(expdir)
    found = []
    for experiment in sorted(path for path in expdir.iterdir() if run_of(path.name)):
        found += _of_system(experiment, **run_of(experiment.name))
    if not found:
        raise _nothing(
            expdir, f"spire_it_*/<inference_tag>/<set>/<task>.<src>-<tgt>/score_*/{SCORE_JSON}"
        )
    return found


def find(words: Sequence[str]) -> List[Scored]:
    """The score directories that a user names, each once, in the order of the words.

    A word is a directory of experiments, one experiment, one ``<inference_tag>`` in it, or
    ``NAME=DIRECTORY`` for any directory that holds ``<inference_tag>/<set>/…``: the scores of the
    system ``NAME``. Runs of the same name from different places get the place's name into their
    tag.

    Raises:
        SpireError: a directory is missing, or has no score.
    """
    found: Dict[Path, Scored] = {}
    places: Dict[Run, Path] = {}
    for word in words:
        name, equals, directory = word.rpartition("=")
        path = Path(os.path.abspath(directory))
        some = _named(path, name) if equals else _of_word(path)
        for entry in some:
            place = path if equals else entry.path.parents[5]
            run = entry.run
            if places.setdefault(run, place) != place:
                run = run._replace(tag="/".join(filter(None, (place.name, run.tag))))
            found.setdefault(entry.path, entry._replace(run=run))
    return list(found.values())


def _of_word(path: Path) -> List[Scored]:
    """An experiment, one way of decoding it, or all experiments of a directory."""
    for experiment, inference in ((path, None), (path.parent, path.name)):
        if run_of(experiment.name):
            _existing(path)
            found = list(_of_system(experiment, **run_of(experiment.name)))
            found = [entry for entry in found if inference in (None, entry.run.inference)]
            if not found:
                raise _nothing(path, f"<set>/<task>.<src>-<tgt>/score_*/{SCORE_JSON}")
            return found
    return scored(path)


def _named(path: Path, name: str) -> List[Scored]:
    if not name:
        raise SpireError(f"={path}: a name is missing before the =, such as Whisper-base={path}")
    found = list(_of_system(_existing(path), variant=name, tag=""))
    if not found:
        raise _nothing(path, f"<inference_tag>/<set>/<task>.<src>-<tgt>/score_*/{SCORE_JSON}")
    return found


def _of_system(directory: Path, variant: str, tag: str) -> Iterator[Scored]:
    for path in sorted(directory.glob(f"*/*/*/score_*/{SCORE_JSON}")):
        parts: Tuple[str, ...] = path.relative_to(directory).parts
        job = match_job(parts[2])
        if job is not None and not any(part.startswith(".") for part in parts):
            yield Scored(Run(tag, parts[0], variant), parts[1], job, path)


def _existing(path: PathLike) -> Path:
    if not Path(path).is_dir():
        raise SpireError(f"{path}: no such experiment directory")
    return Path(path)


def _nothing(path: Path, expected: str) -> SpireError:
    return SpireError(f"{path}: no score in it ({expected}); decode and score first")
