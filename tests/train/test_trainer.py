"""Whole trainings as separate processes: what they compute, how they stop, how they go on."""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from helpers_lm import (
    process_environment,
    read_history_lines,
    run_training,
    train_command,
)

from espnet_spire.train.store import ExampleStore

KILLS = 5
TOTAL = 24


def start(folder, options, run, *, config="zero1", ranks=1, **more):
    command = train_command(options, run, folder / f"{config}.json", ranks=ranks)
    return subprocess.Popen(
        command,
        env=process_environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        **more,
    )


def fails(folder, options, run, *, config="zero1", ranks=1, **more):
    """The last line of a training that is to fail without a traceback."""
    process = start(folder, options, run, config=config, ranks=ranks, **more)
    said = process.communicate()[1].decode()
    assert process.returncode != 0 and "Traceback" not in said.split("elastic")[0], said[-3000:]
    return [line for line in said.splitlines() if line.startswith("error: ")][-1]


def newest_step(run):
    path = run / "checkpoint.json"
    return int(json.loads(path.read_text())["tag"].split("_")[1]) if path.exists() else 0


def steps_on_record(run):
    path = run / "history.jsonl"
    return path.read_text().count('"lr"') if path.exists() else 0


def wait_for(process, reached):
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.stderr.read().decode()[-3000:]
        assert time.monotonic() < deadline, "it did not get there within two minutes"
        time.sleep(0.002)


def weights(run, tag="step_24"):
    path = run / tag / "mp_rank_00_model_states.pt"
    return torch.load(path, map_location="cpu", weights_only=False)["module"]


def nearly(expected, found, tolerance=1e-5):
    """The same entries, numbers within a relative tolerance."""
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=tolerance), (one["step"], name)


# What is computed ---------------------------------------------------------------------------


def test_the_first_loss_is_that_of_the_start_model(trained, lm_dir):
    """The loss of step 1 by transformers itself, one example after the other."""
    from transformers import AutoModelForCausalLM

    from espnet_spire.train.plan import Plan, PlanSettings

    store = ExampleStore(trained[0] / "train")
    settings = PlanSettings(256, 3, True, 3, 4.8)
    first = np.concatenate(next(Plan.build(store.lengths, len(store), settings).batches(0)))
    model = AutoModelForCausalLM.from_pretrained(lm_dir)
    sums = {}
    for index in first:
        ids, spans = store.document(index)
        targets = np.concatenate([np.arange(*span) for span in spans])
        with torch.no_grad():
            logits = model(torch.tensor([ids.tolist()])).logits[0].log_softmax(-1)
        loss = -sum(float(logits[t - 1, ids[t]]) for t in targets)
        for name in ("loss", f"loss_{store.groups[store.group(index)][0]}"):
            total, count = sums.get(name, (0.0, 0))
            sums[name] = total + loss, count + len(targets)
    assert len(first) > 6  # several documents to a sequence
    entry = read_history_lines(trained[0] / "zero1")[0]
    for name, (total, count) in sums.items():
        assert entry[name] == pytest.approx(total / count, rel=1e-5), name


def test_the_loss_falls_and_the_rate_follows_the_schedule(trained):
    entries = read_history_lines(trained[0] / "zero1")
    steps = [entry for entry in entries if "loss" in entry]
    assert [e["step"] for e in steps] == list(range(1, TOTAL + 1))
    assert [e["step"] for e in entries if "valid_loss" in e] == [10, 20, 24]
    assert np.mean([e["loss"] for e in steps[-4:]]) < 0.8 * steps[0]["loss"]
    valid = [entry["valid_loss"] for entry in entries if "valid_loss" in entry]
    assert valid[0] > valid[1] > valid[2]
    assert [steps[0]["lr"], steps[1]["lr"], steps[2]["lr"]] == [0.002, 0.004, 0.004]
    # Half way down the cosine, 22 steps long, from 4e-3 to 4e-4.
    assert steps[13]["lr"] == pytest.approx(0.0022)
    # Only tasks that occurred are reported.
    assert any("loss_chat" in e for e in steps) and not all("loss_chat" in e for e in steps)
    assert all(e["loss_asr"] == e["loss_asr.en"] for e in steps if "loss_asr" in e)


def test_a_finished_run_is_a_no_op(trained):
    folder, _, log = trained
    assert log.count("is finished already") == 1 and f"{folder}/zero1 is finished" in log
    pointer = json.loads((folder / "zero1" / "checkpoint.json").read_text())
    assert pointer["finished"] and pointer["kept"] == ["step_20", "step_24"]
    assert pointer["best"]["tag"] == "step_24"


def test_what_a_person_sees(trained):
    folder, _, log = trained
    run = folder / "zero1"
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {"loss.png", "loss_asr.png", "grad_norm.png"} <= {
        p.name for p in (run / "images").iterdir()
    }
    assert re.search(r"train: 52 examples, 24 steps, packing efficiency 9\d\.\d\d%", log)
    assert "tok/s" in log and "5epoch results: [train] loss=" in log
    entry = json.loads((run / "history.jsonl").read_text().splitlines()[5])
    assert entry["tokens_per_second"] > entry["target_tokens_per_second"] > 0
    assert 0 < entry["share_of_peak"] < 2 and 0.1 < entry["memory_gib"] < 20


@pytest.mark.parametrize("other", ["zero0", "zero2", "zero3"])
def test_zero_stages_agree(trained, other):
    expected = read_history_lines(trained[0] / "zero1")
    nearly(expected, read_history_lines(trained[0] / other))


def test_two_ranks_under_zero_3_equal_one_process_under_zero_1(trained, trained_two_ranks):
    """Same global batches, so the same losses; weight decay must reach partitioned matrices."""
    nearly(read_history_lines(trained[0] / "zero1"), read_history_lines(trained_two_ranks[0]))


def test_one_example_a_sequence_learns_the_same_from_the_same_examples(trained, tmp_path):
    """Packed or not, the loss of a set of examples is one number: validation before any step."""
    folder, options, _ = trained
    more = [*options, "--eval_interval_steps", "1", "--max_steps", "1", "--learning_rate", "1e-12"]
    found = []
    for packing in ("true", "false"):
        run = tmp_path / packing
        run_training([*more, "--packing", packing], run, folder / "zero1.json")
        found.append(read_history_lines(run)[-1]["valid_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


# Killed, stopped, gone on -------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(trained, tmp_path_factory):
    """A run that was killed five times at random steps, the fifth time by a polite signal."""
    folder, options, _ = trained
    run = tmp_path_factory.mktemp("killed") / "run"
    draw = random.Random(0)
    resumed, said, target = [], "", draw.randint(2, 4)
    for number in range(KILLS):
        process = start(folder, options, run)
        wait_for(process, lambda target=target: steps_on_record(run) >= target)
        # More than what a kill comes too late by: the next start has to get there by itself.
        target = min(target + draw.randint(4, 5), TOTAL - 2)
        last = number == KILLS - 1
        process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
        said = process.communicate()[1].decode()
        resumed.append(newest_step(run))
        if not last:
            # What a kill in the midst of writing leaves: half a checkpoint, half a line.
            if newest_step(run):
                half = run / "step_999"
                shutil.copytree(run / f"step_{newest_step(run)}", half)
                (half / "manifest.json").unlink()
                next(half.glob("*optim*")).write_bytes(b"half")
            with open(run / "history.jsonl", "a") as stream:
                stream.write('{"step": 25, "lo')
    stopped, code = json.loads((run / "checkpoint.json").read_text()), process.returncode
    log = run_training(options, run, folder / "zero1.json")
    return run, resumed, said, code, stopped, log


def test_every_later_step_is_that_of_the_undisturbed_run_bit_for_bit(trained, killed):
    assert read_history_lines(killed[0]) == read_history_lines(trained[0] / "zero1")
    assert len(set(killed[1])) > 3, killed[1]  # from another place nearly each time


def test_and_so_are_the_weights(trained, killed):
    expected, found = weights(trained[0] / "zero1"), weights(killed[0])
    assert expected.keys() == found.keys() and len(found) == 21
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_half_written_checkpoint_is_removed_and_named(killed):
    run, _, said, *_ = killed
    assert "step_999 is half written (its job was killed); removing it" in said
    assert not (run / "step_999").exists()


def test_sigterm_saves_says_so_and_exits_with_an_error(killed):
    _, _, said, code, stopped, log = killed
    step = int(stopped["tag"].split("_")[1])
    assert code == 75 and not stopped["finished"]
    assert said.strip().splitlines()[-1] == (
        f"error: stopped by a signal at step {step}; start the same command again to go on"
    )
    assert "Traceback" not in said
    assert f"resumed at step {step} of {TOTAL}" in log


def copy_back_to(step, source, run):
    """A copy of a run as it was when a job was killed after this checkpoint."""
    shutil.copytree(source, run)
    pointer = json.loads((run / "checkpoint.json").read_text())
    pointer.update(tag=f"step_{step}", kept=[f"step_{step}"], best=None, finished=False)
    (run / "checkpoint.json").write_text(json.dumps(pointer))


@pytest.mark.parametrize("config, first, then", [("zero1", 1, 2), ("zero2", 1, 2), ("zero3", 2, 1)])
def test_a_run_goes_on_with_another_number_of_ranks(
    trained, trained_two_ranks, tmp_path, config, first, then
):
    folder, options, _ = trained
    run = tmp_path / "run"
    copy_back_to(20, trained_two_ranks[0] if first == 2 else folder / config, run)
    log = run_training(options, run, folder / f"{config}.json", ranks=then)
    assert f"was written by {first} ranks, now there are {then}: converting it" in log
    assert "step_24 is half written" in log and f"resumed at step 20 of {TOTAL}" in log
    assert not (run / "universal").exists()
    nearly(read_history_lines(folder / "zero1"), read_history_lines(run))


def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path):
    folder, options, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "zero1", run)
    next((run / "step_24").glob("*optim*")).write_bytes(b"half")
    pointer = json.loads((run / "checkpoint.json").read_text())
    (run / "checkpoint.json").write_text(json.dumps({**pointer, "finished": False}))
    log = run_training(options, run, folder / "zero1.json")
    assert "step_24 is not whole (" in log and "resumed at step 20 of 24" in log
    assert read_history_lines(run) == read_history_lines(folder / "zero1")


@pytest.mark.parametrize(
    "config, options, said",
    [
        ("zero1", ["--seed", "4"], "was started with seed 3, now it is 4: use another"),
        ("zero1", ["--batch_sequences", "4"], "batch_sequences 3, now it is 4"),
        ("zero2", [], "ZeRO stage 1, --deepspeed_config now says 2"),
        ("zero1", ["--max_steps", "9"], "total_steps 24, now it is 9"),
    ],
)
def test_another_course_is_refused(trained, tmp_path, config, options, said):
    folder, common, _ = trained
    run = tmp_path / "run"
    copy_back_to(20, folder / "zero1", run)
    assert said in fails(folder, [*common, *options], run, config=config)


def test_a_finished_run_of_another_course_is_not_taken_for_this_one(trained, tmp_path):
    folder, options, _ = trained
    assert "started with seed 3, now it is 4" in fails(
        folder, [*options, "--seed", "4"], folder / "zero1"
    )


def test_from_the_start_when_told_to(trained, tmp_path):
    folder, options, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "zero1", run)
    more = ["--max_steps", "2", "--resume", "false"]
    log = run_training([*options, *more], run, folder / "zero1.json")
    assert f"the run of before is in {run}/.stale/1" in log
    assert [e["step"] for e in read_history_lines(run)] == [1, 2, 2]
    assert json.loads((run / "checkpoint.json").read_text())["kept"] == ["step_2"]
    assert (run / ".stale" / "1" / "step_24" / "manifest.json").exists()


def test_a_changed_course_starts_anew_and_a_mistyped_option_costs_nothing(trained, tmp_path):
    folder, options, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "zero1", run)
    (run / "hf").mkdir()  # what was exported from it
    more = [*options, "--restart_if_changed", "true"]
    log = run_training([*more, "--max_steps", "3"], run, folder / "zero1.json")
    assert f"(it had total_steps 24, now it is 3) is in {run}/.stale/1" in log
    assert [e["step"] for e in read_history_lines(run)] == [1, 2, 3, 3]
    assert (run / ".stale" / "1" / "hf").is_dir() and not (run / "hf").exists()
    log = run_training(more, run, folder / "zero1.json")
    assert f"{run}/.stale/1; it is back" in log and "is finished already" in log
    assert read_history_lines(run) == read_history_lines(folder / "zero1")
    assert (run / "hf").is_dir() and (run / ".stale" / "2" / "step_3").is_dir()


def test_one_training_a_directory(trained, tmp_path):
    folder, options, _ = trained
    run = tmp_path / "run"
    process = start(folder, options, run)
    wait_for(process, lambda: steps_on_record(run) >= 1)
    process.send_signal(signal.SIGSTOP)
    try:
        assert "run: another process is at this job" in fails(folder, options, run)
    finally:
        process.kill()
        process.communicate()


VARIANTS = {
    "bfloat16": ("zero2", ["--dtype", "bfloat16"]),
    "bfloat16 in parts": ("zero3", ["--dtype", "bfloat16", "--gradient_checkpointing", "true"]),
    "adapters": ("zero2", ["--lora", "r=4", "--lora", "dropout=0.1"]),
    "off-load": ("offload", ["--loss_chunk_tokens", "50"]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_ways_to_train_learn_and_go_on_as_well(trained, tmp_path, name):
    folder, options, _ = trained
    config, more = VARIANTS[name]
    offload = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    (folder / "offload.json").write_text(json.dumps({"zero_optimization": offload}))
    more = [*options, *more, "--num_epochs", "1.8", "--save_interval_steps", "4"]
    run_training(more, tmp_path / "a", folder / f"{config}.json")
    whole = read_history_lines(tmp_path / "a")
    losses = [entry["loss"] for entry in whole if "loss" in entry]
    assert len(losses) == 9 and losses[-1] < losses[0]
    # As in float32, with all weights trained, before any step.
    plain = read_history_lines(folder / "zero1")[0]
    assert losses[0] == pytest.approx(plain["loss"], rel=2e-3)
    if name == "off-load":
        assert losses[0] == pytest.approx(plain["loss"], rel=1e-5)
    copy_back_to(8, tmp_path / "a", tmp_path / "b")
    log = run_training(more, tmp_path / "b", folder / f"{config}.json")
    assert "resumed at step 8 of 9" in log
    assert read_history_lines(tmp_path / "b") == whole


def test_gradients_of_micro_batches_are_added_up_in_float32(trained, tmp_path):
    """bfloat16 has three digits: the sum of 52 gradients in it is off by 0.6 %, else 0.2 %."""
    folder, options, _ = trained
    norms = {}
    for dtype in ("float32", "bfloat16"):
        more = ["--dtype", dtype, "--batch_sequences", "52", "--packing", "false"]
        more += ["--micro_batch_tokens", "1", "--max_steps", "1"]
        run_training([*options, *more], tmp_path / dtype, folder / "zero2.json")
        norms[dtype] = read_history_lines(tmp_path / dtype)[0]["grad_norm"]
    assert norms["bfloat16"] == pytest.approx(norms["float32"], rel=4e-3)


# What goes wrong ----------------------------------------------------------------------------


def poisoned(lm_dir, out):
    """The model with a NaN in the row of a word of one task alone."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    shutil.copytree(lm_dir, out)
    tensors = load_file(out / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(out)
    (word,) = {*tokenizer("\nHo", add_special_tokens=False).input_ids[-1:]}
    tensors["model.embed_tokens.weight"][word] = float("nan")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return word


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_is_not_finite_names_step_ranks_and_utterances(
    trained, lm_dir, tmp_path, ranks
):
    folder, options, _ = trained
    word = poisoned(lm_dir, tmp_path / "model")
    store = ExampleStore(folder / "train")
    bad = {store.key(n) for n in range(len(store)) if word in store.document(n).input_ids[:-1]}
    assert 0 < len(bad) < len(store)
    line = fails(
        folder, [*options, "--model", str(tmp_path / "model")], tmp_path / "run", ranks=ranks
    )
    found = re.search(
        r"loss is not finite at step (\d+): (rank [01]: .*); the last checkpoint", line
    )
    named = set(re.findall(r"[a-z]+:[\w.]+", found[2].replace("rank ", "").split(": ", 1)[1]))
    assert named and named <= bad, line
    assert int(found[1]) == steps_on_record(tmp_path / "run") + 1


INFINITE = """
import sys
from espnet_spire.bin import spire_train
from espnet_spire.model import loading
plain = loading.load_lm
def load_lm(*args, **options):
    lm = plain(*args, **options)
    lm.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    return lm
loading.load_lm = load_lm
from espnet_spire.utils.cli import run
run(lambda cmd: spire_train.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("config", ["zero0", "zero2"])
def test_a_gradient_that_is_not_finite(trained, tmp_path, config):
    folder, options, _ = trained
    command = train_command(options, tmp_path / "run", folder / f"{config}.json")
    command = [command[0], "-c", INFINITE, *command[3:]]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        r"error: gradient norm is (inf|nan) at step 1, although the loss is finite",
        done.stderr.splitlines()[-1],
    ), done.stderr[-2000:]


def limit_files():
    """No file may grow beyond 100 KB: what a full disk does, without filling one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    trained, trained_two_ranks, tmp_path, ranks
):
    """Neither hangs: all ranks come to the barrier, and to the message."""
    folder, options, _ = trained
    run, config = tmp_path / "run", "zero3" if ranks == 2 else "zero1"
    copy_back_to(20, trained_two_ranks[0] if ranks == 2 else folder / config, run)
    before = json.loads((run / "checkpoint.json").read_text())
    line = fails(folder, options, run, config=config, ranks=ranks, preexec_fn=limit_files)
    assert re.search(
        r"step_\d+: cannot be written \(rank 0: .*GiB are free on the device\); the checkpoint"
        r" before it is intact: make room and start the same command again",
        line,
    )
    assert json.loads((run / "checkpoint.json").read_text()) == before
    assert {path.name for path in run.glob("step_*")} == set(before["kept"])
    run_training(options, run, folder / f"{config}.json", ranks=ranks)
    nearly(read_history_lines(folder / "zero1"), read_history_lines(run))


def test_an_example_longer_than_a_sequence(trained, tmp_path):
    folder, options, _ = trained
    line = fails(folder, [*options, "--sequence_length", "30"], tmp_path / "run")
    assert re.search(r"has \d+ tokens, --sequence_length is 30; raise it or lower max_length", line)
