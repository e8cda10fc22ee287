"""One thin entry point a stage: ``get_parser()`` and ``main(cmd=None)``, nothing else."""
