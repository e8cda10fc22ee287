"""ESPnet's own data preparation, ``egs2/<recipe>/local/data.sh``: run in place, then imported."""

import hashlib
import os
import shlex
from pathlib import Path
from typing import List, NamedTuple, Sequence

from espnet_spire.corpus.kaldi import Choice, import_data_dirs
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import WAV_SCP
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.launch import last_line
from espnet_spire.utils.steps import run_step

# Where a recipe's sets are, in the order in which they are looked for: as local/data.sh leaves
# them; as asr.sh and st.sh dump them; of training sets before the too long ones are taken out.
PLACES = {"data": ("data",), "dump": ("dump/raw", "dump/raw/org")}
PLACES["auto"] = PLACES["data"] + PLACES["dump"]
_RUN = 'cd "$1" && log="$2" && shift 2 && exec bash local/data.sh "$@" >"$log" 2>&1'


class WantedSet(NamedTuple):
    """Sets of the recipe, by their names there, that become one of ours."""

    theirs: Sequence[str]
    ours: str


def parse_sets(words: Sequence[str]) -> List[WantedSet]:
    """What ``--sets`` says.

    >>> parse_sets(["train.en-de:train", "dev"])
    [WantedSet(theirs=['train.en-de'], ours='train'), WantedSet(theirs=['dev'], ours='dev')]
    """
    found: List[WantedSet] = []
    for word in " ".join(words).split():
        theirs, colon, ours = word.partition(":")
        names = theirs.split("+")
        if not all(names) or (colon and not ours) or (len(names) > 1 and not colon):
            raise SpireError(f"--sets {word}: THEIRS, THEIRS:OURS or ONE+TWO:OURS was expected")
        if ours in [one.ours for one in found]:
            raise SpireError(f"--sets: {ours} is there twice; ONE+TWO:{ours} joins two sets")
        found.append(WantedSet(names, ours or theirs))
    if not found:
        raise SpireError("--sets is empty: name the sets to import, as in --sets train dev test")
    return found


def find_recipe(espnet_root: PathLike, recipe: str) -> Path:
    """The directory of a recipe (``covost2/st1``) in an ESPnet checkout.

    Raises:
        SpireError: it is not there; it says what is.
    """
    egs2 = Path(espnet_root) / "egs2"
    if not egs2.is_dir():
        raise SpireError(f"{espnet_root}: no egs2 there; --espnet_root is ESPnet's checkout")
    directory = egs2 / recipe
    if (directory / "local" / "data.sh").is_file():
        return Path(os.path.abspath(directory))
    corpus = egs2 / Path(recipe).parts[0]
    there = sorted(
        str(path.parent.parent.relative_to(egs2)) for path in corpus.glob("*/local/data.sh")
    )
    hint = f"there is {', '.join(there)}" if there else f"egs2 has no {corpus.name} with one either"
    raise SpireError(f"{directory}: no local/data.sh there; {hint}")


def run_recipe(
    directory: Path, options: Sequence[str], expdir: PathLike, *, again: bool = False
) -> Path:
    """Run ``local/data.sh`` in its recipe directory, unless that was done with these options.

    Args:
        options: of ``local/data.sh``.
        again: run it even so, because what it had left is gone.

    Returns:
        its log, in ``expdir``.

    Raises:
        SpireError: it failed; it shows the last line of the log.
    """
    name = "_".join(directory.parts[-2:])
    if options:  # one recipe may be run for several languages
        name += "_" + hashlib.blake2b(shlex.join(options).encode(), digest_size=4).hexdigest()
    log = Path(expdir).absolute() / "log" / f"espnet_{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if again:
        log.unlink(missing_ok=True)
    inputs = [directory / "local" / "data.sh"]
    inputs += [path for path in [directory / "db.sh"] if path.exists()]
    print(f"  {directory}/local/data.sh {shlex.join(options)} (log: {log})", flush=True)
    status = run_step(
        f"1 ESPnet {'/'.join(directory.parts[-2:])}",
        ["bash", "-c", _RUN, "bash", str(directory), str(log), *options],
        expdir=expdir,
        inputs=inputs,
        outputs=[log],
        in_place=True,
    )
    if status != 0:
        raise SpireError(
            f"{directory}/local/data.sh ended with status {status}: {last_line(log)} (log: {log})"
        )
    return log


def has_sets(directory: Path, sets: Sequence[WantedSet], where: str) -> bool:
    """Whether all sets are there."""
    names = [name for one in sets for name in one.theirs]
    return all(
        any((directory / place / name).is_dir() for place in PLACES[where]) for name in names
    )


def find_set(directory: Path, name: str, places: Sequence[str]) -> Path:
    """The data directory of a set of a recipe.

    Raises:
        SpireError: it is in none of the places; it says which sets are.
    """
    for place in places:
        if (directory / place / name).is_dir():
            return directory / place / name
    there = [
        str(path.parent.relative_to(directory))
        for place in places
        for path in sorted((directory / place).glob(f"*/{WAV_SCP}"))
    ]
    has = f"there are {', '.join(there)}" if there else "nor any other set"
    wanted = " nor ".join(f"{place}/{name}" for place in places)
    raise SpireError(f"{directory}: no {wanted} there; {has}")


def import_recipe(
    directory: Path,
    sets: Sequence[WantedSet],
    out: PathLike,
    choice: Choice,
    *,
    where: str = "auto",
    test_sets: Sequence[str] = (),
    max_rejected: float = 0.001,
) -> None:
    """Import sets of a recipe into ``out/<set>``.

    Args:
        directory: of the recipe.
        where: a key of :data:`PLACES`.
        test_sets: those of ours of which nothing is left out.
    """
    for name in test_sets:
        if name not in [one.ours for one in sets]:
            raise SpireError(f"--test_sets {name}: not among the sets of --sets")
    found = [[find_set(directory, name, PLACES[where]) for name in one.theirs] for one in sets]
    choice = choice._replace(recipe_dir=choice.recipe_dir or str(directory))
    for one, data_dirs in zip(sets, found, strict=True):
        import_data_dirs(
            data_dirs,
            Path(out) / one.ours,
            choice,
            whole=one.ours in test_sets,
            max_rejected=max_rejected,
        )
