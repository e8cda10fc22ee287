"""Which checkpoints are whole, which stay, and which is the best."""

import json
import logging

import pytest

from espnet_spire.train.checkpoints import (
    Best,
    Pointer,
    advance_pointer,
    bring_back,
    checkpoint_tag,
    clean_up,
    damage,
    forget_best,
    is_moving,
    newest_whole,
    read_manifest,
    read_pointer,
    set_aside,
    write_manifest,
)
from espnet_spire.utils.errors import SpireError


def save(run, step, keep=2, **more):
    directory = run / f"step_{step}"
    (directory / "deep").mkdir(parents=True, exist_ok=True)
    (directory / "deep" / "weights").write_text(str(step))
    write_manifest(directory, {"step": step})
    advance_pointer(run, f"step_{step}", keep=keep, **more)


def steps(run):
    return sorted(path.name for path in run.glob("step_*"))


def test_the_last_k_are_kept(tmp_path):
    assert read_pointer(tmp_path) is None and newest_whole(tmp_path) is None
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert read_pointer(tmp_path) == Pointer("step_15", ["step_10", "step_15"], None, False)
    assert steps(tmp_path) == ["step_10", "step_15"]
    save(tmp_path, 15, finished=True)  # the same step again is no further one
    assert read_pointer(tmp_path) == Pointer("step_15", ["step_10", "step_15"], None, True)
    save(tmp_path, 20, keep=1)
    assert steps(tmp_path) == ["step_20"]


def test_the_best_stays_besides(tmp_path):
    for step, loss in ((5, 3.0), (10, 2.0), (15, 2.5), (20, None), (25, 2.0)):
        save(tmp_path, step, keep=1, valid_loss=loss)
        assert read_pointer(tmp_path).tag == f"step_{step}"
    # 2.0 again is not lower
    assert read_pointer(tmp_path).best == Best("step_10", 2.0)
    assert steps(tmp_path) == ["step_10", "step_25"]
    save(tmp_path, 30, keep=1, valid_loss=1.0)
    assert steps(tmp_path) == ["step_30"]


def test_tags_by_name(tmp_path):
    with pytest.raises(SpireError, match="no checkpoint; run spire_train"):
        checkpoint_tag(tmp_path, "last")
    save(tmp_path, 5)
    with pytest.raises(SpireError, match="none is the best"):
        checkpoint_tag(tmp_path, "best")
    save(tmp_path, 10, valid_loss=2.0)
    save(tmp_path, 15)
    assert [checkpoint_tag(tmp_path, w) for w in ("last", "best", "step_10")] == [
        *("step_15", "step_10", "step_10")
    ]
    with pytest.raises(SpireError, match="no checkpoint 'step_5', there are"):
        checkpoint_tag(tmp_path, "step_5")
    (tmp_path / "step_15" / "deep" / "weights").write_text("longer than it was")
    with pytest.raises(SpireError, match="step_15 is not whole: deep/weights has 18 bytes, not 2"):
        checkpoint_tag(tmp_path, "last")


def test_what_no_pointer_knows_is_removed_and_named(tmp_path, caplog):
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "step_15").mkdir()
    (tmp_path / "step_15" / "half").write_text("")
    with caplog.at_level(logging.WARNING):
        tag = newest_whole(tmp_path)
        clean_up(tmp_path, tag)
    assert tag == "step_10"
    assert steps(tmp_path) == ["step_10", "step_5"]
    assert f"{tmp_path}/step_15 is half written" in caplog.text and "step_10" not in caplog.text


def test_the_first_checkpoint_half_written(tmp_path):
    (tmp_path / "step_5").mkdir()
    clean_up(tmp_path, newest_whole(tmp_path))
    assert steps(tmp_path) == []


@pytest.mark.parametrize("kind", ["missing", "short", "manifest", "directory"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, caplog, kind):
    save(tmp_path, 5, valid_loss=3.0)
    save(tmp_path, 10, valid_loss=2.0)
    weights = tmp_path / "step_10" / "deep" / "weights"
    if kind == "missing":
        weights.unlink()
    elif kind == "short":
        weights.write_text("1")
    elif kind == "manifest":
        (tmp_path / "step_10" / "manifest.json").unlink()
    else:
        for path in (weights, weights.parent, tmp_path / "step_10" / "manifest.json"):
            path.rmdir() if path.is_dir() else path.unlink()
        weights.parent.parent.rmdir()
    assert damage(tmp_path / "step_10") and not damage(tmp_path / "step_5")
    with caplog.at_level(logging.WARNING):
        assert newest_whole(tmp_path) == "step_5"
    assert "step_10 is not whole" in caplog.text
    clean_up(tmp_path, "step_5")
    assert read_pointer(tmp_path) == Pointer("step_5", ["step_5"], None, False)
    assert steps(tmp_path) == ["step_5"]


def test_none_is_whole(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step_5" / "deep" / "weights").unlink()
    with pytest.raises(SpireError, match="step_5: deep/weights is missing, and no other .* remove"):
        newest_whole(tmp_path)
    set_aside(tmp_path)
    assert newest_whole(tmp_path) is None


def make_run(run, number):
    save(run, 5)
    write_manifest(run / "step_5", {"number": number})
    for name in ("history.jsonl", "train_plan.json", "config.yaml", ".lock"):
        (run / name).write_text(str(number))
    (run / "hf").mkdir()
    (run / ".steps").mkdir()


def test_a_run_is_set_aside_with_all_that_was_made_from_it(tmp_path):
    assert set_aside(tmp_path) is None
    for number in (1, 2):
        make_run(tmp_path, number)
        assert set_aside(tmp_path) == tmp_path / ".stale" / str(number)
    here = {path.name for path in tmp_path.iterdir()}
    assert here == {".stale", "train_plan.json", "config.yaml", ".lock"}
    for number in (1, 2):
        old = tmp_path / ".stale" / str(number)
        assert newest_whole(old) == "step_5" and (old / "hf").is_dir() and (old / ".steps").is_dir()
        assert (old / "history.jsonl").read_text() == str(number)


def test_a_run_half_set_aside_is_no_run(tmp_path):
    make_run(tmp_path, 1)
    aside = tmp_path / ".stale" / "1"
    aside.mkdir(parents=True)
    (aside / ".moving").touch()
    (tmp_path / "step_5").rename(aside / "step_5")  # killed here
    assert is_moving(tmp_path)
    assert set_aside(tmp_path) == aside and not is_moving(tmp_path)
    assert newest_whole(aside) == "step_5" and read_pointer(tmp_path) is None


def test_a_run_comes_back(tmp_path):
    for number in (1, 2, 3):
        make_run(tmp_path, number)
        set_aside(tmp_path)
    assert bring_back(tmp_path, lambda made: made["number"] == 4) is None
    back = bring_back(tmp_path, lambda made: made["number"] == 2)
    assert back == tmp_path / ".stale" / "2" and not back.exists()
    assert newest_whole(tmp_path) == "step_5" and (tmp_path / "hf").is_dir()
    assert (tmp_path / "history.jsonl").read_text() == "2"


def test_the_best_is_of_one_validation_set(tmp_path):
    save(tmp_path, 5, valid_loss=1.0)
    forget_best(tmp_path)
    assert read_pointer(tmp_path) == Pointer("step_5", ["step_5"], None, False)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": 3}'])
def test_a_manifest_that_is_not_readable(tmp_path, text):
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "step_10" / "manifest.json").write_text(text)
    assert damage(tmp_path / "step_10") == "manifest.json is not readable"
    assert newest_whole(tmp_path) == "step_5"


def test_the_manifest(tmp_path):
    save(tmp_path, 5)
    assert read_manifest(tmp_path / "step_5") == {"step": 5, "files": {"deep/weights": 1}}
    # What other machines wrote may not be seen here yet.
    write_manifest(tmp_path / "step_5", {"step": 5}, {"deep/weights": 1, "of rank 1": 7})
    assert damage(tmp_path / "step_5") == "of rank 1 is missing"


@pytest.mark.parametrize("text", ['{"tag"', '{"tag": "step_5"}', "[]"])
def test_a_broken_pointer_is_an_error(tmp_path, text):
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(SpireError, match="checkpoint.json: "):
        read_pointer(tmp_path)


def test_pointers_are_plain_json(tmp_path):
    save(tmp_path, 5, valid_loss=1.5)
    value = json.loads((tmp_path / "checkpoint.json").read_text())
    assert value == {
        "tag": "step_5",
        "kept": ["step_5"],
        "best": {"tag": "step_5", "valid_loss": 1.5},
        "finished": False,
    }
