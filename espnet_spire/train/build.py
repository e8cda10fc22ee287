"""Mixtures to examples in memory-mapped Arrow: in parts, by many processes, at constant memory.

Beside the output lies ``<out>.work`` while the job is not finished: a directory for each stream,
named by a digest of everything that its examples depend on, with the files of its parts
(:mod:`espnet_spire.train.part_files`). A part that is there is not done again, after a kill or
after a change of something else (a budget, another source). The result does not depend on the
number of processes.
"""

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import espnet_spire
from espnet_spire.text.prompts import Turn, chatml_pieces
from espnet_spire.train import sharegpt
from espnet_spire.train.assemble import DATASET, REPORT, Selected, write_dataset
from espnet_spire.train.examples import Encoder, encoder_of
from espnet_spire.train.inputs import Input, check_unchanged, inputs_of
from espnet_spire.train.mixture import budget_of, check_mixture, sources_of
from espnet_spire.train.part_files import is_done, read_facts
from espnet_spire.train.parts import Job, encode_part
from espnet_spire.train.selection import Limits, find_border, uniform_limits
from espnet_spire.train.sources import (
    Raw,
    Stream,
    conversations,
    mixture_files,
    plain_text,
    streams_of,
)
from espnet_spire.train.split import explain, split_stream
from espnet_spire.utils.atomic import PathLike, atomic_dir, remove_dir
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.lock import lock
from espnet_spire.utils.outputs import check_output
from espnet_spire.utils.progress import progress
from espnet_spire.utils.workers import run_jobs

# Rows of a stream that are one part: some seconds of work, and a file of some tens of MB.
PART_ROWS = 16384
_LOCK = "lock"
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
    ``length``; ``num_targets``; ``task`` (``st_kd`` examples are two documents, see
    :mod:`espnet_spire.train.pairs`); ``lang``; ``key``, which is ``<source>:<utterance>``, and
    ``.<language>`` behind it where there can be several.

    Args:
        mixture: see :mod:`espnet_spire.train.mixture`.
        tokenizer: a fast Hugging Face tokenizer whose vocabulary has the units.
        out: directory to write; replaced as a whole if it has examples.
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
    work = out.with_name(out.name + ".work")
    read = mixture_files(sources, units_name)
    check_output(out, inputs=read, marks=(REPORT, DATASET))
    check_output(work, inputs=read, marks=(_LOCK,))
    encoder = encoder_of(tokenizer)
    # One thread a process: --nj says how many work, and tokenizers warns about forks else.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with _held(work):
        planned = _encode_all(mixture, sources, encoder, work, units_name, nj, part_rows)
        selected = [
            _select(mixture, source, streams)
            for source, streams in zip(sources, planned, strict=True)
        ]
        with atomic_dir(out) as aside:
            report = write_dataset(mixture, variant, selected, aside, nj)
        remove_dir(work)
    rejected = sum(entry["rejected"] for entry in report["sources"])
    logging.info("%d examples rejected, listed in %s/rejected.tsv", rejected, out)
    return report


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """Make the directory of parts, for this process alone."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(open(work / _LOCK, "ab"))
                lock(held, work)
                # Who held it before may have finished, and removed the directory with this file.
                mine = os.path.samestat(os.fstat(held.fileno()), os.stat(work / _LOCK))
            except FileNotFoundError:
                continue
            if mine:
                yield
                return


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
            inputs = inputs_of(stream)
            folder, stream = _prepare(stream, inputs, identity, work)
            stems = []
            for number, part in enumerate(split_stream(stream, part_rows)):
                stems.append(str(folder / f"{number:06d}"))
                total += part.rows
                if is_done(stems[-1]):
                    rows += part.rows
                else:
                    plain = mixture["format"] == "plain"
                    limits = mixture["max_length"], mixture["seed"]
                    jobs.append(Job(stems[-1], stream, part, plain, *limits, inputs))
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
            check_unchanged(job.inputs)
            explain(job.stream)
        raise


def _identity(mixture: Dict[str, Any], encoder: Encoder, part_rows: int) -> List[Any]:
    """What the examples of all streams depend on, beside their prompts."""
    vocabulary = hashlib.sha256(encoder.backend.to_str().encode()).hexdigest()
    settings = [mixture[key] for key in ("format", "max_length", "seed")]
    return [espnet_spire.__version__, vocabulary, *encoder[1:], *settings, part_rows]


def _prompt(stream: Stream) -> List[Any]:
    """An example of a stream in both of its forms: other prompts are other examples."""
    turns = [Turn("system", "a"), Turn("user", "b"), Turn("assistant", "c")]
    raw = Raw("", "", ("a", "b"), turns=turns)
    forms = [chatml_pieces(turns) for turns in conversations(stream, raw, (0,))]
    return [plain_text(stream, raw, (0,)), *forms]


def _prepare(
    stream: Stream, inputs: Sequence[Input], identity: List[Any], work: Path
) -> Tuple[Path, Stream]:
    """The folder of a stream's parts; conversations in another form are made lines first."""
    settings = {key: value for key, value in stream.settings.items() if key not in _CHOICE}
    known = [identity, _prompt(stream), stream[:6], settings, inputs]
    text = json.dumps(known, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    folder = work / "-".join(filter(None, [stream.source, stream.lang, digest]))
    folder.mkdir(exist_ok=True)
    if stream.task == "chat" and not sharegpt.is_lines(stream.tables[0]):
        lines = folder / "conversations.jsonl"
        if not lines.exists():
            sharegpt.write_lines(stream.tables[0], lines)
            try:
                check_unchanged(inputs)
            except SpireError:
                lines.unlink()
                raise
        stream = stream._replace(tables=(str(lines),))
    return folder, stream


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
