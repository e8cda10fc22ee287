"""Collect all scores of an experiment directory into RESULTS.md and results.json."""

import os
from pathlib import Path
from typing import Optional, Sequence

from espnet_spire.score import report
from espnet_spire.utils.atomic import atomic_write, write_json
from espnet_spire.utils.cli import ArgumentParser, run


def get_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--expdir", type=Path, required=True, help="holds spire_it_*/, spire_cpt_*/"
    )
    parser.add_argument("--out", type=Path, help="write this Markdown page")
    parser.add_argument("--results_json", type=Path, help="write this JSON file")
    parser.add_argument("--title", default="SPIRE results", help="heading of the page")
    parser.add_argument("--targets", type=Path, help="YAML list of figures to reach")
    parser.add_argument("--speech_lang", default="en", help="language of the speech")
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Write what was asked for and print the table of scores."""
    args = get_parser().parse_args(cmd)
    results = report.collect(args.expdir)
    seconds = report.read_seconds(args.expdir)
    environment = report.environment()
    targets = report.read_targets(args.targets) if args.targets else None
    if args.out:
        beside = args.out.resolve().parent
        page = report.markdown(
            results,
            seconds,
            environment,
            title=args.title,
            targets=targets,
            plots=[
                Path(os.path.relpath(p.resolve(), beside)).as_posix()
                for p in report.find_plots(args.expdir)
            ],
            speech_lang=args.speech_lang,
        )
        with atomic_write(args.out) as stream:
            stream.write(page)
    if args.results_json:
        write_json(args.results_json, report.results_json(results, seconds, environment))
    print(report.plain_table(report.score_rows(results)))
    for target in targets or []:
        for line in report.check_target(target, results):
            print(line)


if __name__ == "__main__":
    run(main)
