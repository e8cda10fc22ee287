"""All sets of a recipe, each made by a command that is a step of its own (stage 1)."""

import logging
import sys
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Union

from espnet_spire.corpus.recipe import RecipeSet
from espnet_spire.corpus.records import Corpus
from espnet_spire.corpus.registry import SPEECH, corpus_root, speech_corpus, text_corpus
from espnet_spire.corpus.rules import parse_rule
from espnet_spire.corpus.text_corpus import TextCorpus, TextRequest
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.steps import run_step


class Options(NamedTuple):
    """Of all sets: see ``prepare_corpora --help``. ``rules`` replace those of the recipe."""

    out: Path
    expdir: Path
    nj: int
    seed: int
    max_rejected: float
    rules: Mapping[str, Sequence[str]]


def parse_set_rules(entries: Sequence[str], sets: Sequence[RecipeSet]) -> Dict[str, List[str]]:
    """``mls_train=`` → no rules for this set; ``SET=RULE,RULE`` → these.

    Raises:
        SpireError: a set is not in the recipe.
    """
    known = [one.set for one in sets]
    found = {}
    for entry in entries:
        name, equals, rules = entry.partition("=")
        if not equals or name not in known:
            raise SpireError(
                f"--set_rules {entry!r}: not SET=RULE,… with a set of {' '.join(known)}"
            )
        found[name] = [rule for rule in rules.split(",") if rule]
    return found


def check_places(sets: Sequence[RecipeSet], environment: Mapping[str, str]) -> None:
    """Every corpus that is needed must be somewhere: one line for each that is not.

    Args:
        environment: has the variables of ``db.sh``.
    """
    missing = []
    for name in dict.fromkeys(one.corpus for one in sets):
        corpus = _corpus(name)
        if not environment.get(corpus.variable):
            missing.append(f"{corpus.variable} (where {name} lies; get it from {corpus.source})")
    if missing:
        lines = "\n  ".join(missing)
        raise SpireError(
            f"these variables are not set; set them in db.sh, or use fewer --corpora:\n  {lines}"
        )


def prepare_recipe(
    sets: Sequence[RecipeSet], options: Options, environment: Mapping[str, str]
) -> None:
    """Make what is not there yet; a set that fails does not keep the others from being made.

    Raises:
        SpireError: it names all sets that failed.
    """
    check_places(sets, environment)
    failed = []
    for one in sets:
        try:
            status = _prepare(one, options, environment)
        except SpireError as error:
            logging.error("%s: %s", one.set, error)
            status = error.exit_code
        if status != 0:
            failed.append(one.set)
    if failed:
        raise SpireError(
            f"{', '.join(failed)} could not be made (see above); the others are there: mend what is"
            " wrong and start the same command again"
        )


def _corpus(name: str) -> Union[Corpus, TextCorpus]:
    return speech_corpus(name) if name in SPEECH else text_corpus(name)


def _prepare(one: RecipeSet, options: Options, environment: Mapping[str, str]) -> int:
    corpus = _corpus(one.corpus)
    root = corpus_root(corpus, environment[corpus.variable])
    out = options.out / one.set
    module = "prepare_corpus" if one.spoken else "prepare_text"
    command = [sys.executable, "-m", f"espnet_spire.bin.{module}", "--corpus", one.corpus]
    command += ["--root", str(root), "--split", one.split, "--out", str(out)]
    add = _speech if one.spoken else _text
    inputs = add(one, corpus, root, options, command)
    return run_step(
        f"1 {one.set}",
        command,
        expdir=options.expdir,
        inputs=inputs,
        outputs=[out],
        hint=f"see {corpus.variable} in db.sh, and --corpora",
    )


def _speech(
    one: RecipeSet, corpus: Corpus, root: Path, options: Options, command: List[str]
) -> List[Path]:
    """Add the options of ``prepare_corpus``; the files that it reads."""
    rules = options.rules.get(one.set, one.rules)
    targets = corpus.targets if one.targets is None else list(one.targets)
    if corpus.targets:
        command += ["--targets", *targets]
    command += ["--max_rejected", str(options.max_rejected), "--nj", str(options.nj)]
    inputs = list(corpus.index(root, one.split, targets))
    if rules:
        command += ["--rules", *rules, "--seed", str(options.seed)]
        for rule in map(parse_rule, rules):
            for path in rule.reads:
                if not path.exists():
                    raise SpireError(
                        f"{path} is not there, which the rule '{rule.name}' reads: add its corpus"
                        f" to --corpora, or lift the rule with --set_rules {one.set}="
                    )
            inputs += rule.reads
    return inputs


def _text(
    one: RecipeSet, corpus: TextCorpus, root: Path, options: Options, command: List[str]
) -> List[Path]:
    """Add the options of ``prepare_text``; the files that it reads."""
    for name, value in one.options.items():
        command += [f"--{name}", str(value)]
    for name in ("seed", "nj"):
        if name in corpus.options:
            command += [f"--{name}", str(getattr(options, name))]
    limits = {name: value for name, value in one.options.items() if name in TextRequest._fields}
    return list(corpus.index(TextRequest(root=root, split=one.split, **limits)))
