"""What a run leaves to be looked at, also when it was killed in between."""

import json
import logging
import warnings

import pytest

from espnet_spire.train.records import MEASURED, Records, read_entries


def entry(step, loss, **more):
    measured = dict.fromkeys(MEASURED, 100.0)
    return {"step": step, "loss": loss, "loss_st.en-de": loss, "lr": 1e-3, **measured, **more}


def start(run, step=0, **more):
    options = {"interval": 3, "log_interval": 2, "tensorboard": False, **more}
    return Records(run, step=step, **options)


def run_to(records, first, last):
    for step in range(first, last + 1):
        records.add(entry(step, 10.0 / step))


def test_history_is_cut_where_the_run_goes_on(tmp_path):
    records = start(tmp_path)
    run_to(records, 1, 5)
    with open(tmp_path / "history.jsonl", "a") as stream:
        stream.write('{"step": 6, "lo')
    records = start(tmp_path, step=3)
    assert [e["step"] for e in read_entries(tmp_path / "history.jsonl")] == [1, 2, 3]
    run_to(records, 4, 7)
    entries = read_entries(tmp_path / "history.jsonl")
    assert entries == [entry(step, 10.0 / step) for step in range(1, 8)]
    start(tmp_path, step=0)
    assert read_entries(tmp_path / "history.jsonl") == []


def test_espnets_reporter_speaks_after_each_interval(tmp_path, caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        records = start(tmp_path)
        run_to(records, 1, 4)
        records.add({"step": 4, "valid_loss": 5.0, "valid_loss_st.en-de": 5.0})
        run_to(records, 5, 7)
        records.close()
    text = caplog.text
    assert "1epoch:train:1-2batch: loss=7.500" in text  # (10 + 5) / 2
    assert "1epoch results: [train] loss=6.111" in text  # (10 + 5 + 3.33) / 3
    assert "2epoch results: [train] loss=2.056" in text and "[valid] loss=5.000" in text
    assert "3epoch results: [train] loss=1.429" in text
    # languages are left to TensorBoard
    assert "en-de" not in text
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        *("loss.png", "lr.png", "tokens_per_second.png", "target_tokens_per_second.png"),
        *("share_of_peak.png", "memory_gib.png"),
    }


def test_a_resumed_run_reports_as_an_undisturbed_one(tmp_path, caplog):
    records = start(tmp_path)
    run_to(records, 1, 5)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        records = start(tmp_path, step=5)
        assert "results" not in caplog.text  # nothing is said twice
        run_to(records, 6, 7)
    # the mean of steps 4 to 6 although the process saw step 6 only
    assert "2epoch results: [train] loss=2.056" in caplog.text


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = start(tmp_path, tensorboard=True)
    run_to(records, 1, 4)
    records.add({"step": 4, "valid_loss": 5.0})
    records.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/loss_st.en-de", "valid/loss", "speed/memory_gib"} <= {
        *events.Tags()["scalars"]
    }
    found = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert found == [(s, pytest.approx(10.0 / s)) for s in range(1, 5)]


def test_curves(tmp_path):
    records = start(tmp_path)
    run_to(records, 1, 4)
    records.draw()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_ends_nothing(tmp_path, caplog):
    (tmp_path / "curves.png").mkdir()
    (tmp_path / "images").write_text("")
    records = start(tmp_path)
    with caplog.at_level(logging.WARNING):
        run_to(records, 1, 4)
        records.draw()
        records.close()
    assert "curves are not drawn" in caplog.text and "images are not drawn" in caplog.text


def test_values_that_are_not_there(tmp_path):
    records = start(tmp_path, tensorboard=True)
    records.add(entry(1, 2.0, share_of_peak=None))
    records.close()
    assert json.loads((tmp_path / "history.jsonl").read_text())["share_of_peak"] is None
