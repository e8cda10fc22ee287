"""Whole trainings with pairs: ranks, ZeRO stages, weights, kills."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers_lm import (
    UNITS_NAME,
    make_data_dir,
    process_environment,
    read_history_lines,
    run_training,
    train_command,
)

TOTAL = 12


def make(lm_dir, out):
    """24 pairs and 10 ordinary examples; several micro-batches a step, some without a pair."""
    from transformers import AutoTokenizer

    from espnet_spire.train.build import build_examples

    data = str(make_data_dir(out / "data"))
    tokenizer = AutoTokenizer.from_pretrained(lm_dir)
    asr = {"name": "asr", "task": "asr", "data_dir": data, "max_examples": 10}
    st = {"name": "st", "data_dir": data, "targets": ["de"]}
    for name, task in (("examples", "st_kd"), ("plain_examples", "st")):
        mixture = {"format": "chatml", "max_length": 256, "sources": [asr, {**st, "task": task}]}
        build_examples(mixture, tokenizer, out / name, units_name=UNITS_NAME)
    for stage in range(4):
        config = {"zero_optimization": {"stage": stage}}
        (out / f"zero{stage}.json").write_text(json.dumps(config))
    return [
        *("--ngpu", "0", "--model", str(lm_dir), "--use_tensorboard", "false"),
        *("--sequence_length", "256", "--batch_sequences", "5", "--micro_batch_tokens", "256"),
        *("--max_steps", str(TOTAL), "--num_epochs", "9", "--learning_rate", "4e-3"),
        *("--warmup_steps", "2", "--seed", "3", "--save_interval_steps", "3"),
        *("--eval_interval_steps", "6", "--loss_chunk_tokens", "20"),
    ]


# Undisturbed runs in one process: name → ZeRO stage and options. Without others they have pairs,
# and the weights 1, 1, 2.
_ONE_ROW = ["--packing", "false", "--micro_batch_tokens", "1024"]
_ONE_STEP = ["--max_steps", "1", "--learning_rate", "1e-12"]
RUNS = {
    "zero1": (1, []),
    "zero0": (0, []),
    "whole": (1, ["--loss_chunk_tokens", "1000", "--gradient_checkpointing", "true"]),
    "packed": (1, _ONE_STEP),
    "unpacked": (1, [*_ONE_STEP, "--packing", "false"]),
    "only_st": (1, [*_ONE_ROW, "--kd_weights", "1", "0", "0"]),
    "plain": (1, [*_ONE_ROW, "--train_examples", "{folder}/plain_examples"]),
    "plain_again": (
        1,
        [*_ONE_ROW, "--train_examples", "{folder}/plain_examples", "--kd_weights", *"113"],
    ),
    "without_kd": (1, ["--kd_weights", "1", "1", "0"]),
    "much_kd": (1, ["--kd_weights", "1", "1", "20"]),
    "lora": (2, ["--lora", "r=4", "--lora", "dropout=0.1", "--gradient_checkpointing", "true"]),
    "bfloat16": (3, ["--dtype", "bfloat16"]),
}
_SEVERAL = """
import json, sys
from espnet_spire.bin import spire_train
for words in json.load(open(sys.argv[1])):
    spire_train.main(words)
"""


@pytest.fixture(scope="module")
def distilled(lm_dir, tmp_path_factory):
    """``(folder, options with pairs)`` after all of :data:`RUNS`."""
    folder = tmp_path_factory.mktemp("distilled")
    pairs = str(folder / "examples")
    options = [*make(lm_dir, folder), "--train_examples", pairs, "--valid_examples", pairs]
    commands = []
    for name, (stage, more) in RUNS.items():
        more = [word.format(folder=folder) for word in more]
        out = folder / ("plain" if name == "plain_again" else name)
        command = train_command([*options, *more], out, folder / f"zero{stage}.json")
        commands.append(command[3:])
    (folder / "commands.json").write_text(json.dumps(commands))
    done = subprocess.run(
        [sys.executable, "-c", _SEVERAL, str(folder / "commands.json")],
        env=process_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, options, done.stderr


def nearly(expected, found, rel=1e-5):
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=rel, abs=1e-7), (one["step"], name)


def test_losses_of_student_teacher_and_divergence_are_on_record(distilled):
    entries = read_history_lines(distilled[0] / "zero1")
    steps = [entry for entry in entries if "loss" in entry]
    assert len(steps) == TOTAL
    for entry in steps:
        assert {"loss_st", "loss_mt", "loss_kd", "loss_kd.en-de"} <= entry.keys()
        assert "loss_st_kd" not in entry
    valid = [entry for entry in entries if "valid_loss" in entry]
    assert [entry["step"] for entry in valid] == [6, 12]
    assert valid[1]["valid_loss_st"] < valid[0]["valid_loss_st"]
    assert valid[1]["valid_loss_mt"] < valid[0]["valid_loss_mt"]
    # With one task the loss is the weighted sum of its three.
    from espnet_spire.train.store import ExampleStore

    store = ExampleStore(distilled[0] / "examples")
    targets = {task: 0 for task, _ in store.groups}
    for index in range(len(store)):
        task = store.groups[store.group(index)][0]
        targets[task] += int(store.num_targets([index])[0])
    for entry in valid:
        st, mt, kd = (entry[f"valid_loss_{name}"] for name in ("st", "mt", "kd"))
        pairs = targets["st_kd"] * (st + mt + 2 * kd)
        total = (targets["asr"] * entry["valid_loss_asr"] + pairs) / sum(targets.values())
        assert entry["valid_loss"] == pytest.approx(total, rel=1e-5)


def test_zero_stages_chunks_and_checkpointing_change_nothing(distilled):
    expected = read_history_lines(distilled[0] / "zero1")
    nearly(expected, read_history_lines(distilled[0] / "zero0"))
    nearly(expected, read_history_lines(distilled[0] / "whole"))


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_are_one(distilled, tmp_path, stage):
    """They share an odd number of micro-batches, and some hold no pair."""
    folder, options, _ = distilled
    run_training(options, tmp_path / "run", folder / f"zero{stage}.json", ranks=2)
    nearly(read_history_lines(folder / "zero1"), read_history_lines(tmp_path / "run"))


def test_packed_or_not_the_loss_of_all_examples_is_one_number(distilled):
    packed, unpacked = (
        read_history_lines(distilled[0] / name)[-1] for name in ("packed", "unpacked")
    )
    assert "valid_loss_kd" in packed
    assert packed == pytest.approx(unpacked, rel=1e-6)


def test_weights_1_0_0_are_ordinary_training(distilled):
    """The same examples in the same order, of one row each: a pair, or its ST alone."""
    runs = [read_history_lines(distilled[0] / name) for name in ("only_st", "plain")]
    compared = 0
    for one, two in zip(*runs, strict=True):
        if "loss" in one:
            compared += 1
            names = {"loss", "loss_st", "loss_asr", "grad_norm"} & two.keys()
            assert names <= one.keys() and len(names) > 2
            for name in names:
                assert one[name] == pytest.approx(two[name], rel=1e-5), (one["step"], name)
    assert compared == TOTAL


def test_distillation_lowers_the_divergence(distilled):
    without, much = (
        read_history_lines(distilled[0] / name)[-1]["valid_loss_kd"]
        for name in ("without_kd", "much_kd")
    )
    assert much < 0.8 * without


def test_a_killed_run_goes_on_bit_for_bit(distilled, tmp_path):
    folder, options, _ = distilled
    run = tmp_path / "run"
    command = train_command(options, run, folder / "zero1.json")
    process = subprocess.Popen(
        command, env=process_environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    history = run / "history.jsonl"
    while not history.exists() or history.read_text().count('"lr"') < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    log = run_training(options, run, folder / "zero1.json")
    assert f"of {TOTAL}" in log and "resumed at step" in log
    assert read_history_lines(run) == read_history_lines(folder / "zero1")
    states = [
        torch.load(path / f"step_{TOTAL}/mp_rank_00_model_states.pt", weights_only=False)["module"]
        for path in (folder / "zero1", run)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_other_weights_are_another_course_only_where_there_are_pairs(distilled):
    folder, options, log = distilled
    done = subprocess.run(
        train_command(
            [*options, "--kd_weights", "1", "1", "3"], folder / "zero1", folder / "zero1.json"
        ),
        env=process_environment(),
        capture_output=True,
        text=True,
    )
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert "started with kd_weights [1.0, 1.0, 2.0], now it is [1.0, 1.0, 3.0]" in said
    assert f"{folder}/plain is finished already" in log


@pytest.mark.parametrize("name", ["lora", "bfloat16"])
def test_adapters_and_bfloat16_in_parts_learn(distilled, name):
    entries = [entry for entry in read_history_lines(distilled[0] / name) if "loss" in entry]
    losses = [entry["loss"] for entry in entries]
    assert len(losses) == TOTAL and losses[-1] < 0.9 * losses[0]
    assert all({"loss_st", "loss_mt", "loss_kd"} <= entry.keys() for entry in entries)
