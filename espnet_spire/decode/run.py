"""Decode jobs into directories; what is there already is not done again."""

import logging
from functools import cache
from pathlib import Path
from typing import Dict, Optional, Sequence

from espnet_spire.decode.jobs import Job, answer_turns, job_turns, order_jobs
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import (
    TEXT,
    iter_table,
    read_table,
    shard_of,
    utterance_keys,
    write_table,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.shards import join_tables, remove_shards, shard_file

# Utterances whose answer reached the limit of new tokens, in each job's directory.
CUT = "cut"


def _own_transcripts(out: Path, speech_lang: str, num_shards: int, shard: int) -> Dict[str, str]:
    path = _part(out / Job("asr", speech_lang, speech_lang).name / TEXT, num_shards, shard)
    if not path.exists():
        raise SpireError(f"{path}: no such file; st_cascade needs asr decoded into the same --out")
    return read_table(path, allow_empty_value=True)


def _part(path: Path, num_shards: int, shard: int) -> Path:
    return path if num_shards == 1 or path.exists() else shard_file(path, num_shards, shard)


def read_units(data_dir: PathLike, units: Optional[PathLike]) -> Dict[str, str]:
    """The unit file of a test set; an utterance without units is an error."""
    if units is None:
        raise SpireError(f"--units is needed: the unit file of {data_dir} (extract_units makes it)")
    table = dict(iter_table(units, allow_empty_value=True))
    for key in utterance_keys(data_dir):
        if key not in table:
            raise SpireError(f"{units}: utterance {key} of {data_dir} is missing")
    return table


def decode(
    make_generator,
    jobs: Sequence[Job],
    *,
    data_dir: PathLike,
    units: Optional[PathLike],
    out: PathLike,
    speech_lang: str = "en",
    num_shards: int = 1,
    shard: int = 1,
) -> None:
    """Decode (a shard of) a test set; one ``<out>/<task>.<src>-<tgt>/text`` a job.

    Args:
        make_generator: called when the first job needs it.
        jobs: what to decode.
        data_dir, units: the test set and its unit file.
        out: directory of the set's results.
    """
    data_dir, out = Path(data_dir), Path(out)
    keys = shard_of(utterance_keys(data_dir), num_shards, shard)
    # Several jobs read them; a set without speech jobs needs none.
    speech_units = cache(lambda: read_units(data_dir, units))
    generator = None
    for job in order_jobs(jobs):
        target = out / job.name / TEXT
        if target.exists() or _part(target, num_shards, shard).exists():
            logging.info("%s is there already", target)
            continue
        needs_units = job.task in ("asr", "st")
        turns = job_turns(
            job,
            data_dir,
            speech_units() if needs_units else {},
            lambda: _own_transcripts(out, speech_lang, num_shards, shard),
            speech_lang,
        )
        missing = [key for key in keys if key not in turns]
        if missing:
            raise SpireError(f"{data_dir}: {job.name} has nothing to decode for {missing[0]}")
        if generator is None:
            generator = make_generator()
        answers = answer_turns(generator, {key: turns[key] for key in keys}, job.name)
        cut = {key: str(len(a.ids)) for key, a in answers.items() if a.cut}
        texts = {key: generator.text(answer) for key, answer in answers.items()}
        if num_shards == 1:
            write_table(target.with_name(CUT), cut)
            write_table(target, texts)
        else:
            write_table(shard_file(target.with_name(CUT), num_shards, shard), cut)
            write_table(shard_file(target, num_shards, shard), texts)


def merge(jobs: Sequence[Job], *, data_dir: PathLike, out: PathLike, num_shards: int) -> None:
    """Join the shards of every job; a missing shard or utterance is an error."""
    keys = set(utterance_keys(data_dir))
    for job in jobs:
        target = Path(out) / job.name / TEXT
        if target.exists():
            continue
        texts = join_tables(target, num_shards)
        if texts.keys() != keys:
            key = sorted(keys ^ texts.keys())[0]
            raise SpireError(f"{target}: {key} is missing or not in {data_dir}; decode again")
        cut = join_tables(target.with_name(CUT), num_shards)
        if cut:
            logging.warning("%s: %d answers reached the limit, see %s", job.name, len(cut), CUT)
        write_table(target.with_name(CUT), cut)
        write_table(target, texts)
        remove_shards([target, target.with_name(CUT)], num_shards)
