"""What is decoded: ASR, MT, direct ST and the self-cascade over a data directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Sequence

if TYPE_CHECKING:
    from espnet_spire.decode.generate import Answer
from espnet_spire.text import prompts
from espnet_spire.text.defuse import defused_table
from espnet_spire.text.jobs import TASKS, Job
from espnet_spire.train.examples import encode_chatml_prompt, special_tokens
from espnet_spire.units.notation import FIRST_CODE_POINT, line_to_units
from espnet_spire.utils.datadir import TEXT, iter_table, language_file, read_table
from espnet_spire.utils.errors import SpireError

# Tasks whose prompts hold units; those of the others hold text.
SPEECH_PROMPTS = ("asr", "st")


def source_texts(data_dir: Path, lang: str, speech_lang: str) -> Dict[str, str]:
    """Text of a data directory in a language: the transcripts or a translation of them."""
    return read_table(language_file(data_dir, lang, speech_lang), allow_empty_value=True)


def job_keys(job: Job, data_dir: Path, keys: Sequence[str], speech_lang: str) -> List[str]:
    """The utterances of a set that a job is about, in the order of ``keys``.

    A set of speech may have translations of some utterances only: translation is about those that
    have a text to translate and, where the set has references at all, a reference.
    """
    if job.task == "asr":
        return list(keys)
    tables = [language_file(data_dir, job.tgt, speech_lang)]
    tables = [table for table in tables if table.is_file()]
    if job.task == "mt":
        tables.append(language_file(data_dir, job.src, speech_lang))
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
) -> Dict[str, List[prompts.Turn]]:
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
        return {
            key: [
                prompts.Turn("user", prompts.speech_instruction(line_to_units(line, key), job.tgt))
            ]
            for key, line in units.items()
        }
    texts = (
        transcripts() if job.task == "st_cascade" else source_texts(data_dir, job.src, speech_lang)
    )
    return {
        key: [prompts.Turn("user", prompts.mt_instruction(job.src, job.tgt, text))]
        for key, text in texts.items()
    }


def answer_turns(generator, turns: Dict[str, List[prompts.Turn]], job: Job) -> Dict[str, "Answer"]:
    """Answers by utterance; text that would be read as units or special tokens is defused.

    Raises:
        SpireError: the model has no such units, or no ChatML.
    """
    tokenizer = generator.tokenizer
    if job.task in SPEECH_PROMPTS:
        for key, (turn,) in turns.items():
            _check_units(tokenizer, key, turn.content)
    else:
        contents = {key: turn.content for key, (turn,) in turns.items()}
        contents = defused_table(contents, special_tokens(tokenizer), job.name)
        turns = {key: [prompts.Turn("user", content)] for key, content in contents.items()}
    ids = [encode_chatml_prompt(tokenizer, turn) for turn in turns.values()]
    return dict(zip(turns, generator(ids, job.name), strict=True))


def _check_units(tokenizer, key: str, content: str) -> None:
    highest = max(content)
    if tokenizer.convert_tokens_to_ids(highest) in (None, tokenizer.unk_token_id):
        if highest >= chr(FIRST_CODE_POINT):
            raise SpireError(
                f"{tokenizer.name_or_path} does not know unit {ord(highest) - FIRST_CODE_POINT}"
                f" of {key}; --model and --units are not of the same codebook"
            )


def order_jobs(jobs: Sequence[Job]) -> List[Job]:
    """Transcription first: the self-cascade reads it."""
    return sorted(jobs, key=lambda job: TASKS.index(job.task))
