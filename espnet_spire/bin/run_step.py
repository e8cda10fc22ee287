"""Run one step of a recipe unless it is up to date: run_step --name … -- command …"""

import shlex
import sys

from espnet_spire.utils.cli import ArgumentParser, run, split_command


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the step, unique in the recipe")
    parser.add_argument("--expdir", required=True, help="where the time that steps took is kept")
    parser.add_argument("--inputs", nargs="*", default=[], help="files and directories it reads")
    parser.add_argument("--outputs", nargs="*", default=[], help="files and directories it leaves")
    parser.add_argument("--hint", default="", help="what to do when an input is missing")
    parser.add_argument(
        "--in_place", action="store_true", help="the command brings old outputs up to date itself"
    )
    parser.add_argument("--launcher", default="", help="words before the command: where it runs")
    parser.add_argument("command", nargs="*", help="after --")
    return parser


def main(cmd=None):
    ours, command = split_command(cmd)
    args = get_parser().parse_args(ours)
    from espnet_spire.utils.steps import run_step

    status = run_step(
        args.name,
        [*args.command, *command],
        expdir=args.expdir,
        inputs=args.inputs,
        outputs=args.outputs,
        hint=args.hint,
        in_place=args.in_place,
        launcher=shlex.split(args.launcher),
    )
    if status != 0:
        # A signal's number is negative here, and 128 more than it for a shell.
        sys.exit(status if status > 0 else 128 - status)


if __name__ == "__main__":
    run(main)
