"""Print the decoding jobs for which a test set has a source and references, one a line."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="data directory, with or without audio")
    parser.add_argument("--speech_lang", default="en", help="language of its text")
    parser.add_argument("--jobs", nargs="+", required=True, help="TASK.SRC-TGT …")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from espnet_spire.decode.available import possible_jobs
    from espnet_spire.text.jobs import parse_job

    jobs = [parse_job(name) for name in args.jobs]
    for job in possible_jobs(args.data_dir, jobs, args.speech_lang):
        print(job.name)


if __name__ == "__main__":
    run(main)
