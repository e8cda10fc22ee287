"""Score hypotheses: WER and CER for ASR, BLEU and chrF for MT and ST.

One file:     --task mt --ref text.tc.de --hyp text --lang de --out DIR
All of a set: --decode_dir exp/…/<inference_tag>/<set> --data_dir dump/raw/<set>
"""

from pathlib import Path
from typing import Optional, Sequence

from espnet_spire.score.files import Job, jobs_of, score_job
from espnet_spire.score.metrics import BLEU_TOKENIZERS
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
    parser.add_argument("--src", type=Path, help="source text, only shown in result.txt")
    parser.add_argument("--lang", help="language of the references, ISO 639 code")
    parser.add_argument("--out", type=Path, help="score_wer/, score_cer/ or score_bleu/ go here")
    parser.add_argument("--decode_dir", type=Path, help="score each <task>.<src>-<tgt>/text in it")
    parser.add_argument("--data_dir", type=Path, help="references for --decode_dir")
    parser.add_argument("--speech_lang", default="en", help="language of text in --data_dir")
    parser.add_argument(
        "--tokenize",
        choices=BLEU_TOKENIZERS,
        help="BLEU's tokenizer (None: 13a, or the target language's own)",
    )
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Score and print one line a score."""
    args = get_parser().parse_args(cmd)
    given = {name for name in SINGLE + MANY + ("src",) if getattr(args, name) is not None}
    needed = MANY if given & set(MANY) else SINGLE
    for name in needed:
        if name not in given:
            raise SpireError(f"--{name} is missing (needed: --{' --'.join(needed)})")
    if needed == MANY:
        for name in sorted(given - set(MANY)):
            raise SpireError(f"--{name} does not go with --decode_dir")
        jobs = jobs_of(
            args.decode_dir, args.data_dir, speech_lang=args.speech_lang, tokenize=args.tokenize
        )
    else:
        jobs = [Job(args.task, args.ref, args.hyp, args.lang, args.out, args.src, args.tokenize)]
    for job in jobs:
        for score in score_job(job):
            print(f"{job.out}: {score.metric.upper()} {score.value:.2f}")


if __name__ == "__main__":
    run(main)
