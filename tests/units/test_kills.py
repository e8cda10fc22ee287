"""Commands that are killed (SIGKILL) at random moments end as undisturbed ones do.

``benchmarks/kills.py`` does more of the same, on larger models.
"""

import os
import signal
import sys
import time

import pytest
import torch
from kills import Busy, contents, harass, run_until

from espnet_spire.units.codebook import Codebook, save_codebook
from espnet_spire.units.encoder import load_encoder

EARLIEST = 0.6  # before that Python starts


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, make_data_dir, make_audio):
    """Two data sets, which one command works through."""
    root = tmp_path_factory.mktemp("kills")
    audio = {f"u{number:02d}": make_audio(0.7, number) for number in range(40)}
    return [
        make_data_dir(root / "one", {key: audio[key] for key in list(audio)[:25]}),
        make_data_dir(root / "two", {key: audio[key] for key in list(audio)[25:]}),
    ]


def command(corpora, encoder, name, *options):
    return [
        *(sys.executable, "-m", f"espnet_spire.bin.{name}", "--data_dir", *map(str, corpora)),
        *("--encoder", encoder, "--layer", "2", "--device", "cpu", "--batch_seconds", "1"),
        *options,
    ]


def test_kmeans(corpora, tmp_path):
    def learn(out):
        options = ["--num_clusters", "12", "--passes", "3", "--out", str(out / "km")]
        return command(corpora, "mfcc", "learn_kmeans", *options)

    assert harass(learn, tmp_path, kills=1, seed=1, earliest=EARLIEST).kills == 1


def test_extraction(corpora, stable_hubert, tmp_path):
    book = str(tmp_path / "book")
    centroids = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    description = {**load_encoder(stable_hubert, 2).description, "num_clusters": 12}
    save_codebook(Codebook(centroids, description), book)

    def extract(out):
        options = ["--codebook", book, "--out", str(out / "one"), str(out / "two")]
        return command(corpora, stable_hubert, "extract_units", *options)

    assert harass(extract, tmp_path, kills=1, seed=2, earliest=EARLIEST).kills == 1
    assert len((tmp_path / "rough/two").read_text().splitlines()) == 15


def test_a_command_that_fails_is_no_kill(tmp_path):
    with pytest.raises(RuntimeError, match="codebook.safetensors: no such file"):
        run_until(command([tmp_path / "none"], "mfcc", "extract_units", "--out", "x", "--codebook",
                          "y"), 60)  # fmt: skip


def state(pid):
    """A letter of the kernel's: Z is ended but for being noticed."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize("parent_only", [True, False])
def test_who_is_killed(tmp_path, parent_only):
    script = f"sleep 30 & echo $! > {tmp_path}/pid; wait"
    assert not run_until(["sh", "-c", script], 0.7, parent_only=parent_only)
    pid = int((tmp_path / "pid").read_text())
    if parent_only:
        assert state(pid) != "Z"
        os.kill(pid, signal.SIGKILL)
    else:
        deadline = time.monotonic() + 10
        while state(pid) != "Z":
            assert time.monotonic() < deadline


def test_orphans_are_waited_for(tmp_path):
    """A start that is refused is made again, and is no kill."""
    busy = "echo error: out: another process is at this job; exit 1"
    work = "echo done > $0/whole; echo $$ > $0/.left.tmp.1"
    scripts = [work, "sleep 30", busy, busy, work]

    def starts(out):
        return ["sh", "-c", scripts.pop(0), str(out)]

    outcome = harass(starts, tmp_path, kills=1, seed=1)
    assert outcome == (1, 1, 0, 2) and not scripts
    assert contents(tmp_path / "rough") == {"whole": b"done\n"}
    with pytest.raises(Busy):
        run_until(["sh", "-c", busy], 9)


def test_files_that_differ_are_named(tmp_path):
    code = "import sys, time; open(sys.argv[1] + '/now', 'w').write(str(time.time()))"
    with pytest.raises(AssertionError, match="undisturbed run's: now"):
        harass(lambda out: [sys.executable, "-c", code, str(out)], tmp_path, kills=0, seed=1)
