"""Tensors of batches, DeepSpeed's settings, and whole trainings as separate processes."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers_lm import UNITS_NAME, make_data_dir, process_environment, read_history_lines

from espnet_spire.train.mixture import build_examples, load_examples
from espnet_spire.train.trainer import ExampleBatches, read_deepspeed_config
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def batches(tmp_path, lm_tokenizer):
    data = str(make_data_dir(tmp_path / "d", 6))
    mix = {
        "format": "chatml",
        "max_length": 999,
        "seed": 0,
        "sources": [
            {"name": "st", "task": "st", "data_dir": data, "targets": ["de"]},
            {"name": "asr", "task": "asr", "data_dir": data},
        ],
    }
    build_examples(mix, lm_tokenizer, tmp_path / "ex", units_name=UNITS_NAME)
    return ExampleBatches(load_examples(tmp_path / "ex"), pad_id=77)


def test_a_batch_is_padded_at_its_right(batches):
    table = batches.dataset.with_format(None)[:]
    indices = np.array([7, 1, 4])
    data = batches.collate(indices)
    longest = max(table["length"][i] for i in indices)
    assert data["task"] == ["asr", "st", "st"] and batches.tasks == ["asr", "st"]
    assert data["key"] == ["asr:utt001", "st:utt001.de", "st:utt004.de"]
    for row, index in enumerate(indices):
        ids, mask = table["input_ids"][index], table["loss_mask"][index]
        rest = longest - len(ids)
        assert data["input_ids"][row].tolist() == ids + [77] * rest
        assert data["attention_mask"][row].tolist() == [1] * len(ids) + [0] * rest
        labels = [i if m else -100 for i, m in zip(ids, mask, strict=True)]
        assert data["labels"][row].tolist() == labels + [-100] * rest
    assert all(data[k].dtype == torch.int64 for k in ("input_ids", "attention_mask", "labels"))
    expected = sum(sum(table["loss_mask"][i]) for i in indices)
    assert batches.num_targets(indices) == expected == int((data["labels"] != -100).sum())


def test_an_empty_selection_carries_no_loss(batches):
    data = batches.collate(np.array([], dtype=np.int64))
    assert data["input_ids"].shape == (1, 2) and (data["labels"] == -100).all()
    assert data["task"] == data["key"] == []


@pytest.mark.parametrize(
    "key",
    [
        *("optimizer", "scheduler", "gradient_clipping", "bf16", "fp16", "train_batch_size"),
        *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    ],
)
def test_settings_that_are_options_may_not_stand_in_the_file(tmp_path, key):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}, key: {}}))
    with pytest.raises(SpireError, match=f"ds.json: '{key}' is decided by options .* remove it"):
        read_deepspeed_config(str(path), dtype="float32", clip=1.0)


def test_deepspeed_settings(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 2}, "wall_clock_breakdown": true}')
    config = read_deepspeed_config(str(path), dtype="bfloat16", clip=0.5)
    assert config["zero_optimization"] == {"stage": 2} and config["wall_clock_breakdown"]
    assert config["bf16"] == {"enabled": True} and config["gradient_clipping"] == 0.5
    assert config["train_micro_batch_size_per_gpu"] == config["gradient_accumulation_steps"] == 1
    with pytest.raises(SpireError, match="none.json: no such file"):
        read_deepspeed_config(str(tmp_path / "none.json"), dtype="float32", clip=1.0)


# Whole trainings ----------------------------------------------------------------------------


def start(folder, options, run):
    command = [
        *(sys.executable, "-m", "espnet_spire.bin.spire_train", *options),
        *("--deepspeed_config", str(folder / "zero1.json"), "--output_dir", str(run)),
    ]
    return subprocess.Popen(
        command, env=process_environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


def wait_for_checkpoint(process, run, step):
    """Until the run has a whole checkpoint of at least this step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode()[-3000:]
        path = run / "checkpoint.json"
        if path.exists():
            pointer = json.loads(path.read_text())
            if int(pointer["tag"].split("_")[1]) >= step:
                assert not pointer["finished"]
                return
        time.sleep(0.005)
    raise AssertionError("no checkpoint within two minutes")


@pytest.fixture(scope="module")
def disturbed(trained, tmp_path_factory):
    """A run that was killed, started again, stopped by SIGTERM, and started again."""
    folder, options, _ = trained
    run = tmp_path_factory.mktemp("disturbed") / "run"
    process = start(folder, options, run)
    wait_for_checkpoint(process, run, 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = json.loads((run / "checkpoint.json").read_text())
    # What a kill in the middle of writing leaves: half a checkpoint, half a line.
    half = run / "step_999"
    shutil.copytree(run / killed["tag"], half)
    next(half.glob("*optim*")).write_bytes(b"half")
    with open(run / "history.jsonl", "a") as stream:
        stream.write('{"step": 24, "loss": 99.0}\n{"step": 25, "lo')
    process = start(folder, options, run)
    wait_for_checkpoint(process, run, int(killed["tag"].split("_")[1]) + 5)
    process.send_signal(signal.SIGTERM)
    second = process.communicate()[1].decode()
    stopped, code = json.loads((run / "checkpoint.json").read_text()), process.returncode
    process = start(folder, options, run)
    third = process.communicate()[1].decode()
    assert process.returncode == 0, third[-3000:]
    return run, killed, second, code, stopped, third


def test_history_after_kill_and_stop_equals_the_undisturbed_run(trained, disturbed):
    undisturbed = read_history_lines(trained[0] / "zero1")
    assert [e["step"] for e in undisturbed if "loss" in e] == list(range(1, 25))
    assert [e["step"] for e in undisturbed if "valid_loss" in e] == [10, 20, 24]
    assert read_history_lines(disturbed[0]) == undisturbed


def test_weights_after_kill_and_stop_equal_the_undisturbed_run(trained, disturbed):
    def weights(run):
        path = run / "step_24" / "mp_rank_00_model_states.pt"
        return torch.load(path, map_location="cpu", weights_only=False)["module"]

    expected, found = weights(trained[0] / "zero1"), weights(disturbed[0])
    assert expected.keys() == found.keys() and len(found) == 21
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_half_written_checkpoint_is_removed_and_named(disturbed):
    run, killed, second, *_ = disturbed
    assert "step_999 is half written" in second
    assert f"resumed at step {killed['tag'].split('_')[1]} of 24" in second
    assert not (run / "step_999").exists()


def test_sigterm_saves_says_so_and_exits_with_an_error(disturbed):
    _, _, second, code, stopped, third = disturbed
    step = int(stopped["tag"].split("_")[1])
    assert code == 1 and not stopped["finished"]
    last = second.strip().splitlines()[-1]
    assert last == (
        f"error: stopped by a signal at step {step}; start the same command again to go on"
    )
    assert "Traceback" not in second
    assert f"resumed at step {step} of 24" in third


def test_the_loss_falls_and_the_rate_follows_the_schedule(trained):
    entries = read_history_lines(trained[0] / "zero1")
    steps = [entry for entry in entries if "loss" in entry]
    assert np.mean([e["loss"] for e in steps[-4:]]) < 0.8 * steps[0]["loss"]
    valid = [entry["valid_loss"] for entry in entries if "valid_loss" in entry]
    assert valid[0] > valid[1] > valid[2]
    assert [steps[0]["lr"], steps[1]["lr"], steps[2]["lr"]] == [0.002, 0.004, 0.004]
    # Half way down the cosine, 22 steps long, from 4e-3 to 4e-4.
    assert steps[13]["lr"] == pytest.approx(0.0022)
    # Only tasks that occurred are reported.
    assert any("loss_chat" in e for e in steps) and not all("loss_chat" in e for e in steps)


def test_the_first_loss_is_that_of_the_start_model(trained, lm_dir):
    """The loss of step 1 by transformers itself, over the examples that the plan puts there."""
    from transformers import AutoModelForCausalLM

    from espnet_spire.train.batching import BatchBudget, plan_pass

    table = load_examples(trained[0] / "train")[:]
    lengths = np.array(table["length"])
    first = plan_pass(lengths, BatchBudget(370, None), seed=3, epoch=0)[0]
    model = AutoModelForCausalLM.from_pretrained(lm_dir)
    total, count = 0.0, 0
    for index in first:
        ids = torch.tensor([table["input_ids"][index]])
        mask = torch.tensor([table["loss_mask"][index]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].log_softmax(-1)
        chosen = -logits[torch.arange(len(logits)), ids[0, 1:]][mask[0, 1:]]
        total, count = total + float(chosen.sum()), count + len(chosen)
    loss = read_history_lines(trained[0] / "zero1")[0]["loss"]
    assert loss == pytest.approx(total / count, rel=1e-5)


def test_a_finished_run_is_a_no_op(trained):
    folder, _, log = trained
    assert log.count("is finished already") == 1 and f"{folder}/zero1 is finished" in log
    pointer = json.loads((folder / "zero1" / "checkpoint.json").read_text())
    assert pointer == {"tag": "step_24", "kept": ["step_20", "step_24"], "finished": True}
    assert (folder / "zero1" / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("other", ["zero0", "zero2"])
def test_zero_stages_agree(trained, other):
    expected = read_history_lines(trained[0] / "zero1")
    found = read_history_lines(trained[0] / other)
    for one, two in zip(expected, found, strict=True):
        for name in one.keys() - {"grad_norm"}:
            assert two[name] == pytest.approx(one[name], rel=1e-5)


def test_two_ranks_under_zero_3_equal_one_process_under_zero_1(trained, trained_two_ranks):
    """Same global batches, so the same losses; weight decay must reach partitioned matrices."""
    expected = read_history_lines(trained[0] / "zero1")
    found = read_history_lines(trained_two_ranks[0])
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            tolerance = 1e-3 if name == "grad_norm" else 1e-5
            assert two[name] == pytest.approx(one[name], rel=tolerance), (one["step"], name)
