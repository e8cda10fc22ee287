#!/usr/bin/env python3
"""The paper's tables with our scores, as `local/show_tables.py exp`; --help has the rest."""

from espnet_spire.bin.show_tables import main
from espnet_spire.utils.cli import run

if __name__ == "__main__":
    run(main)
