"""Decode jobs into directories; what is there already is not done again.

Answers are kept by content (model, settings, prompt) as they come, in a hidden directory of the
job, until its tables are there: a killed job goes on with what is left, whatever the number of its
processes, and what comes out is the same.
"""

import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from espnet_spire.decode.answers import Answer, Answerer
from espnet_spire.decode.jobs import (
    SPEECH_PROMPTS,
    encode_turns,
    entity_files,
    job_keys,
    job_turns,
    order_jobs,
    tags_of,
    translation_turn,
)
from espnet_spire.text.jobs import Job
from espnet_spire.text.prompts import Turn
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cache import ContentCache, content_key
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


class SpeechUnits(NamedTuple):
    """Utterance → line of the unit file, and for those that have none → reason."""

    lines: Dict[str, str]
    rejected: Dict[str, str]


def tables_of(job: Job) -> List[str]:
    """Names of the tables that a job leaves beside what was rejected and cut, ``text`` the last.

    It says that the job is done.
    """
    extra = {"st_multi_turn": [TRANSCRIPT], "ner": [TAGS]}
    return [*extra.get(job.task, []), TEXT]


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
            "%s: %d of %d utterances could not be decoded, their hypotheses are empty; see %s",
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
    make_answerer: Callable[[], Answerer],
    jobs: Sequence[Job],
    *,
    data_dir: PathLike,
    units: Optional[PathLike],
    out: PathLike,
    identity: Any = None,
    speech_lang: str = "en",
    num_shards: int = 1,
    shard: int = 1,
) -> None:
    """Decode (a shard of) a test set; one ``<out>/<task>.<src>-<tgt>/text`` a job.

    Utterances that extraction rejected have no units: where a job needs them the hypothesis is
    empty, so that scoring counts it as wholly wrong, and ``rejected.tsv`` beside it says why. So it
    is with prompts for which the model has no room. What has no text to translate or no reference
    is not part of a translation job.

    Args:
        make_answerer: called when the first job needs it.
        jobs: what to decode.
        data_dir, units: the test set and its unit file.
        out: directory of the set's results.
        identity: JSON that tells model and settings from others; of answers that an interrupted
            job left, those of others are not used.
    """
    data_dir, out = Path(data_dir), Path(out)
    check_speech(jobs, data_dir)
    utterances = utterance_keys(data_dir)
    own = shard_of(utterances, num_shards, shard)
    # Several jobs read them; a set without speech jobs needs none.
    speech_units = cache(lambda: read_units(data_dir, units))
    answerer = None
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
        if answerer is None:
            answerer = make_answerer()
        asked = {key: turns[key] for key in asked}
        prompts = encode_turns(answerer.tokenizer, asked, job)
        too_long = answerer.refused(prompts)
        for key in too_long:
            rejected[key] = too_long[key]
            del prompts[key], asked[key]
        kept = ContentCache(out / job.name / _ANSWERS, f"{shard}-of-{num_shards}")
        try:
            answers = _answer(answerer, job, asked, prompts, kept, identity)
        finally:
            kept.close()
        tables = _tables(answerer, job, data_dir, answers, rejected)
        for name, table in tables.items():
            write = write_rejected if name == REJECTED else write_table
            write(_place(target.with_name(name), num_shards, shard), table)
        _warn_rejected(
            job, len(rejected), len(keys), _place(target.with_name(REJECTED), num_shards, shard)
        )
        if num_shards == 1:
            shutil.rmtree(kept.directory, ignore_errors=True)


def _answer(
    answerer: Answerer,
    job: Job,
    turns: Mapping[str, List[Turn]],
    prompts: Mapping[str, List[int]],
    kept: ContentCache,
    identity: Any,
) -> Dict[str, List[Answer]]:
    """Answers to the turns of each conversation; those that are kept are not asked for again."""
    several = job.task == "st_multi_turn"
    about = [identity, job.tgt if several else None]
    contents = {key: content_key(*about, ids) for key, ids in prompts.items()}
    found = {
        content: [Answer(*values) for values in answers]
        for content, answers in kept.known(set(contents.values())).items()
    }
    # Equal prompts are asked once.
    left = {content: key for key, content in contents.items() if content not in found}
    if found and left:
        logging.info("%s: %d of %d are there already", job.name, len(found), len(found) + len(left))
    places = list(left)
    asked = [prompts[left[content]] for content in places]
    if several:
        firsts = [turns[left[content]] for content in places]
        stream = answerer.converse(asked, translation_turn(answerer, firsts, job.tgt))
    else:
        stream = ([(i, [answer]) for i, answer in batch] for batch in answerer.stream(asked))
    total = len(set(contents.values()))
    with progress(total=total, initial=len(found), desc=job.name, unit="utt") as bar:
        for batch in stream:
            news = {places[index]: answers for index, answers in batch}
            kept.add({content: [list(a) for a in answers] for content, answers in news.items()})
            found.update(news)
            bar.update(len(news))
    return {key: found[content] for key, content in contents.items()}


def _tables(
    answerer: Answerer,
    job: Job,
    data_dir: Path,
    answers: Mapping[str, List[Answer]],
    rejected: Dict[str, str],
) -> Dict[str, Dict[str, str]]:
    """What is written for a job, by file name, in order."""
    cut = {}
    for key, turns in answers.items():
        lengths = [str(len(answer.ids)) for answer in turns if answer.cut]
        if lengths:
            cut[key] = " ".join(lengths)
    texts = {key: answerer.text(turns[-1]) for key, turns in answers.items()}
    none = dict.fromkeys(rejected, "")
    tables = {REJECTED: rejected, CUT: cut}
    for name in tables_of(job):
        if name == TRANSCRIPT:
            tables[name] = {k: answerer.text(turns[0]) for k, turns in answers.items()} | none
        elif name == TAGS:
            path = data_dir / entity_files(job.src)[1]
            tokens = read_table(path)
            tables[name] = {
                key: tags_of(tokens[key], texts.get(key, ""), f"{path}: {key}")
                for key in (*texts, *rejected)
            }
        else:
            tables[name] = texts | none
    return tables


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
        keys = set(_job_keys(job, Path(data_dir), utterances, speech_lang))
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
