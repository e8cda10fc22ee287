"""The directory that k-means works in: who may, with what, and how it goes away."""

import threading
import time

import pytest

from espnet_spire.units.workdir import (
    begun_with,
    claim,
    claim_encoder,
    encoder_of,
    finish_removal,
    one_at_a_time,
    only_one,
    removal_begun,
    remove_work,
    work_directory,
)
from espnet_spire.utils.errors import SpireError


def test_work_lies_beside_the_codebook(tmp_path):
    work = work_directory(tmp_path / "km_500.clusters")
    assert work == tmp_path / "km_500.clusters.work"
    assert begun_with(work) is None and not work.exists()


def test_the_first_difference_is_named(tmp_path):
    path = tmp_path / "w" / "settings.json"
    facts = {"hours": 1.5, "data_dir": ["a", "b"], "eps": None}
    claim(path, facts)
    claim(path, facts)
    assert begun_with(tmp_path / "w") == facts
    for changed, message in (
        ({**facts, "hours": 2.0}, "w: begun with hours 1.5, now 2.0: go on with what it was"),
        ({**facts, "data_dir": ["a"]}, r"begun with data_dir \['a', 'b'\], now \['a'\]"),
        ({**facts, "new": 3}, "begun with new None, now 3"),
        ({"data_dir": ["a", "b"]}, "begun with hours 1.5, now None: .* or remove the directory"),
    ):
        with pytest.raises(SpireError, match=message):
            claim(path, changed)
    claim(path, {**facts, "new": None})


def test_one_encoder_for_all_jobs(tmp_path):
    description = {"encoder": "e", "layer": 2, "weights": "a1"}
    claim_encoder(tmp_path, description)
    claim_encoder(tmp_path, description)
    assert encoder_of(tmp_path) == description
    with pytest.raises(SpireError, match="begun with weights a1, now b2"):
        claim_encoder(tmp_path, {**description, "weights": "b2"})


def test_who_begins_waits(tmp_path, caplog):
    caplog.set_level("INFO")
    order = []

    def second():
        with one_at_a_time(tmp_path):
            order.append("second")

    with one_at_a_time(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_clusters_does_not_wait(tmp_path):
    with only_one(tmp_path):
        with pytest.raises(SpireError, match="cluster.lock: another process is at this job"):
            with only_one(tmp_path):
                pass
    with only_one(tmp_path):
        pass
    with pytest.raises(SpireError, match="gone: another process has just finished it"):
        with only_one(tmp_path / "gone"):
            pass
    assert not (tmp_path / "gone").exists()


def test_removal_through_a_kill(tmp_path):
    work = tmp_path / "book.work"
    work.mkdir()
    (work / "frames").write_text("frames")
    assert not removal_begun(work)
    remove_work(work)
    assert list(tmp_path.iterdir()) == []
    remove_work(work)  # another process was first
    # as a kill leaves it
    (tmp_path / ".book.work.tmp.removed").mkdir()
    assert removal_begun(work)
    work.mkdir()
    assert not removal_begun(work)  # begun anew since
    remove_work(work)
    assert list(tmp_path.iterdir()) == []
    finish_removal(work)
