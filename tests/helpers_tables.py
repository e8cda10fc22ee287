"""Results and score directories for tests of tables."""

from pathlib import Path
from typing import Dict

import numpy as np
import soundfile

from espnet_spire.score.files import Job, score_job
from espnet_spire.score.metrics import Settings
from espnet_spire.score.report import Result
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.datadir import write_table


def result(system, test_set, job, metric, value, **more) -> Result:
    """A score; ``job`` as ``mt.en-de``."""
    task, src, tgt = parse_job(job)
    known = {"tag": "k", "inference": "greedy", "signature": f"sig-{metric}"}
    return Result(
        variant=system, task=task, set=test_set, src=src, tgt=tgt, metric=metric, value=value,
        **{**known, **more},
    )  # fmt: skip


def put_scores(
    directory: Path, job: str, references: Dict[str, str], hypotheses: Dict[str, str], **settings
) -> None:
    """Score for real: ``directory`` is ``…/<experiment>/<inference_tag>/<set>``."""
    task, _, tgt = parse_job(job)
    (directory / job).mkdir(parents=True)
    write_table(directory / job / "ref", references)
    write_table(directory / job / "text", hypotheses)
    score_job(
        Job(task, directory / job / "ref", directory / job / "text", tgt, directory / job),
        Settings(resamples=50, **settings),
    )


def put_audio(raw: Path, utterances: Dict[str, float], units: str = "text.rm.k") -> None:
    """A data directory of tones of that many seconds, with three units each."""
    (raw / "audio").mkdir(parents=True)
    for key, seconds in utterances.items():
        wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000)
        soundfile.write(raw / f"audio/{key}.flac", wave, 16000)
    write_table(raw / "wav.scp", {key: f"{raw}/audio/{key}.flac" for key in utterances})
    write_table(raw / units, {key: "3 14 15" for key in utterances})
    (raw / f"{units}.rejected.tsv").write_text("")
