"""Run a command as N ranks of this machine: launch_ranks --nproc 8 -- python -m …

SIGTERM and SIGUSR1 are passed on, and the ranks get the time that they need to save.
"""

import sys

from espnet_spire.utils.cli import ArgumentParser, run, split_command


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--nproc", type=int, required=True, help="how many ranks: one a GPU")
    parser.add_argument(
        "--master_port", type=int, help="where the first rank listens; any that is free by default"
    )
    parser.add_argument("command", nargs="*", help="after --")
    return parser


def main(cmd=None):
    ours, command = split_command(cmd)
    args = get_parser().parse_args(ours)
    from espnet_spire.utils.ranks import launch_ranks

    command = [*args.command, *command]
    status = launch_ranks(command, nproc=args.nproc, master_port=args.master_port)
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    run(main)
