"""Train SPIRE: an ESPnet task (stages 8 and 10)."""

from espnet_spire.utils.cli import run, underscored


def get_parser():
    from espnet_spire.tasks.spire import SpireTask

    return SpireTask.get_parser()


def main(cmd=None):
    import os
    import sys

    # ESPnet sets the first, with which each wait for NCCL stops the host, and logs with the second.
    os.environ.setdefault("NCCL_BLOCKING_WAIT", "0")
    os.environ.setdefault("NCCL_DEBUG", "WARN")
    from espnet_spire.utils.stopping import noted_signals

    # Before imports that take seconds: a job may be warned while it starts.
    with noted_signals():
        from espnet_spire.tasks.spire import SpireTask

        SpireTask.main(cmd=underscored(sys.argv[1:] if cmd is None else cmd))


if __name__ == "__main__":
    run(main)
