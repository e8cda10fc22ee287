"""Decoding that is killed (SIGKILL) at random moments ends as if undisturbed."""

import sys

from helpers_lm import UNITS_NAME, make_data_dir
from kills import harass

EARLIEST = 0.6  # before that Python starts


def test_decoding(lm_dir, tmp_path):
    data = make_data_dir(tmp_path / "data", 60)

    def decode(out):
        return [
            *(sys.executable, "-m", "espnet_spire.bin.spire_inference", "--model", str(lm_dir)),
            *("--data_dir", str(data), "--units", str(data / UNITS_NAME), "--out", str(out)),
            *("--jobs", "asr.en-en", "st_multi_turn.en-de", "st_cascade.en-de", "--device", "cpu"),
            # Few at a time, so that there is much to be killed in.
            *("--max_new_tokens", "12", "--batch_tokens", "100"),
        ]

    assert harass(decode, tmp_path, kills=2, seed=1, earliest=EARLIEST).kills == 2
    assert len((tmp_path / "rough/st_multi_turn.en-de/transcript").read_text().splitlines()) == 60
