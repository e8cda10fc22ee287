"""Run a sharded command as nj jobs and merge: launch --nj 4 --log F.JOB.log -- command …"""

import shlex

from espnet_spire.utils.cli import ArgumentParser, run, split_command


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--nj", type=int, default=1, help="how many shards")
    parser.add_argument("--log", required=True, help="log file, JOB in its name")
    parser.add_argument(
        "--cmd",
        default="",
        help="what runs the jobs, called as Kaldi's run.pl, e.g. 'utils/slurm.pl --mem 8G'; by"
        " default they are processes of this machine",
    )
    parser.add_argument("command", nargs="*", help="after --")
    return parser


def main(cmd=None):
    ours, command = split_command(cmd)
    args = get_parser().parse_args(ours)
    from espnet_spire.utils.launch import launch_local, launch_through

    words = [*args.command, *command]
    if args.cmd:
        launch_through(shlex.split(args.cmd), words, nj=args.nj, log=args.log)
    else:
        launch_local(words, nj=args.nj, log=args.log)


if __name__ == "__main__":
    run(main)
