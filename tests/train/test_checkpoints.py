"""The pointer to whole checkpoints."""

import json
import logging

import pytest

from espnet_spire.train.checkpoints import (
    Pointer,
    advance_pointer,
    read_pointer,
    remove_unfinished,
)
from espnet_spire.utils.errors import SpireError


def save(run, step, keep=2, finished=False):
    (run / f"step_{step}").mkdir(exist_ok=True)
    (run / f"step_{step}" / "weights").write_text(str(step))
    advance_pointer(run, f"step_{step}", keep=keep, finished=finished)


def steps(run):
    return sorted(path.name for path in run.glob("step_*"))


def test_the_last_k_are_kept(tmp_path):
    assert read_pointer(tmp_path) is None
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert read_pointer(tmp_path) == Pointer("step_15", ["step_10", "step_15"], False)
    assert steps(tmp_path) == ["step_10", "step_15"]
    save(tmp_path, 15, finished=True)  # the same step again is no further one
    assert read_pointer(tmp_path) == Pointer("step_15", ["step_10", "step_15"], True)
    save(tmp_path, 20, keep=1)
    assert steps(tmp_path) == ["step_20"]


def test_what_no_pointer_knows_is_removed_and_named(tmp_path, caplog):
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "step_15").mkdir()
    (tmp_path / "step_15" / "half").write_text("")
    with caplog.at_level(logging.WARNING):
        remove_unfinished(tmp_path)
    assert steps(tmp_path) == ["step_10", "step_5"]
    assert f"{tmp_path}/step_15 is half written" in caplog.text and "step_10" not in caplog.text


def test_the_first_checkpoint_half_written(tmp_path):
    (tmp_path / "step_5").mkdir()
    remove_unfinished(tmp_path)
    assert steps(tmp_path) == []


def test_a_pointer_to_nothing_is_an_error(tmp_path):
    value = {"tag": "step_5", "kept": ["step_5"], "finished": False}
    (tmp_path / "checkpoint.json").write_text(json.dumps(value))
    with pytest.raises(SpireError, match="names step_5, which is not there; remove"):
        read_pointer(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"tag"')
    with pytest.raises(SpireError, match="checkpoint.json: not valid JSON"):
        read_pointer(tmp_path)
