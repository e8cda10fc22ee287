"""Parts to one data set: whole parts are linked, others copied without what a budget leaves out."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from espnet_spire.train.mixture_report import Report
from espnet_spire.train.part_files import SCHEMA, copy_kept, read_facts, read_summary
from espnet_spire.train.selection import Limits, kept
from espnet_spire.train.sources import Stream
from espnet_spire.utils.atomic import atomic_write, write_json
from espnet_spire.utils.datadir import REJECTED
from espnet_spire.utils.rejected import rejected_line
from espnet_spire.utils.workers import run_jobs

DATASET = "dataset"
REPORT = "report.json"


class Selected(NamedTuple):
    """A stream, its parts, and the place in the random order below which examples are kept.

    ``limits`` led to it: of this stream alone, or of all streams of its source.
    """

    stream: Stream
    stems: List[str]
    border: int
    limits: Limits
    alone: bool


class _Copy(NamedTuple):
    stem: str
    border: int
    out: str


def write_dataset(
    mixture: Dict[str, Any],
    variant: str,
    selected: Sequence[Sequence[Selected]],
    out: Path,
    nj: int,
) -> Dict[str, Any]:
    """Write ``dataset``, ``report.json`` and ``rejected.tsv``.

    Args:
        selected: the streams of each source.
        out: an empty directory.
        nj: processes that copy.

    Returns:
        the report.

    Raises:
        SpireError: a source without an example.
    """
    (out / DATASET).mkdir()
    report = Report(mixture, variant)
    files: List[str] = []
    copies: List[_Copy] = []
    for streams in selected:
        source = streams[0].stream.settings
        report.begin(source, streams)
        begin = len(files)
        number = len(set(files))
        for place, stream in enumerate(streams):
            for stem in stream.stems:
                facts = read_facts(stem)
                mask = kept(facts, stream.border)
                report.add(place, facts, mask, read_summary(stem))
                if not mask.any():
                    continue
                name = f"data-{number:05d}.arrow"
                number += 1
                files.append(name)
                path = str(out / DATASET / name)
                if mask.all():
                    _link(f"{stem}.arrow", path)
                else:
                    copies.append(_Copy(stem, stream.border, path))
        files += files[begin:] * (source.get("repeat", 1) - 1)
        report.end()
    for _ in run_jobs(_copy, None, copies, min(nj, max(1, len(copies)))):
        pass
    result = report.result()
    write_json(out / REPORT, result)
    _write_rejected(out / REJECTED, selected)
    _write_state(out / DATASET, files, result)
    return result


def _copy(_shared: None, job: _Copy) -> None:
    copy_kept(*job)


def _link(path: str, out: str) -> None:
    try:
        os.link(path, out)
    except OSError:  # a file system without them
        shutil.copyfile(path, out)


def _write_rejected(path: Path, selected: Sequence[Sequence[Selected]]) -> None:
    with atomic_write(path) as stream:
        for key, reason in _rejected(selected):
            stream.write(rejected_line(key, reason))


def _rejected(selected: Sequence[Sequence[Selected]]) -> Iterator[Tuple[str, str]]:
    for streams in selected:
        for stream in streams:
            for stem in stream.stems:
                for key, _, reason in read_summary(stem)["rejected"]:
                    yield key, reason


def _write_state(out: Path, files: Sequence[str], report: Dict[str, Any]) -> None:
    """The files by which ``datasets.load_from_disk`` knows a data set."""
    from datasets import DatasetInfo, Features

    DatasetInfo(features=Features.from_arrow_schema(SCHEMA)).write_to_directory(str(out))
    known = json.dumps([report, files], sort_keys=True)
    state = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": hashlib.blake2b(known.encode(), digest_size=8).hexdigest(),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(out / "state.json", state)
