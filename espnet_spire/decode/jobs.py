"""What is decoded: the conversations of each task over a data directory."""

import json
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence

from espnet_spire.decode.answers import Answer, Answerer, FollowUp
from espnet_spire.text import prompts
from espnet_spire.text.defuse import defused, defused_table
from espnet_spire.text.jobs import TASKS, Job
from espnet_spire.text.prompts import Turn
from espnet_spire.train.examples import encode_chatml_prompt, special_tokens
from espnet_spire.units.notation import FIRST_CODE_POINT, line_to_units
from espnet_spire.utils.datadir import TEXT, iter_table, language_file, read_table
from espnet_spire.utils.errors import SpireError

# Tasks whose prompts hold units; those of the others hold text.
SPEECH_PROMPTS = ("asr", "st", "st_multi_turn")


def edited_file(lang: str) -> str:
    """Name of the table with the translations that ``ape`` is to edit."""
    return f"text.mt.{lang}"


def entity_files(lang: str) -> List[str]:
    """Names of the tables of ``ner``: tokens as the prompt has them, and as a JSON array."""
    return [f"text.input.{lang}", f"text.tokens.{lang}"]


def source_texts(data_dir: Path, lang: str, speech_lang: str) -> Dict[str, str]:
    """Text of a data directory in a language: the transcripts or a translation of them."""
    return read_table(language_file(data_dir, lang, speech_lang), allow_empty_value=True)


def source_files(job: Job, data_dir: Path, speech_lang: str) -> List[Path]:
    """The tables that a job's prompts are made of; none if they are made of units."""
    if job.task in ("mt", "ape"):
        edited = [data_dir / edited_file(job.tgt)] if job.task == "ape" else []
        return [language_file(data_dir, job.src, speech_lang), *edited]
    return [data_dir / name for name in entity_files(job.src)] if job.task == "ner" else []


def job_keys(job: Job, data_dir: Path, keys: Sequence[str], speech_lang: str) -> List[str]:
    """The utterances of a set that a job is about, in the order of ``keys``.

    A set of speech may have translations of some utterances only: translation is about those that
    have a text to translate and, where the set has references at all, a reference.
    """
    if job.task == "asr":
        return list(keys)
    tables = [language_file(data_dir, job.tgt, speech_lang)]
    tables = [table for table in tables if table.is_file()]
    tables += source_files(job, data_dir, speech_lang)
    found = set(keys)
    for table in tables:
        if table.name != TEXT:  # of which each utterance has one
            found &= {key for key, _ in iter_table(table, allow_empty_value=True)}
    return [key for key in keys if key in found]


def job_turns(
    job: Job,
    data_dir: Path,
    units: Dict[str, str],
    transcripts: Callable[[], Dict[str, str]],
    speech_lang: str,
) -> Dict[str, List[Turn]]:
    """Conversations to be answered, by utterance.

    Args:
        job: what to decode.
        data_dir: the test set.
        units: utterance → line of its unit file (speech tasks).
        transcripts: gives the model's own transcripts (self-cascade).
        speech_lang: language that is spoken.
    """
    if job.task in SPEECH_PROMPTS:
        if job.src != speech_lang:
            raise SpireError(f"job {job.name}: the speech is in {speech_lang}")
        # Of several turns the first is the transcript's.
        tgt = job.src if job.task == "st_multi_turn" else job.tgt
        asked = {
            key: prompts.speech_instruction(line_to_units(line, key), tgt)
            for key, line in units.items()
        }
    elif job.task == "ner":
        texts = read_table(data_dir / entity_files(job.src)[0], allow_empty_value=True)
        asked = {key: prompts.ner_instruction(text) for key, text in texts.items()}
    elif job.task == "ape":
        sources = source_texts(data_dir, job.src, speech_lang)
        edited = read_table(data_dir / edited_file(job.tgt), allow_empty_value=True)
        asked = {
            key: prompts.ape_instruction(job.src, job.tgt, sources[key], text)
            for key, text in edited.items()
            if key in sources
        }
    else:
        cascade = job.task == "st_cascade"
        texts = transcripts() if cascade else source_texts(data_dir, job.src, speech_lang)
        asked = {key: prompts.mt_instruction(job.src, job.tgt, text) for key, text in texts.items()}
    return {key: [Turn("user", text)] for key, text in asked.items()}


def encode_turns(
    tokenizer, turns: Dict[str, List[Turn]], job: Job, *, of_units: Optional[bool] = None
) -> Dict[str, List[int]]:
    """Token ids by utterance; text that would be read as units or special tokens is defused.

    Args:
        of_units: whether the turns hold units; by default, if those of the job do.

    Raises:
        SpireError: the model has no such units, or no ChatML.
    """
    if job.task in SPEECH_PROMPTS if of_units is None else of_units:
        for key, (turn,) in turns.items():
            _check_units(tokenizer, key, turn.content)
    else:
        contents = {key: turn.content for key, (turn,) in turns.items()}
        contents = defused_table(contents, special_tokens(tokenizer), job.name)
        turns = {key: [Turn("user", content)] for key, content in contents.items()}
    return {key: encode_chatml_prompt(tokenizer, turn) for key, turn in turns.items()}


def translation_turn(answerer: Answerer, firsts: Sequence[List[Turn]], tgt: str) -> FollowUp:
    """What asks for the translation, once the transcript is there (``st_multi_turn``).

    Args:
        firsts: the conversations so far.
        tgt: language to translate into.
    """
    forbidden = special_tokens(answerer.tokenizer)

    def follow_up(index: int, transcript: Answer) -> List[Turn]:
        said = Turn("assistant", defused(answerer.text(transcript), forbidden))
        return [*firsts[index], said, Turn("user", prompts.follow_up_instruction(tgt))]

    return follow_up


def tags_of(tokens: str, answer: str, where: str) -> str:
    """The tags of an answer to ``ner``, one for each token, with blanks between them.

    As Tower-Eval has it, the n-th tag is about the n-th token; what lacks one is outside of
    entities (``O``), and so is all where the answer cannot be read.

    Args:
        tokens: a JSON array.
        answer: ``[("Lima", "B-Location"), ("is", "O")]``.
        where: names file and utterance in the error.
    """
    from espnet_spire.score.entities import OUTSIDE, read_tags

    try:
        count = len(json.loads(tokens))
    except (ValueError, TypeError):
        raise SpireError(f"{where}: not a JSON array of tokens: {tokens[:40]!r}") from None
    tags = ["_".join(tag.split()) or OUTSIDE for tag in read_tags(answer)[:count]]
    return " ".join(tags + [OUTSIDE] * (count - len(tags)))


def _check_units(tokenizer, key: str, content: str) -> None:
    highest = max(content)
    if tokenizer.convert_tokens_to_ids(highest) in (None, tokenizer.unk_token_id):
        if highest >= chr(FIRST_CODE_POINT):
            raise SpireError(
                f"{tokenizer.name_or_path} does not know unit {ord(highest) - FIRST_CODE_POINT}"
                f" of {key}; --model and --units are not of the same codebook"
            )


def order_jobs(jobs: Iterable[Job]) -> List[Job]:
    """Transcription first: the self-cascade reads it."""
    return sorted(jobs, key=lambda job: TASKS.index(job.task))
