"""Mixtures to examples in memory-mapped Arrow: in parts, by many processes, at constant memory.

Beside the output lies ``<out>.work`` while the job is not finished: a directory for each stream,
named by a digest of everything that its examples depend on, with the files of its parts
(:mod:`espnet_spire.train.part_files`). A part that is there is not done again, after a kill or
after a change of something else (a budget, another source). The result does not depend on the
number of processes.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from espnet_spire.train import sharegpt
from espnet_spire.train.assemble import Selected, write_dataset
from espnet_spire.train.examples import Encoder, encoder_of
from espnet_spire.train.mixture import budget_of, check_mixture, sources_of
from espnet_spire.train.part_files import is_done, read_facts
from espnet_spire.train.parts import Job, encode_part
from espnet_spire.train.selection import Limits, find_border, uniform_limits
from espnet_spire.train.sources import Stream, streams_of
from espnet_spire.train.split import explain, split_stream
from espnet_spire.units.unit_files import rejected_file
from espnet_spire.utils.atomic import PathLike, atomic_dir
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.lock import lock
from espnet_spire.utils.progress import progress
from espnet_spire.utils.workers import run_jobs

# Rows of a stream that are one part: some seconds of work, and a file of some tens of MB.
PART_ROWS = 16384
# Of a source, what changes which examples are kept but not the examples.
_CHOICE = ("max_tokens", "max_examples", "weight", "uniform", "repeat", "not_in")


class _Planned(NamedTuple):
    """A stream and the stems of its parts' files."""

    stream: Stream
    stems: List[str]


def build_examples(
    mixture: Dict[str, Any],
    tokenizer,
    out: PathLike,
    *,
    units_name: str,
    variant: str = "",
    nj: int = 1,
    part_rows: int = PART_ROWS,
) -> Dict[str, Any]:
    """Write a mixture's examples: ``dataset`` (a data set), ``report.json``, ``rejected.tsv``.

    Columns: ``input_ids``; ``target_spans``, flat ``[start, end, …)`` of the positions with loss;
    ``length``; ``num_targets``; ``task``; ``lang``; ``key``, which is ``<source>:<utterance>``.

    Args:
        mixture: see :mod:`espnet_spire.train.mixture`.
        tokenizer: a fast Hugging Face tokenizer whose vocabulary has the units.
        out: directory to write; replaced as a whole.
        units_name: of the unit file in each data directory.
        variant: leaves out the sources that name it in ``not_in``.
        nj: processes.
        part_rows: rows of a part.

    Returns:
        the report, see :mod:`espnet_spire.train.mixture_report`.
    """
    mixture = check_mixture(mixture, "mixture")
    sources = sources_of(mixture, variant)
    if not sources:
        raise SpireError(f"variant {variant!r} leaves out all sources of the mixture")
    out = Path(out)
    encoder = encoder_of(tokenizer)
    # One thread a process: --nj says how many work, and tokenizers warns about forks else.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    work = out.with_name(out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "ab") as held:
        lock(held, work)
        planned = _encode_all(mixture, sources, encoder, work, units_name, nj, part_rows)
        selected = [
            _select(mixture, source, streams)
            for source, streams in zip(sources, planned, strict=True)
        ]
        with atomic_dir(out) as aside:
            report = write_dataset(mixture, variant, selected, aside, nj)
        shutil.rmtree(work)
    rejected = sum(entry["rejected"] for entry in report["sources"])
    logging.info("%d examples rejected, listed in %s/rejected.tsv", rejected, out)
    return report


def _encode_all(
    mixture: Dict[str, Any],
    sources: Sequence[Dict[str, Any]],
    encoder: Encoder,
    work: Path,
    units_name: str,
    nj: int,
    part_rows: int,
) -> List[List[_Planned]]:
    """Tokenise what is not there yet; all parts of all sources."""
    identity = _identity(mixture, encoder, part_rows)
    planned: List[List[_Planned]] = []
    jobs: List[Job] = []
    rows = total = 0
    for source in sources:
        planned.append([])
        for stream in streams_of(source, units_name):
            folder, stream = _prepare(stream, identity, work)
            stems = []
            for number, part in enumerate(split_stream(stream, part_rows)):
                stems.append(str(folder / f"{number:06d}"))
                total += part.rows
                if is_done(stems[-1]):
                    rows += part.rows
                else:
                    plain = mixture["format"] == "plain"
                    limits = mixture["max_length"], mixture["seed"]
                    jobs.append(Job(stems[-1], stream, part, plain, *limits))
            planned[-1].append(_Planned(stream, stems))
    if rows:
        logging.info("%d of %d rows were tokenised before, in %s", rows, total, work)
    tokens = 0
    with progress(desc="examples", unit="ex", total=total, initial=rows) as bar:
        for job, count in run_jobs(_encode_job, encoder, jobs, nj):
            bar.update(job.part.rows)
            tokens += count
            bar.set_postfix_str(f"{tokens / 1e6:.1f}M tokens", refresh=False)
    return planned


def _encode_job(encoder: Encoder, job: Job) -> int:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return encode_part(encoder, job)
    except SpireError as error:
        if str(error).startswith(job.stream.tables):  # and not of a full disk
            explain(job.stream)
        raise


def _identity(mixture: Dict[str, Any], encoder: Encoder, part_rows: int) -> List[Any]:
    """What the examples of all streams depend on."""
    vocabulary = hashlib.sha256(encoder.backend.to_str().encode()).hexdigest()
    settings = [mixture[key] for key in ("format", "max_length", "seed")]
    return [vocabulary, *encoder[1:], *settings, part_rows]


def _prepare(stream: Stream, identity: List[Any], work: Path) -> Tuple[Path, Stream]:
    """The folder of a stream's parts; conversations in another form are made lines first."""
    settings = {key: value for key, value in stream.settings.items() if key not in _CHOICE}
    tables = [*stream.tables]
    if stream.with_units:
        tables.append(str(rejected_file(tables[-1])))
    known = [[table, _state(Path(table))] for table in tables]
    text = json.dumps([identity, stream[:6], settings, known], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    folder = work / "-".join(filter(None, [stream.source, stream.lang, digest]))
    folder.mkdir(exist_ok=True)
    if stream.task == "chat" and not sharegpt.is_lines(stream.tables[0]):
        lines = folder / "conversations.jsonl"
        if not lines.exists():
            sharegpt.write_lines(stream.tables[0], lines)
        stream = stream._replace(tables=(str(lines),))
    return folder, stream


def _state(path: Path) -> List[Any]:
    """Size and time of a file, or of the files of a directory."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    stats = [file.stat() for file in files]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _select(
    mixture: Dict[str, Any], source: Dict[str, Any], streams: Sequence[_Planned]
) -> List[Selected]:
    """Where the budgets of a source end: for each of its streams, or for all together."""
    budget = budget_of(mixture, source)

    def border(limits: Limits, chosen: Sequence[_Planned]) -> int:
        return find_border(
            lambda: (read_facts(stem) for stream in chosen for stem in stream.stems), limits
        )

    if not source.get("uniform"):
        place = border(budget, streams)
        return [Selected(*stream, place, budget, False) for stream in streams]
    limits = uniform_limits(budget, len(streams))
    return [Selected(*stream, border(limits, [stream]), limits, True) for stream in streams]
