"""Is system B better than A? Paired bootstrap or approximate randomisation, for any metric.

Two directories that were scored, of one task (…/st.en-de) or above: what both have is compared.
Or two files of hypotheses, with --task, --ref and --lang.
"""

from pathlib import Path
from typing import Dict, Optional, Sequence

from espnet_spire.score.compare import (
    BOOTSTRAP,
    RANDOMISATION,
    SIGNIFICANT,
    System,
    compare_scores,
    comparison_rows,
    find_scores,
    system_of,
)
from espnet_spire.score.files import Job, read_job
from espnet_spire.score.metrics import check, metrics_of
from espnet_spire.score.options import add_scoring_options, settings_of
from espnet_spire.score.report import plain_table
from espnet_spire.score.resampling import TRIALS
from espnet_spire.text.jobs import TASKS
from espnet_spire.utils.atomic import write_json
from espnet_spire.utils.cli import ArgumentParser, run
from espnet_spire.utils.errors import SpireError

OF_FILES = ("task", "ref", "lang")


def get_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", type=Path, metavar="A", help="scored directory or hypothesis file")
    parser.add_argument("b", type=Path, metavar="B", help="the same of the other system")
    parser.add_argument(
        "--test",
        choices=[BOOTSTRAP, RANDOMISATION],
        default=RANDOMISATION,
        help="p as sacreBLEU's --paired-bs and --paired-ar have it; the bootstrap's is too small"
        " where systems are close",
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="of the randomisation")
    parser.add_argument("--json", type=Path, help="write the comparisons to this file, too")
    parser.add_argument("--task", choices=TASKS, help="of hypothesis files")
    parser.add_argument("--ref", type=Path, help="references of hypothesis files, a Kaldi table")
    parser.add_argument("--src", type=Path, help="source text of hypothesis files, for COMET")
    parser.add_argument("--lang", help="language of the references")
    add_scoring_options(parser)
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Print a table of differences."""
    args = get_parser().parse_args(cmd)
    for name in ("resamples", "trials"):
        if getattr(args, name) < 1:
            raise SpireError(f"--{name} {getattr(args, name)}: at least 1 is needed")
    given = [name for name in (*OF_FILES, "src") if getattr(args, name) is not None]
    if args.a.is_file() and args.b.is_file():
        for name in OF_FILES:
            if name not in given:
                raise SpireError(f"--{name} is missing: A and B are files of hypotheses")
        systems = _score(args)
    elif given:
        raise SpireError(f"--{given[0]} is for two files of hypotheses; A and B are not")
    else:
        systems = [find_scores(args.a), find_scores(args.b)]
    comparisons = compare_scores(
        *systems,
        metrics=None if args.metrics == ["default"] else args.metrics,
        test=args.test,
        seed=args.seed,
        resamples=args.resamples,
        trials=args.trials,
    )
    print(f"A: {args.a}\nB: {args.b}\n\n{plain_table(comparison_rows(comparisons), 2)}\n")
    print(f"* p < {SIGNIFICANT:g}, {args.test}")
    for signature in dict.fromkeys(comparison.signature for comparison in comparisons):
        print(f"  {signature}")
    if args.json:
        content = {"a": str(args.a), "b": str(args.b), "test": args.test, "seed": args.seed}
        content["comparisons"] = [comparison.as_dict() for comparison in comparisons]
        write_json(args.json, content)


def _score(args) -> Sequence[Dict[str, Dict[str, System]]]:
    settings = settings_of(args)
    names, _ = metrics_of(args.task, settings)
    if not names:
        raise SpireError(f"--metrics {' '.join(args.metrics)}: none is one of {args.task}")
    check(names, settings)
    systems = []
    with settings.quality:
        for hypotheses in (args.a, args.b):
            job = Job(args.task, args.ref, hypotheses, args.lang, hypotheses.parent, args.src)
            texts = read_job(job).texts
            found = {name: system_of(str(hypotheses), name, texts, settings) for name in names}
            systems.append({args.task: found})
    return systems


if __name__ == "__main__":
    run(main)
