import subprocess
import sys

import pytest
import torch
from helpers_lm import process_environment

from espnet_spire.units.encoder import Pooling, load_encoder
from espnet_spire.units.options import (
    add_encoder_options,
    batch_seconds,
    check_encoder_options,
    describe_features,
    encoder_from,
)
from espnet_spire.utils.cli import ArgumentParser, add_shard_options
from espnet_spire.utils.errors import SpireError


def parse(encoder, *options):
    parser = ArgumentParser()
    add_encoder_options(parser)
    add_shard_options(parser)
    return parser.parse_args(["--encoder", encoder, "--layer", "2", *options])


def test_the_encoder_of_the_options(stable_hubert):
    options = ["--normalization-eps", "1e-5", "--pooling", "max", "--pool_frames", "2"]
    options += ["--window_seconds", "7", "--dtype", "bfloat16", "--device", "cpu"]
    args = parse(stable_hubert, *options)
    expected = load_encoder(
        stable_hubert,
        2,
        dtype="bfloat16",
        normalization_eps=1e-5,
        window_seconds=7.0,
        pooling=Pooling("max", 2),
    )
    assert encoder_from(args).settings == expected.settings
    known = {name: value for name, value in expected.description.items() if name != "weights"}
    assert describe_features(args) == known


def test_batches_by_device(monkeypatch):
    seconds = {}
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        for device in ("auto", "cpu", "cuda", "cuda:1"):
            seconds[gpu, device] = batch_seconds(parse("mfcc", "--device", device))
    # A GPU that is asked for counts: who merges may have none.
    assert [seconds[False, device] for device in ("auto", "cpu", "cuda")] == [40, 40, 400]
    assert [seconds[True, device] for device in ("auto", "cpu", "cuda:1")] == [400, 40, 400]
    assert batch_seconds(parse("mfcc", "--batch_seconds", "7.5", "--device", "cuda")) == 7.5


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num_workers", "-1"], "--num_workers -1: must be 0 or more"),
        (["--max_rejected", "1.1"], "--max_rejected 1.1: must be between 0 and 1"),
        (["--max_rejected", "nan"], "--max_rejected nan: must be between 0 and 1"),
        (["--dtype", "bfloat16"], "--dtype bfloat16: mfcc is float32 only; leave the option out"),
    ],
)
def test_out_of_range(options, message):
    check_encoder_options(parse("mfcc", "--num_workers", "0", "--max_rejected", "1"))
    with pytest.raises(SpireError, match=message):
        check_encoder_options(parse("mfcc", *options))


def test_batch_seconds_must_be_positive():
    with pytest.raises(SpireError, match="--batch_seconds 0.0: must be more than 0"):
        batch_seconds(parse("mfcc", "--batch_seconds", "0"))


def test_parsers_import_nothing_heavy():
    code = """
import sys
from espnet_spire.bin import extract_units, learn_kmeans
for module in (extract_units, learn_kmeans):
    module.get_parser()
print([name for name in ("torch", "transformers", "sklearn", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=process_environment()
    )
    assert done.stdout == "[]\n", done.stderr
