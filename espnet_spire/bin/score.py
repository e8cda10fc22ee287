"""Score hypotheses: WER and CER for ASR, BLEU, chrF and others for translation, F1 for NER.

One file:     --task mt --ref text.tc.de --hyp text --lang de --out DIR
All of a set: --decode_dir exp/…/<inference_tag>/<set> --data_dir dump/raw/<set>

espnet_spire/score/files.py says what is written. espnet_spire.bin.compare compares two systems.
"""

import logging
from pathlib import Path
from typing import List, Optional, Sequence

from espnet_spire.score.files import Job, jobs_of, score_job
from espnet_spire.score.metrics import METRICS, Settings, check, metrics_of
from espnet_spire.score.options import add_scoring_options, settings_of
from espnet_spire.text.jobs import TASKS
from espnet_spire.utils.cli import ArgumentParser, run
from espnet_spire.utils.errors import SpireError

SINGLE = ("task", "ref", "hyp", "lang", "out")
MANY = ("decode_dir", "data_dir")


def get_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, help="what was decoded")
    parser.add_argument("--ref", type=Path, help="references, a Kaldi table")
    parser.add_argument("--hyp", type=Path, help="hypotheses, a Kaldi table")
    parser.add_argument("--src", type=Path, help="source text: for COMET, and shown in result.txt")
    parser.add_argument("--lang", help="language of the references, ISO 639 code")
    parser.add_argument("--out", type=Path, help="score_wer/, score_bleu/ … go here")
    parser.add_argument("--decode_dir", type=Path, help="score each <task>.<src>-<tgt>/text in it")
    parser.add_argument("--data_dir", type=Path, help="references for --decode_dir")
    parser.add_argument("--speech_lang", default="en", help="language of text in --data_dir")
    add_scoring_options(parser)
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Score and print one line a score."""
    args = get_parser().parse_args(cmd)
    if args.resamples < 1:
        raise SpireError(f"--resamples {args.resamples}: at least 1 is needed")
    given = {name for name in SINGLE + MANY + ("src",) if getattr(args, name) is not None}
    needed = MANY if given & set(MANY) else SINGLE
    for name in needed:
        if name not in given:
            raise SpireError(f"--{name} is missing (needed: --{' --'.join(needed)})")
    if needed == MANY:
        for name in sorted(given - set(MANY)):
            raise SpireError(f"--{name} does not go with --decode_dir")
        jobs = jobs_of(args.decode_dir, args.data_dir, speech_lang=args.speech_lang)
    else:
        jobs = [Job(args.task, args.ref, args.hyp, args.lang, args.out, args.src)]
    settings = settings_of(args)
    scored = _scored(jobs, settings)
    with settings.quality:
        for job in scored:
            for score in score_job(job, settings):
                bounds = score.interval
                print(
                    f"{job.out}: {METRICS[score.metric].title} {score.value:.2f}"
                    f" [{bounds.low:.2f}, {bounds.high:.2f}]"
                )


def _scored(jobs: Sequence[Job], settings: Settings) -> List[Job]:
    """Those that have any of the metrics; all that these need is here."""
    scored, names, notes = [], set(), {}
    for job in jobs:
        found, left_out = metrics_of(job.task, settings)
        if found:
            scored.append(job)
        else:
            logging.warning(f"{job.out}: no metric of those asked for is one of {job.task}")
        names.update(found)
        notes.update(dict.fromkeys(left_out))
    for note in notes:
        logging.warning(note)
    if not scored:
        raise SpireError(f"--metrics {' '.join(settings.metrics)}: nothing is scored by these")
    check(names, settings)
    return scored


if __name__ == "__main__":
    run(main)
