"""Commands that are killed (SIGKILL) at random moments end as undisturbed ones do.

``benchmarks/kills.py`` does more of the same, on larger models.
"""

import sys

import pytest
from kills import harass, run_until


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_data_dir, make_audio):
    utterances = {f"u{number:02d}": make_audio(0.7, number) for number in range(40)}
    return make_data_dir(tmp_path_factory.mktemp("kills") / "d", utterances)


def command(corpus, encoder, name, *options):
    return [
        *(sys.executable, "-m", f"espnet_spire.bin.{name}", "--data_dir", str(corpus)),
        *("--encoder", encoder, "--layer", "2", "--device", "cpu", "--batch_seconds", "1"),
        *options,
    ]


def test_extraction_and_kmeans(corpus, stable_hubert, tmp_path):
    def kmeans(out):
        options = ["--num_clusters", "12", "--passes", "3", "--out", str(out / "km")]
        return command(corpus, stable_hubert, "learn_kmeans", *options)

    outcome = harass(kmeans, tmp_path / "kmeans", kills=2, seed=1)
    assert outcome.kills == 2
    book = str(tmp_path / "kmeans" / "calm" / "km")

    def extract(out):
        options = ["--codebook", book, "--out", str(out / "units")]
        return command(corpus, stable_hubert, "extract_units", *options)

    outcome = harass(extract, tmp_path / "units", kills=2, seed=2)
    assert outcome.kills == 2


def test_a_command_that_fails_is_no_kill(tmp_path):
    with pytest.raises(RuntimeError, match="codebook.safetensors: no such file"):
        run_until(command(tmp_path / "none", "mfcc", "extract_units", "--out", "x", "--codebook",
                          "y"), 60)  # fmt: skip
