"""Mixtures: a YAML list of sources to examples in memory-mapped Arrow.

Each source is streamed from files that are sorted by key, so memory does not grow with the data.
What a budget keeps is decided by a hash of seed, source and key: the same choice in any order, on
any machine, and a larger budget keeps what a smaller one kept.

A mixture file::

    format: chatml            # plain: loss on everything; chatml: loss on the answers
    max_length: 512           # tokens; longer examples are rejected and listed
    seed: 0
    sources:
      - {name: asr, task: asr, data_dir: dump/raw/train_it}
      - {name: gold, task: st, data_dir: dump/raw/train_st, targets: [de, fr]}
      - {name: pseudo, task: st, data_dir: dump/raw/train_it, targets: [de],
         translations: "dump/pseudo/train_it.{lang}", range: [0, 0.5], not_in: [spirenopseudo]}
      - {name: blocks, task: chat, file: data/blocks/blocks.jsonl, not_in: [spirenoblocks]}
"""

import hashlib
import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import yaml

from espnet_spire.text import prompts
from espnet_spire.train.examples import (
    Encoded,
    encode_conversation,
    encode_plain,
    forbidden_text,
    special_tokens,
)
from espnet_spire.units.notation import line_to_units
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.atomic import PathLike, atomic_dir, write_json
from espnet_spire.utils.datadir import TEXT, iter_table, translation_file, write_rejected
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

TASKS = ("asr", "st", "st_multi_turn", "mt", "mono", "chat")
REPORT = "report.json"
_SOURCE_KEYS = {
    "name",
    "task",
    "data_dir",
    "translations",
    "targets",
    "text_dir",
    "pairs",
    "langs",
    "file",
    "range",
    "max_examples",
    "max_tokens",
    "repeat",
    "not_in",
    "speech_lang",
}


_NEEDS = {
    "asr": ("data_dir",),
    "st": ("data_dir", "targets"),
    "st_multi_turn": ("data_dir", "targets"),
    "mt": ("text_dir", "pairs"),
    "mono": ("text_dir", "langs"),
    "chat": ("file",),
}


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2
    return numbers and all(isinstance(v, (int, float)) for v in value) and value[0] < value[1]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


_VALUES: Dict[str, Callable[[Any], bool]] = {
    "range": _is_range,
    "max_examples": _is_count,
    "max_tokens": _is_count,
    "repeat": _is_count,
    "targets": _is_words,
    "langs": _is_words,
    "not_in": _is_words,
    "pairs": lambda value: _is_words(value) and all(v.count("-") == 1 for v in value),
}


class Raw(NamedTuple):
    """One example before tokenisation: its plain form ``text``, its ChatML form ``turns``.

    A form that the task does not have is ``None``. ``without_units`` says why an utterance has no
    units; then it has neither form.
    """

    key: str
    lang: str
    text: Optional[str] = None
    turns: Optional[List[prompts.Turn]] = None
    # The parts that come from a corpus, to be checked for characters that they must not have.
    corpus_text: Tuple[str, ...] = ()
    without_units: Optional[str] = None


def load_mixture(path: PathLike) -> Dict[str, Any]:
    """Read and check a mixture file; errors name file, source and key."""
    try:
        with open(path, encoding="utf-8") as stream:
            mixture = yaml.safe_load(stream)
    except FileNotFoundError:
        raise SpireError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise SpireError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(mixture, dict) or not mixture.get("sources"):
        raise SpireError(f"{path}: a mixture needs a list 'sources'")
    for key in mixture.keys() - {"format", "max_length", "seed", "sources"}:
        raise SpireError(f"{path}: unknown key {key!r}")
    if mixture.get("format") not in ("plain", "chatml"):
        raise SpireError(f"{path}: 'format' must be plain or chatml")
    names = set()
    for source in mixture["sources"]:
        if not isinstance(source, dict):
            raise SpireError(f"{path}: a source must have 'name' and 'task', {source!r} has not")
        name = source.get("name")
        for key in source.keys() - _SOURCE_KEYS:
            raise SpireError(f"{path}: source {name}: unknown key {key!r}")
        if source.get("task") not in TASKS:
            raise SpireError(f"{path}: source {name}: 'task' must be one of {', '.join(TASKS)}")
        for key in _NEEDS[source["task"]]:
            if key not in source:
                raise SpireError(f"{path}: source {name}: task {source['task']} needs {key!r}")
        for key, kind in _VALUES.items():
            if key in source and not kind(source[key]):
                raise SpireError(f"{path}: source {name}: {key}: {source[key]!r} cannot be used")
        if not name or name in names:
            raise SpireError(f"{path}: each source needs a 'name' of its own, {name!r} is not")
        names.add(name)
    mixture.setdefault("seed", 0)
    mixture.setdefault("max_length", 4096)
    return mixture


def sample_position(seed: int, source: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing else: where a key falls in a random order."""
    digest = hashlib.blake2b(f"{seed}\t{source}\t{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def join_tables(paths: Iterable[Path], *, drive: int = 0) -> Iterator[Tuple[str, List[str]]]:
    """Join sorted tables on their keys, streaming.

    Args:
        paths: Kaldi tables.
        drive: the table whose keys decide; the others must have them and may have more.
    """
    paths = list(paths)
    streams = [iter_table(path, allow_empty_value=True) for path in paths]
    for key, value in streams[drive]:
        values = []
        for index, stream in enumerate(streams):
            if index == drive:
                values.append(value)
                continue
            for other_key, other in stream:  # noqa: B007
                if other_key >= key:
                    break
            else:
                other_key = None
            if other_key != key:
                raise SpireError(f"{paths[index]}: key {key} of {paths[drive]} is missing")
            values.append(other)
        yield key, values


def _speech(source, units_name: str) -> Iterator[Raw]:
    data_dir = Path(source["data_dir"])
    units_file = data_dir / units_name
    speech_lang = source.get("speech_lang", "en")
    if source["task"] == "asr":
        rows = join_tables([data_dir / TEXT])
        for key, (text,), line, reason in join_units(rows, units_file, data_dir / TEXT):
            if line is None:
                yield Raw(key, speech_lang, without_units=reason)
                continue
            units = line_to_units(line, f"{units_file}: {key}")
            yield Raw(
                key,
                speech_lang,
                prompts.asr_plain(units, text, speech_lang),
                prompts.asr_conversation(units, text, speech_lang),
                (text,),
            )
        return
    for lang in source["targets"]:
        directory = Path(source.get("translations", str(data_dir)).format(lang=lang))
        pair = f"{speech_lang}-{lang}"
        tables = [directory / translation_file(lang), data_dir / TEXT]
        rows = join_tables(tables)
        for key, (translation, text), line, reason in join_units(rows, units_file, tables[0]):
            if line is None:
                yield Raw(f"{key}.{lang}", pair, without_units=reason)
                continue
            units = line_to_units(line, f"{units_file}: {key}")
            if source["task"] == "st":
                turns = prompts.st_conversation(units, lang, translation)
            else:
                turns = prompts.multi_turn_st_conversation(
                    units, text, lang, translation, speech_lang
                )
            yield Raw(f"{key}.{lang}", pair, None, turns, (text, translation))


def _mt(source, _units_name: str) -> Iterator[Raw]:
    directory = Path(source["text_dir"])
    for src, tgt in (pair.split("-") for pair in source["pairs"]):
        tables = [directory / translation_file(src), directory / translation_file(tgt)]
        for key, (text, translation) in join_tables(tables):
            yield Raw(
                f"{key}.{src}-{tgt}",
                f"{src}-{tgt}",
                prompts.mt_plain(src, tgt, text, translation),
                [
                    prompts.Turn("user", prompts.mt_instruction(src, tgt, text)),
                    prompts.Turn("assistant", translation),
                ],
                (text, translation),
            )


def _mono(source, _units_name: str) -> Iterator[Raw]:
    for lang in source["langs"]:
        for key, text in iter_table(Path(source["text_dir"]) / f"{TEXT}.{lang}"):
            yield Raw(f"{key}.{lang}", lang, text, None, (text,))


def _chat(source, _units_name: str) -> Iterator[Raw]:
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    path = Path(source["file"])
    if not path.exists():
        raise SpireError(f"{path}: no such file")
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                entry = json.loads(line)
                turns = [
                    prompts.Turn(roles[turn["from"]], turn["value"])
                    for turn in entry["conversations"]
                ]
                if not all(isinstance(turn.content, str) for turn in turns):
                    raise TypeError("a value that is no text")
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise SpireError(
                    f"{path}, line {number}: not a ShareGPT conversation ({error!r})"
                ) from None
            lang = str(entry.get("lang", "")) or "und"
            texts = tuple(turn.content for turn in turns)
            yield Raw(f"{number:09d}", lang, None, turns, texts)


_READERS: Dict[str, Callable[..., Iterator[Raw]]] = {
    "asr": _speech,
    "st": _speech,
    "st_multi_turn": _speech,
    "mt": _mt,
    "mono": _mono,
    "chat": _chat,
}


def read_source(source: Dict[str, Any], units_name: str, seed: int) -> Iterator[Raw]:
    """Stream a source's examples; ``range`` keeps those whose sample position lies in it.

    The position depends on the key and not on the source's name, so sources with disjoint ranges
    over the same data are disjoint (60K direct and 60K multi-turn prompts, paper section 3.3.1).
    """
    low, high = source.get("range", (0.0, 1.0))
    for raw in _READERS[source["task"]](source, units_name):
        if low <= sample_position(seed, "range", raw.key) < high:
            yield raw


def sources_of(mixture: Dict[str, Any], variant: str) -> List[Dict[str, Any]]:
    """The sources that take part in a variant."""
    return [source for source in mixture["sources"] if variant not in source.get("not_in", ())]


def source_files(source: Dict[str, Any], units_name: str) -> List[Path]:
    """The files that a source is read from."""
    if source["task"] == "chat":
        return [Path(source["file"])]
    if source["task"] == "mono":
        return [Path(source["text_dir"]) / f"{TEXT}.{lang}" for lang in source["langs"]]
    if source["task"] == "mt":
        langs = sorted({lang for pair in source["pairs"] for lang in pair.split("-")})
        return [Path(source["text_dir"]) / translation_file(lang) for lang in langs]
    data_dir = Path(source["data_dir"])
    files = [data_dir / TEXT, data_dir / units_name]
    for lang in source.get("targets", ()):
        directory = Path(source.get("translations", str(data_dir)).format(lang=lang))
        files.append(directory / translation_file(lang))
    return files


def _encode(tokenizer, raw: Raw, plain: bool) -> Encoded:
    if plain:
        if raw.text is None:
            raise SpireError("this task has no plain form; use format: chatml")
        return encode_plain(tokenizer, raw.text)
    if raw.turns is None:
        raise SpireError("monolingual text has no ChatML form; use format: plain")
    return encode_conversation(tokenizer, raw.turns)


def choose(
    positions: np.ndarray,
    lengths: np.ndarray,
    *,
    max_examples: Optional[int],
    max_tokens: Optional[int],
) -> np.ndarray:
    """Indices, ascending, of the examples that budgets keep: the first in sample order.

    Args:
        positions: sample position of each example, shape (N,).
        lengths: tokens of each example, shape (N,).
        max_examples, max_tokens: budgets; ``None`` for no limit.
    """
    order = np.argsort(positions, kind="stable")
    if max_examples is not None:
        order = order[:max_examples]
    if max_tokens is not None:
        total = np.cumsum(lengths[order])
        order = order[: int(np.searchsorted(total, max_tokens, side="right"))]
    return np.sort(order)


def build_examples(
    mixture: Dict[str, Any],
    tokenizer,
    out: PathLike,
    *,
    units_name: str,
    variant: str = "",
) -> Dict[str, Any]:
    """Write a mixture's examples to ``out`` (a ``datasets`` directory) with a report.

    Columns: ``input_ids``, ``loss_mask``, ``length``, ``task``, ``lang``, ``key``.

    Returns:
        the report: for each source the examples, tokens, target tokens and rejected examples, and
        how many of these were rejected because their utterances have no units.
    """
    from datasets import Dataset, Features, Value, concatenate_datasets
    from datasets import List as Sequence_
    from datasets.arrow_writer import ArrowWriter

    features = Features(
        {
            "input_ids": Sequence_(Value("int32")),
            "loss_mask": Sequence_(Value("bool")),
            "length": Value("int32"),
            "task": Value("string"),
            "lang": Value("string"),
            "key": Value("string"),
        }
    )
    plain = mixture["format"] == "plain"
    specials = special_tokens(tokenizer)
    seed, max_length = mixture["seed"], mixture["max_length"]
    parts, report, rejected = [], [], {}
    with atomic_dir(out) as aside:
        for source in sources_of(mixture, variant):
            name = source["name"]
            path = aside / "sources" / f"{name}.arrow"
            path.parent.mkdir(exist_ok=True)
            positions, lengths, targets, langs = [], [], [], []
            without_units = 0
            with closing(ArrowWriter(features=features, path=str(path))) as writer:
                bar = progress(desc=f"examples {name}", unit="ex")
                for raw in read_source(source, units_name, seed):
                    bar.update()
                    if raw.without_units is not None:
                        rejected[f"{name}:{raw.key}"] = f"no units: {raw.without_units}"
                        without_units += 1
                        continue
                    reason = next(
                        (r for t in raw.corpus_text if (r := forbidden_text(t, specials))), None
                    )
                    try:
                        encoded = _encode(tokenizer, raw, plain)
                    except SpireError as error:
                        raise SpireError(f"source {name}: {error}") from None
                    if reason is None and not all(text.strip() for text in raw.corpus_text):
                        reason = "an empty text"
                    if reason is None and len(encoded.input_ids) > max_length:
                        reason = f"{len(encoded.input_ids)} tokens, max_length is {max_length}"
                    if reason is None and not any(encoded.loss_mask):
                        reason = "there is no answer in it to learn"
                    if reason is not None:
                        rejected[f"{name}:{raw.key}"] = reason
                        continue
                    positions.append(sample_position(seed, name, raw.key))
                    lengths.append(len(encoded.input_ids))
                    targets.append(sum(encoded.loss_mask))
                    langs.append(raw.lang)
                    writer.write(
                        {
                            "input_ids": encoded.input_ids,
                            "loss_mask": encoded.loss_mask,
                            "length": len(encoded.input_ids),
                            "task": source["task"],
                            "lang": raw.lang,
                            "key": f"{name}:{raw.key}",
                        }
                    )
                bar.close()
                if not lengths:
                    raise SpireError(f"source {name}: no example; is its data empty?")
                writer.finalize()
            kept = choose(
                np.array(positions),
                np.array(lengths),
                max_examples=source.get("max_examples"),
                max_tokens=source.get("max_tokens"),
            )
            repeat = int(source.get("repeat", 1))
            dataset = Dataset.from_file(str(path))
            if len(kept) < len(dataset):
                dataset = dataset.select(kept)
            parts += [dataset] * repeat
            report.append(
                {
                    "source": name,
                    "task": source["task"],
                    "examples": int(len(kept)) * repeat,
                    "tokens": int(np.array(lengths)[kept].sum()) * repeat,
                    "target_tokens": int(np.array(targets)[kept].sum()) * repeat,
                    "available": len(lengths),
                    "rejected": sum(key.startswith(f"{name}:") for key in rejected),
                    "without_units": without_units,
                }
            )
            if without_units:
                logging.warning(
                    "source %s: %d of %d examples are left out, their utterances have no units",
                    *(name, without_units, len(lengths) + report[-1]["rejected"]),
                )
        concatenate_datasets(parts).save_to_disk(aside / "dataset")
        for path in (aside / "sources").iterdir():
            path.unlink()
        (aside / "sources").rmdir()
        result = {"variant": variant, "format": mixture["format"], "sources": report}
        write_json(aside / REPORT, result)
        write_rejected(aside / "rejected.tsv", rejected)
    logging.info("%d examples rejected, listed in %s/rejected.tsv", len(rejected), out)
    return result


def report_table(report: Dict[str, Any]) -> str:
    """The report as text with aligned columns."""
    columns = ("source", "task", "examples", "tokens", "target_tokens", "rejected")
    rows = [columns] + [tuple(str(row[c]) for c in columns) for row in report["sources"]]
    totals = [str(sum(row[c] for row in report["sources"])) for c in columns[2:]]
    rows.append(("total", "", *totals))
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def load_examples(path: PathLike):
    """Open what :func:`build_examples` wrote, memory-mapped."""
    from datasets import load_from_disk

    directory = Path(path) / "dataset"
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such examples; make them with make_examples")
    return load_from_disk(str(directory))
