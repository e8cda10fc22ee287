"""Examples back to text, as JSON lines that other trainers read."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from espnet_spire.train import sharegpt
from espnet_spire.train.assemble import DATASET, REPORT
from espnet_spire.train.mixture import check_mixture, sources_of
from espnet_spire.train.pairs import PAIRED
from espnet_spire.train.sources import (
    Raw,
    Stream,
    content_hash,
    conversations,
    mixture_files,
    plain_text,
    read_stream,
    streams_of,
)
from espnet_spire.units.notation import line_to_units
from espnet_spire.utils.atomic import PathLike, atomic_write, read_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.outputs import check_output
from espnet_spire.utils.progress import progress


def export_examples(
    mixture: Dict[str, Any], units_name: str, examples: PathLike, out: PathLike
) -> int:
    """Write the text of each example, one JSON object a line; see ``bin/export_mixture.py``.

    The mixture's sources are read again and joined on their keys with what was kept, so memory
    does not grow with the data.

    Args:
        mixture: that the examples were made from.
        units_name: of the unit file in each data directory.
        examples: directory that :func:`espnet_spire.train.build.build_examples` wrote.
        out: file to write.

    Returns:
        how many examples; one of a pair is two lines.

    Raises:
        SpireError: the examples were made from another mixture or other data.
    """
    mixture = check_mixture(mixture, "mixture")
    report = read_json(Path(examples) / REPORT)
    for key in ("format", "seed"):
        if report[key] != mixture[key]:
            raise SpireError(
                f"{examples} was made with {key} {report[key]!r}, the mixture has {mixture[key]!r}"
            )
    sources = sources_of(mixture, report["variant"])
    check_output(out, inputs=[*mixture_files(sources, units_name), *Path(examples).rglob("*")])
    contents = {entry["source"]: entry.get("content") for entry in report["sources"]}
    keys = _keys(Path(examples) / DATASET)
    wanted = next(keys, None)
    count = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_write(out) as sink,
        progress(desc="export", unit="ex") as bar,
    ):
        for source in sources:
            streams = [
                _as_lines(stream, Path(scratch)) for stream in streams_of(source, units_name)
            ]
            content = 0
            for turn in range(source.get("repeat", 1)):
                for stream in streams:
                    for raw in read_stream(stream, mixture["seed"]):
                        content += content_hash(raw) if turn == 0 else 0
                        if f"{stream.source}:{raw.key}" != wanted:
                            continue
                        for task, entry in _entries(stream, raw, mixture["format"]):
                            entry.update(key=wanted, task=task, lang=raw.lang)
                            sink.write(json.dumps(entry, ensure_ascii=False) + "\n")
                        count += 1
                        bar.update()
                        wanted = next(keys, None)
            if contents.get(source["name"]) != f"{content % 2**64:016x}":
                raise SpireError(
                    f"{examples}: source {source['name']}: its data, or what the mixture takes of"
                    " it, is not what the examples were made from; make them again"
                )
        if wanted is not None:
            raise SpireError(
                f"{examples}: example {wanted} is not in the mixture's data, or in another order;"
                " give the mixture and the data that the examples were made from"
            )
    for source in report["sources"]:
        if source["cut"]:
            logging.warning(
                "source %s: %d texts, cut to %d tokens in the examples, are exported whole; set the"
                " trainer's sequence length",
                *(source["source"], source["cut"], report["max_length"]),
            )
        if source["task"] == PAIRED:
            logging.warning(
                "source %s: exported as st and mt, an example each; distillation is left out",
                source["source"],
            )
    return count


def _keys(directory: Path) -> Iterator[str]:
    if not directory.is_dir():
        raise SpireError(f"{directory}: no such examples; make them with make_examples")
    from datasets import load_from_disk

    data = load_from_disk(str(directory)).data
    for batch in data.table.select(["key"]).to_batches():
        yield from batch.column(0).to_pylist()


def _as_lines(stream: Stream, scratch: Path) -> Stream:
    if stream.task != "chat" or sharegpt.is_lines(stream.tables[0]):
        return stream
    lines = scratch / f"{stream.source}.jsonl"
    sharegpt.write_lines(stream.tables[0], lines)
    return stream._replace(tables=(str(lines),))


def _entries(stream: Stream, raw: Raw, form: str) -> List[Tuple[str, Dict[str, Any]]]:
    """The task and the text of an example; of a pair: of both of its documents."""
    units = []
    if raw.line is not None:
        units = line_to_units(raw.line, f"{stream.tables[-1]}: {raw.key}")
    if form == "plain":
        return [(stream.task, {"text": plain_text(stream, raw, units)})]
    tasks = ("st", "mt") if stream.task == PAIRED else (stream.task,)
    forms = map(sharegpt.sharegpt_entry, conversations(stream, raw, units))
    return list(zip(tasks, forms, strict=True))
