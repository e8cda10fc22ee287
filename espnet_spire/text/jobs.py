"""Names of what is decoded and scored: ``<task>.<src>-<tgt>``, such as ``st_cascade.en-de``."""

import re
from typing import NamedTuple, Optional

from espnet_spire.text.languages import CODE, language_name, same_language
from espnet_spire.utils.errors import SpireError

# In the order of decoding: the self-cascade reads what asr wrote. ``ape`` is automatic
# post-editing, ``ner`` the search for named entities.
TASKS = ("asr", "mt", "st", "st_multi_turn", "st_cascade", "ape", "ner")
# These stay in a language, the others leave it.
ONE_LANGUAGE = ("asr", "ner")
# In a data directory: the jobs that the set is for, one a line. Without it that is all that its
# tables allow; a set of WMT is made for one direction.
SET_JOBS = "jobs"
_NAME = re.compile(rf"({'|'.join(TASKS)})\.({CODE})-({CODE})")


class Job(NamedTuple):
    """One task and language pair (ISO 639 codes); results lie in a directory of its name."""

    task: str
    src: str
    tgt: str

    @property
    def name(self) -> str:
        return f"{self.task}.{self.src}-{self.tgt}"


def match_job(name: str) -> Optional[Job]:
    """``st.en-de`` → Job("st", "en", "de"); ``None`` for any other name."""
    found = _NAME.fullmatch(name)
    return Job(*found.groups()) if found else None


def parse_job(name: str) -> Job:
    """What a user asks for: languages must be known and fit the task."""
    job = match_job(name)
    if job is None:
        raise SpireError(f"job {name!r}: not TASK.SRC-TGT with a task of {', '.join(TASKS)}")
    for lang in (job.src, job.tgt):
        language_name(lang)
    if job.src != job.tgt and same_language(job.src, job.tgt):
        raise SpireError(f"job {job.name}: {job.src} and {job.tgt} are codes of one language")
    return check_job(job)


def check_job(job: Job) -> Job:
    """Itself, if its languages fit the task."""
    if (job.task in ONE_LANGUAGE) != (job.src == job.tgt):
        raise SpireError(
            f"job {job.name}: {' and '.join(ONE_LANGUAGE)} need one language, other tasks two"
        )
    return job
