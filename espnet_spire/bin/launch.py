"""Run a sharded command as nj processes and merge: launch --nj 4 --log F.JOB.log -- command …"""

import sys

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--nj", type=int, default=1, help="how many shards")
    parser.add_argument("--log", required=True, help="log file, JOB in its name")
    parser.add_argument("command", nargs="*", help="after --")
    return parser


def main(cmd=None):
    words = list(sys.argv[1:] if cmd is None else cmd)
    split = words.index("--") if "--" in words else len(words)
    args = get_parser().parse_args(words[:split])
    from espnet_spire.utils.launch import launch_local

    launch_local(words[split + 1 :], nj=args.nj, log=args.log)


if __name__ == "__main__":
    run(main)
