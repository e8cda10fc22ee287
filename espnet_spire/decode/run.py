"""Decode jobs into directories; what is there already is not done again.

How a killed job goes on: :mod:`espnet_spire.decode.results`.
"""

from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from espnet_spire.decode.answers import Answer, Answerer
from espnet_spire.decode.jobs import (
    SPEECH_PROMPTS,
    encode_turns,
    entity_files,
    job_turns,
    order_jobs,
    tags_of,
    translation_turn,
)
from espnet_spire.decode.results import (
    CUT,
    TAGS,
    TRANSCRIPT,
    KeptAnswers,
    check_speech,
    is_done,
    keys_of_job,
    own_rejected,
    own_transcripts,
    tables_of,
    write_results,
)
from espnet_spire.text.jobs import Job
from espnet_spire.text.prompts import Turn
from espnet_spire.units.unit_files import join_units
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.cache import content_key
from espnet_spire.utils.datadir import REJECTED, TEXT, read_table, shard_of, utterance_keys
from espnet_spire.utils.errors import SpireError


class SpeechUnits(NamedTuple):
    """Utterance → line of the unit file, and for those that have none → reason."""

    lines: Dict[str, str]
    rejected: Dict[str, str]


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
        if is_done(target, num_shards, shard):
            continue
        about = set(keys_of_job(job, data_dir, utterances, speech_lang))
        keys = [key for key in own if key in about]
        needed = speech_units() if job.task in SPEECH_PROMPTS else SpeechUnits({}, {})
        turns = job_turns(
            job,
            data_dir,
            needed.lines,
            lambda: own_transcripts(out, speech_lang, num_shards, shard),
            speech_lang,
        )
        rejected = needed.rejected
        if job.task == "st_cascade":
            rejected = own_rejected(out, speech_lang, num_shards, shard)
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
        with KeptAnswers(target, num_shards, shard) as kept:
            answers = _answer(answerer, job, asked, prompts, kept, identity)
        tables = _tables(answerer, job, data_dir, answers, rejected)
        write_results(job, target, tables, len(keys), num_shards, shard)


def _answer(
    answerer: Answerer,
    job: Job,
    turns: Mapping[str, List[Turn]],
    prompts: Mapping[str, List[int]],
    kept: KeptAnswers,
    identity: Any,
) -> Dict[str, List[Answer]]:
    """Answers to the turns of each conversation; those that are kept are not asked for again."""
    several = job.task == "st_multi_turn"
    about = [identity, job.tgt if several else None]
    contents = {key: content_key(*about, ids) for key, ids in prompts.items()}

    def ask(keys: Sequence[str]) -> Iterator[Dict[str, List[List[Any]]]]:
        asked = [prompts[key] for key in keys]
        if several:
            firsts = [turns[key] for key in keys]
            stream = answerer.converse(asked, translation_turn(answerer, firsts, job.tgt))
        else:
            stream = ([(i, [answer]) for i, answer in batch] for batch in answerer.stream(asked))
        for batch in stream:
            yield {keys[index]: [list(a) for a in answers] for index, answers in batch}

    found = kept.complete(contents, ask, job.name)
    return {key: [Answer(*values) for values in answers] for key, answers in found.items()}


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
