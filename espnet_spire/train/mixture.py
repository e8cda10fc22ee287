"""Mixture files: which sources, how much of each; read and checked, nothing done yet.

A mixture file::

    format: chatml            # plain: loss on everything; chatml: loss on the answers
    max_length: 4096          # tokens; longer examples are rejected and listed
    seed: 0
    variants: [full, spirenopseudo, spirenoblocks] # if given, no other names can stand in not_in
    sources:
      - {name: asr, task: asr, data_dir: "{dumpdir}/raw/train_it"}
      - {name: gold, task: st, data_dir: "{dumpdir}/raw/train_st", targets: [de, fr]}
      - {name: pseudo, task: st, data_dir: "{dumpdir}/raw/train_it", targets: [de, fr],
         translations: "{dumpdir}/pseudo/train_it.{lang}", range: [0, 0.5], uniform: true,
         max_examples: 120_000, not_in: [spirenopseudo]}
      - {name: blocks, task: chat, file: data/blocks.jsonl, not_in: [spirenoblocks]}

Tasks and what they read:

===============  ===========================================================================
``asr``          ``data_dir``: transcripts and units; ``speech_lang`` if it is not ``en``
``st``           the same and ``targets``; ``translations``: where they lie, if not there
``st_multi_turn``  the same: the transcript first, then its translation
``st_kd``        the same as ``st``, together with MT of the transcript, whose distributions are
                 what ST learns from (``--kd_weights`` of ``spire_train``)
``mt``           ``text_dir`` with ``text.tc.<lang>``, ``pairs`` as ``[en-de, de-en]``; with
                 ``speech_lang`` it has transcripts, which are read in that language
``mono``         ``text_dir`` with ``text.<lang>``, ``langs``; ``too_long: cut`` keeps the first
                 ``max_length`` tokens of a longer text; U+2028 in a text is learned as ``\\n``
``chat``         ``file``: ShareGPT conversations (JSON lines, a JSON array, Parquet, a directory
                 of ``datasets``); ``with_units: true`` if they hold characters of units
===============  ===========================================================================

How much: ``max_tokens`` and ``max_examples`` keep the first in a random order that depends on seed,
source and key alone: the same on any machine, and a larger budget keeps what a smaller one kept.
``uniform: true`` gives each language or pair of a source an equal part of its budget; one that has
less does not lend the rest to others. Or else ``budget`` in tokens at the top, of all sources
together: those with ``max_tokens`` take theirs, the others share the rest by their ``weight``; what
a variant leaves out (``not_in``) leaves the others' shares as they are. ``repeat: n`` takes what
was kept n times (``max_tokens`` is before, a weight's share counts the repeats). ``range: [low,
high]`` takes the utterances whose place in a random order, from 0 to 1, lies there: it depends on
the utterance and ``seed``, not on the source, the task or the language, so sources with disjoint
ranges over the same data have no utterance in common (60K direct and other 60K multi-turn prompts;
paper, section 3.3.1).
"""

import difflib
import math
import re
from typing import Any, Callable, Dict, List, Mapping, Optional

import yaml

from espnet_spire.text.languages import language_name, same_language
from espnet_spire.train.pairs import PAIRED
from espnet_spire.train.selection import Limits
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.errors import SpireError

_NEEDS = {
    "asr": ("data_dir",),
    "st": ("data_dir", "targets"),
    "st_multi_turn": ("data_dir", "targets"),
    PAIRED: ("data_dir", "targets"),
    "mt": ("text_dir", "pairs"),
    "mono": ("text_dir", "langs"),
    "chat": ("file",),
}
_MAY_HAVE = {
    "asr": ("speech_lang",),
    "st": ("translations", "speech_lang", "uniform"),
    "st_multi_turn": ("translations", "speech_lang", "uniform"),
    PAIRED: ("translations", "speech_lang", "uniform"),
    "mt": ("uniform", "speech_lang"),
    "mono": ("uniform", "too_long"),
    "chat": ("with_units",),
}
TASKS = tuple(_NEEDS)
_FORMATS = {
    "plain": ("asr", "mt", "mono"),
    "chatml": ("asr", "st", "st_multi_turn", PAIRED, "mt", "chat"),
}
_PATHS = ("data_dir", "text_dir", "file", "translations")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_weight(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    return numbers and 0 <= value[0] < value[1] <= 1


def _is_words(value: Any) -> bool:
    words = isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    return words and len(set(value)) == len(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_VALUES: Dict[str, Callable[[Any], bool]] = {
    # spaces and colons have a meaning where keys are `<source>:<utterance>`
    "name": lambda value: isinstance(value, str) and re.fullmatch(r"[\w.+-]+", value) is not None,
    "task": lambda value: value in TASKS,
    "data_dir": _is_text,
    "text_dir": _is_text,
    "file": _is_text,
    "translations": _is_text,
    "targets": _is_words,
    "langs": _is_words,
    "pairs": lambda value: _is_words(value) and all(v.count("-") == 1 for v in value),
    "speech_lang": _is_text,
    "range": _is_range,
    "max_examples": _is_count,
    "max_tokens": _is_count,
    "weight": _is_weight,
    "uniform": _is_flag,
    "repeat": _is_count,
    "not_in": _is_words,
    "too_long": lambda value: value in ("reject", "cut"),
    "with_units": _is_flag,
}
_TOP: Dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value in _FORMATS,
    "max_length": lambda value: _is_count(value) and value > 1,
    "seed": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "budget": _is_count,
    "variants": _is_words,
    "sources": lambda value: isinstance(value, list) and bool(value),
}


def load_mixture(
    path: PathLike, dumpdir: str = "dump", words: Optional[Mapping[str, str]] = None
) -> Dict[str, Any]:
    """Read and check a mixture file; errors name file, source and key.

    Args:
        dumpdir: what ``{dumpdir}`` in the paths stands for.
        words: what other names in braces stand for, in any text of the file: with ``speech_lang``
            and ``target_lang`` one file does for all pairs of languages.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            mixture = yaml.safe_load(stream)
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SpireError(f"{path}: is a directory, a mixture file was expected") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpireError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return check_mixture(_filled(mixture, words or {}), str(path), dumpdir)


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """A part of a mixture file with words in place of their names in braces."""
    if isinstance(value, dict):
        return {key: _filled(one, words) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, words) for one in value]
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
    return value


def check_mixture(mixture: Any, where: str, dumpdir: str = "dump") -> Dict[str, Any]:
    """A checked copy of what a mixture file holds, defaults filled in; see :func:`load_mixture`."""
    if not isinstance(mixture, dict) or not _TOP["sources"](mixture.get("sources")):
        raise SpireError(f"{where}: a mixture needs a list 'sources'")
    _check_values(mixture, _TOP, where)
    if mixture.get("format") not in tuple(_FORMATS):
        raise SpireError(f"{where}: 'format' must be plain or chatml")
    sources: List[Dict[str, Any]] = []
    for source in mixture["sources"]:
        if not isinstance(source, dict):
            raise SpireError(f"{where}: a source must have 'name' and 'task', {source!r} has not")
        name = source.get("name")
        if not name or name in [other["name"] for other in sources]:
            raise SpireError(f"{where}: each source needs a 'name' of its own, {name!r} is not")
        _check_source(mixture, source, f"{where}: source {name}")
        paths = {key: source[key].replace("{dumpdir}", dumpdir) for key in _PATHS if key in source}
        sources.append({**source, **paths})
    if "budget" in mixture:
        weights = any("weight" in source for source in sources)
        if fixed_tokens(sources) + weights > mixture["budget"]:
            raise SpireError(
                f"{where}: budget: {mixture['budget']} tokens, but the sources with max_tokens take"
                f" {fixed_tokens(sources)}"
            )
    return {"seed": 0, "max_length": 4096, **mixture, "sources": sources}


def _check_values(values: Dict[str, Any], kinds: Dict[str, Callable], where: str) -> None:
    for key, value in values.items():
        if key not in kinds:
            close = difflib.get_close_matches(str(key), kinds, 1)
            advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(kinds)}"
            raise SpireError(f"{where}: unknown key {key!r}; {advice}")
        if key in ("format", "task"):  # with messages of their own
            continue
        if not kinds[key](value):
            raise SpireError(f"{where}: {key}: {value!r} cannot be used")


def _check_source(mixture: Dict[str, Any], source: Dict[str, Any], where: str) -> None:
    _check_values(source, _VALUES, where)
    task = source.get("task")
    if task not in TASKS:
        raise SpireError(f"{where}: 'task' must be one of {', '.join(TASKS)}")
    for key in _NEEDS[task]:
        if key not in source:
            raise SpireError(f"{where}: task {task} needs {key!r}")
    if task not in _FORMATS[mixture["format"]]:
        other = "plain" if mixture["format"] == "chatml" else "chatml"
        raise SpireError(f"{where}: task {task} has no {mixture['format']} form; use {other}")
    own = {key for keys in (*_NEEDS.values(), *_MAY_HAVE.values()) for key in keys}
    for key in source:
        if key in own and key not in _NEEDS[task] + _MAY_HAVE[task]:
            tasks = [other for other in TASKS if key in _NEEDS[other] + _MAY_HAVE[other]]
            raise SpireError(f"{where}: {key!r} is not for task {task} but for {', '.join(tasks)}")
    for variant in source.get("not_in", ()):
        _check_variant(mixture, variant, f"{where}: not_in")
    # Texts in any language can be learned from (langs), but prompts need a language's name.
    named = [source.get("speech_lang", "en"), *source.get("targets", ())]
    named += [lang for pair in source.get("pairs", ()) for lang in pair.split("-")]
    for lang in named:
        try:
            language_name(lang)
        except SpireError as error:
            raise SpireError(f"{where}: {error}") from None
    for target in source.get("targets", ()):
        if same_language(target, source.get("speech_lang", "en")):
            raise SpireError(
                f"{where}: targets: {target!r} is the language of the speech, which is for task asr"
            )
    for pair in source.get("pairs", ()):
        if same_language(*pair.split("-")):
            raise SpireError(f"{where}: pairs: {pair!r} is no translation")
    if source.get("uniform") and not source.keys() & {"max_tokens", "max_examples", "weight"}:
        raise SpireError(f"{where}: 'uniform' needs max_tokens, max_examples or a weight")
    for key in _PATHS:
        rest = source.get(key, "").replace("{dumpdir}", "")
        rest = rest.replace("{lang}", "") if key == "translations" else rest
        if "{" in rest or "}" in rest:
            raise SpireError(
                f"{where}: {key}: {source[key]!r}: only {{dumpdir}}, and in translations {{lang}},"
                " can stand in braces"
            )
    if "budget" in mixture and ("weight" in source) == ("max_tokens" in source):
        raise SpireError(f"{where}: with a 'budget', give it 'weight' or 'max_tokens'")
    if "budget" not in mixture and "weight" in source:
        raise SpireError(f"{where}: 'weight' needs a 'budget' (tokens) at the top")


def sources_of(mixture: Dict[str, Any], variant: str) -> List[Dict[str, Any]]:
    """The sources that take part in a variant; ``""`` is one that no source leaves out.

    Raises:
        SpireError: the mixture lists its variants, and this is none of them.
    """
    if variant:
        _check_variant(mixture, variant, "--variant")
    return [source for source in mixture["sources"] if variant not in source.get("not_in", ())]


def _check_variant(mixture: Dict[str, Any], variant: str, where: str) -> None:
    if variant not in mixture.get("variants", [variant]):
        raise SpireError(
            f"{where}: {variant!r} is none of the mixture's variants:"
            f" {', '.join(mixture['variants'])}"
        )


def fixed_tokens(sources: List[Dict[str, Any]]) -> int:
    """Tokens that sources with ``max_tokens`` take of a budget, repeats counted."""
    return sum(source.get("max_tokens", 0) * source.get("repeat", 1) for source in sources)


def budget_of(mixture: Dict[str, Any], source: Dict[str, Any]) -> Limits:
    """How much of a source is kept, before it is repeated and divided by languages."""
    if "weight" not in source:
        return Limits(source.get("max_tokens"), source.get("max_examples"))
    total = sum(other.get("weight", 0) for other in mixture["sources"])
    shared = mixture["budget"] - fixed_tokens(mixture["sources"])
    share = shared * source["weight"] / total
    return Limits(int(share / source.get("repeat", 1)), source.get("max_examples"))
