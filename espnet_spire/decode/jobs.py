"""What is decoded: ASR, MT, direct ST and the self-cascade over a data directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Sequence

if TYPE_CHECKING:
    from espnet_spire.decode.generate import Answer
from espnet_spire.text import prompts
from espnet_spire.text.jobs import TASKS, Job
from espnet_spire.train.examples import encode_chatml_prompt
from espnet_spire.units.notation import line_to_units
from espnet_spire.utils.datadir import TEXT, read_table, translation_file
from espnet_spire.utils.errors import SpireError


def source_texts(data_dir: Path, lang: str, speech_lang: str) -> Dict[str, str]:
    """Text of a data directory in a language: the transcripts or a translation of them."""
    name = TEXT if lang == speech_lang else translation_file(lang)
    return read_table(data_dir / name, allow_empty_value=True)


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
    if job.task in ("asr", "st"):
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


def answer_turns(generator, turns: Dict[str, List[prompts.Turn]], desc: str) -> Dict[str, "Answer"]:
    """Answers by utterance."""
    ids = [encode_chatml_prompt(generator.tokenizer, turn) for turn in turns.values()]
    return dict(zip(turns, generator(ids, desc), strict=True))


def order_jobs(jobs: Sequence[Job]) -> List[Job]:
    """Transcription first: the self-cascade reads it."""
    return sorted(jobs, key=lambda job: TASKS.index(job.task))
