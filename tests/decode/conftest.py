"""Fixtures of tests/helpers_lm.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers_lm import (  # noqa: E402, F401
    lm_base,
    lm_data,
    lm_dir,
    lm_tokenizer,
    trained,
    trained_two_ranks,
)
