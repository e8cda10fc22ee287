"""Decode jobs into directories; what is there already is not done again."""

import logging
from functools import cache
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from espnet_spire.decode.jobs import (
    SPEECH_PROMPTS,
    answer_turns,
    job_keys,
    job_turns,
    order_jobs,
)
from espnet_spire.text.jobs import Job
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import (
    REJECTED,
    TEXT,
    read_rejected,
    read_table,
    shard_of,
    text_tables,
    utterance_keys,
    write_rejected,
    write_table,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.shards import join_tables, remove_shards, shard_file

# Utterances whose answer reached the limit of new tokens, in each job's directory.
CUT = "cut"
# Tasks that need units. Utterances without any are listed in each job's REJECTED.
SPEECH_TASKS = ("asr", "st", "st_cascade")


class SpeechUnits(NamedTuple):
    """Utterance → line of the unit file, and for those that have none → reason."""

    lines: Dict[str, str]
    rejected: Dict[str, str]


def _own_transcripts(out: Path, speech_lang: str, num_shards: int, shard: int) -> Dict[str, str]:
    path = _part(out / Job("asr", speech_lang, speech_lang).name / TEXT, num_shards, shard)
    if not path.exists():
        raise SpireError(f"{path}: no such file; st_cascade needs asr decoded into the same --out")
    return read_table(path, allow_empty_value=True)


def _part(path: Path, num_shards: int, shard: int) -> Path:
    return path if path.exists() else _place(path, num_shards, shard)


def _place(path: Path, num_shards: int, shard: int) -> Path:
    return path if num_shards == 1 else shard_file(path, num_shards, shard)


def _warn_rejected(job: Job, rejected: int, utterances: int, path: Path) -> None:
    if rejected:
        logging.warning(
            "%s: %d of %d utterances have no units, their hypotheses are empty; see %s",
            *(job.name, rejected, utterances, path),
        )


def _own_rejected(out: Path, speech_lang: str, num_shards: int, shard: int) -> Dict[str, str]:
    """Utterances that could not be transcribed: their transcripts are no text to translate."""
    directory = out / Job("asr", speech_lang, speech_lang).name
    path = _part(directory / REJECTED, num_shards, shard)
    return read_rejected(path) if path.exists() else {}


def read_units(data_dir: PathLike, units: Optional[PathLike]) -> SpeechUnits:
    """The unit file of a test set; an utterance that it has no word of is an error."""
    if units is None:
        raise SpireError(f"--units is needed: the unit file of {data_dir} (extract_units makes it)")
    found = SpeechUnits({}, {})
    rows = ((key, None) for key in utterance_keys(data_dir))
    for key, _, line, reason in join_units(rows, units, data_dir):
        if line is None:
            found.rejected[key] = reason
        else:
            found.lines[key] = line
    return found


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

    Utterances that extraction rejected have no units: where a job needs them the hypothesis is
    empty, so that scoring counts it as wholly wrong, and ``rejected.tsv`` beside it says why. What
    has no text to translate or no reference is not part of a translation job.

    Args:
        make_generator: called when the first job needs it.
        jobs: what to decode.
        data_dir, units: the test set and its unit file.
        out: directory of the set's results.
    """
    data_dir, out = Path(data_dir), Path(out)
    _check_speech(jobs, data_dir)
    utterances = utterance_keys(data_dir)
    own = shard_of(utterances, num_shards, shard)
    # Several jobs read them; a set without speech jobs needs none.
    speech_units = cache(lambda: read_units(data_dir, units))
    generator = None
    for job in order_jobs(jobs):
        target = out / job.name / TEXT
        if target.exists() or _part(target, num_shards, shard).exists():
            logging.info("%s is there already", target)
            continue
        about = set(_job_keys(job, data_dir, utterances, speech_lang))
        keys = [key for key in own if key in about]
        needed = speech_units() if job.task in SPEECH_PROMPTS else SpeechUnits({}, {})
        turns = job_turns(
            job,
            data_dir,
            needed.lines,
            lambda: _own_transcripts(out, speech_lang, num_shards, shard),
            speech_lang,
        )
        rejected = needed.rejected
        if job.task == "st_cascade":
            rejected = _own_rejected(out, speech_lang, num_shards, shard)
        rejected = {key: rejected[key] for key in keys if key in rejected}
        asked = [key for key in keys if key not in rejected]
        missing = [key for key in asked if key not in turns]
        if missing:
            raise SpireError(f"{data_dir}: {job.name} has nothing to decode for {missing[0]}")
        if generator is None:
            generator = make_generator()
        answers = answer_turns(generator, {key: turns[key] for key in asked}, job)
        cut = {key: str(len(a.ids)) for key, a in answers.items() if a.cut}
        texts = {key: generator.text(answer) for key, answer in answers.items()}
        texts.update(dict.fromkeys(rejected, ""))
        if job.task in SPEECH_TASKS:
            listed = _place(target.with_name(REJECTED), num_shards, shard)
            write_rejected(listed, rejected)
            _warn_rejected(job, len(rejected), len(keys), listed)
        write_table(_place(target.with_name(CUT), num_shards, shard), cut)
        # The texts last: they say that the job is done.
        write_table(_place(target, num_shards, shard), texts)


def _job_keys(job: Job, data_dir: Path, utterances: Sequence[str], speech_lang: str) -> List[str]:
    keys = job_keys(job, data_dir, utterances, speech_lang)
    if not keys:
        raise SpireError(
            f"{data_dir}: none of its utterances has the texts that job {job.name} needs; leave the"
            " job out"
        )
    if len(keys) < len(utterances):
        logging.warning(
            "%s: %d of %d utterances of %s have no text to translate or no reference, and are no"
            " part of it",
            *(job.name, len(utterances) - len(keys), len(utterances), data_dir),
        )
    return keys


def _check_speech(jobs: Sequence[Job], data_dir: Path) -> None:
    of_text = text_tables(data_dir)
    for job in jobs:
        if of_text and job.task in SPEECH_TASKS:
            raise SpireError(
                f"{data_dir}: job {job.name} needs speech, and this set has none (its tables:"
                f" {', '.join(of_text)}); leave the job out"
            )


def merge(
    jobs: Sequence[Job],
    *,
    data_dir: PathLike,
    out: PathLike,
    num_shards: int,
    speech_lang: str = "en",
) -> None:
    """Join the shards of every job; a missing shard or utterance is an error."""
    utterances = utterance_keys(data_dir)
    for job in jobs:
        target = Path(out) / job.name / TEXT
        if target.exists():
            continue
        keys = set(_job_keys(job, Path(data_dir), utterances, speech_lang))
        texts = join_tables(target, num_shards)
        if texts.keys() != keys:
            key = sorted(keys ^ texts.keys())[0]
            raise SpireError(f"{target}: {key} is missing or not in {data_dir}; decode again")
        cut = join_tables(target.with_name(CUT), num_shards)
        if cut:
            logging.warning("%s: %d answers reached the limit, see %s", job.name, len(cut), CUT)
        write_table(target.with_name(CUT), cut)
        if job.task in SPEECH_TASKS:
            rejected = join_tables(target.with_name(REJECTED), num_shards)
            write_rejected(target.with_name(REJECTED), rejected)
            _warn_rejected(job, len(rejected), len(keys), target.with_name(REJECTED))
        write_table(target, texts)
        remove_shards([target.with_name(name) for name in (TEXT, CUT, REJECTED)], num_shards)
