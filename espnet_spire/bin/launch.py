"""Run a sharded command as nj processes and merge: launch --nj 4 --log F.JOB.log -- command …"""

from espnet_spire.utils.cli import ArgumentParser, run, split_command


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--nj", type=int, default=1, help="how many shards")
    parser.add_argument("--log", required=True, help="log file, JOB in its name")
    parser.add_argument("command", nargs="*", help="after --")
    return parser


def main(cmd=None):
    ours, command = split_command(cmd)
    args = get_parser().parse_args(ours)
    from espnet_spire.utils.launch import launch_local

    launch_local([*args.command, *command], nj=args.nj, log=args.log)


if __name__ == "__main__":
    run(main)
