"""The directories that decoding leaves, one for each job: their files, shards and unfinished work.

Answers are kept by content (model, settings, what was asked) as they come, in a hidden directory of
the job, until its tables are there: a killed job goes on with what is left, whatever the number of
its processes, and what comes out is the same.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence

from espnet_spire.decode.jobs import SPEECH_PROMPTS, job_keys, order_jobs
from espnet_spire.text.jobs import Job
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cache import ContentCache
from espnet_spire.utils.datadir import (
    REJECTED,
    TEXT,
    read_rejected,
    read_table,
    text_tables,
    utterance_keys,
    write_rejected,
    write_table,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress
from espnet_spire.utils.shards import join_tables, remove_shards, shard_file

# Utterances whose answer reached the limit of new tokens, with its length, in each job's directory.
CUT = "cut"
# Of st_multi_turn: what the model heard, in its first turn.
TRANSCRIPT = "transcript"
# Of ner: the answers' tags, one for each token.
TAGS = "tags"
# Tasks that need units. Utterances without any are listed in each job's REJECTED.
SPEECH_TASKS = (*SPEECH_PROMPTS, "st_cascade")
# Answers of a job that is not finished.
_ANSWERS = ".answers"


class KeptAnswers:
    """The answers of a job that is not finished, for one process of its shard at a time.

    Args:
        target: the table that the job will leave at last.
    """

    def __init__(self, target: Path, num_shards: int, shard: int) -> None:
        self._cache = ContentCache(target.with_name(_ANSWERS), f"{shard}-of-{num_shards}")

    def __enter__(self) -> "KeptAnswers":
        return self

    def __exit__(self, *_: Any) -> None:
        self._cache.close()

    def complete(
        self,
        contents: Mapping[str, str],
        ask: Callable[[List[str]], Iterable[Mapping[str, Any]]],
        name: str,
    ) -> Dict[str, Any]:
        """The answers to all utterances; those that are kept are not asked for again.

        Args:
            contents: utterance → hash of all that its answer depends on; equal ones are asked once.
            ask: yields the answers (JSON values) of some of the utterances that it is given, until
                it has been through them.
            name: of the job, for messages.
        """
        found = self._cache.known(set(contents.values()))
        left = {content: key for key, content in contents.items() if content not in found}
        total = len(found) + len(left)
        if found and left:
            logging.info("%s: %d of %d are there already", name, len(found), total)
        with progress(total=total, initial=len(found), desc=name, unit="utt") as bar:
            for batch in ask(list(left.values())) if left else ():
                news = {contents[key]: answer for key, answer in batch.items()}
                self._cache.add(news)
                found.update(news)
                bar.update(len(news))
        return {key: found[content] for key, content in contents.items()}


def write_results(
    job: Job,
    target: Path,
    tables: Mapping[str, Mapping[str, str]],
    utterances: int,
    num_shards: int,
    shard: int,
) -> None:
    """Write the tables of (a shard of) a job; the last of them says that it is done.

    Args:
        target: the last table.
        tables: by file name, in order.
        utterances: how many the job is about.
    """
    for name, table in tables.items():
        write = write_rejected if name == REJECTED else write_table
        write(_place(target.with_name(name), num_shards, shard), table)
    listed = _place(target.with_name(REJECTED), num_shards, shard)
    _warn_rejected(job, len(tables[REJECTED]), utterances, listed)
    if num_shards == 1:
        shutil.rmtree(target.with_name(_ANSWERS), ignore_errors=True)


def is_done(target: Path, num_shards: int, shard: int) -> bool:
    """Whether (a shard of) a job left its last table, which is logged then."""
    done = _part(target, num_shards, shard).exists()
    if done:
        logging.info("%s is there already", target)
    return done


def tables_of(job: Job) -> List[str]:
    """Names of the tables that a job leaves beside what was rejected and cut, ``text`` the last.

    It says that the job is done.
    """
    extra = {"st_multi_turn": [TRANSCRIPT], "ner": [TAGS]}
    return [*extra.get(job.task, []), TEXT]


def own_transcripts(out: Path, speech_lang: str, num_shards: int, shard: int) -> Dict[str, str]:
    """What the same model recognised, which ``st_cascade`` translates."""
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
            "%s: %d of %d utterances could not be decoded, their hypotheses are empty; see %s",
            *(job.name, rejected, utterances, path),
        )


def own_rejected(out: Path, speech_lang: str, num_shards: int, shard: int) -> Dict[str, str]:
    """Utterances that could not be transcribed: their transcripts are no text to translate."""
    directory = out / Job("asr", speech_lang, speech_lang).name
    path = _part(directory / REJECTED, num_shards, shard)
    return read_rejected(path) if path.exists() else {}


def keys_of_job(job: Job, data_dir: Path, utterances: Sequence[str], speech_lang: str) -> List[str]:
    """See :func:`job_keys`; none is an error, and some that are left out are logged."""
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


def check_speech(jobs: Sequence[Job], data_dir: PathLike) -> None:
    """Raise if a job needs speech and the set is of text alone."""
    of_text = text_tables(data_dir)
    for job in jobs:
        if of_text and job.task in SPEECH_TASKS:
            raise SpireError(
                f"{data_dir}: job {job.name} needs speech, and this set has none (its tables:"
                f" {', '.join(of_text)}); leave the job out"
            )


def say(jobs: Sequence[Job], out: PathLike) -> None:
    """Print what was decoded: job, utterance and text, with tabs between them."""
    for job in order_jobs(jobs):
        for name in reversed(tables_of(job)):
            if name == TAGS:
                continue
            what = job.name if name == TEXT else f"{job.name} ({name})"
            table = read_table(Path(out) / job.name / name, allow_empty_value=True)
            for key, text in table.items():
                print(f"{what}\t{key}\t{text}")


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
        keys = set(keys_of_job(job, Path(data_dir), utterances, speech_lang))
        texts = join_tables(target, num_shards)
        if texts.keys() != keys:
            key = sorted(keys ^ texts.keys())[0]
            raise SpireError(f"{target}: {key} is missing or not in {data_dir}; decode again")
        cut = join_tables(target.with_name(CUT), num_shards)
        if cut:
            logging.warning("%s: %d answers reached the limit, see %s", job.name, len(cut), CUT)
        write_table(target.with_name(CUT), cut)
        rejected = join_tables(target.with_name(REJECTED), num_shards)
        write_rejected(target.with_name(REJECTED), rejected)
        _warn_rejected(job, len(rejected), len(keys), target.with_name(REJECTED))
        for name in tables_of(job):
            write_table(target.with_name(name), join_tables(target.with_name(name), num_shards))
        shutil.rmtree(target.with_name(_ANSWERS), ignore_errors=True)
        names = (*tables_of(job), CUT, REJECTED)
        remove_shards([target.with_name(name) for name in names], num_shards)
