"""Which jobs a test set can have, by the files that it has."""

from pathlib import Path
from typing import List, Sequence

from espnet_spire.decode.jobs import source_files
from espnet_spire.text.jobs import SET_JOBS, Job
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import TEXT, WAV_SCP, translation_file
from espnet_spire.utils.errors import SpireError


def possible_jobs(data_dir: PathLike, jobs: Sequence[Job], speech_lang: str) -> List[Job]:
    """Those of the jobs that the set is for, and has a source and references for, in their order.

    Args:
        data_dir: a data directory, with or without audio.
        speech_lang: the language of its ``text``.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise SpireError(f"{data_dir}: no such data directory")
    spoken = (data_dir / WAV_SCP).exists()
    meant = None
    if (data_dir / SET_JOBS).exists():
        meant = (data_dir / SET_JOBS).read_text(encoding="utf-8").split()

    def has_text(lang: str) -> bool:
        transcripts = lang == speech_lang and (data_dir / TEXT).exists()
        return transcripts or (data_dir / translation_file(lang)).exists()

    def possible(job: Job) -> bool:
        if meant is not None and job.name not in meant:
            return False
        if job.task in ("mt", "ape", "ner"):
            files = source_files(job, data_dir, speech_lang)
            return all(path.exists() for path in files) and (
                job.task == "ner" or has_text(job.src) and has_text(job.tgt)
            )
        return spoken and job.src == speech_lang and has_text(job.tgt)

    return [job for job in jobs if possible(job)]
