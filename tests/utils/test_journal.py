import json

import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.journal import Journal, read_journal

SETTINGS = {"layer": 22, "eps": 1e-7, "name": "Größe"}


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "new" / "journal"
    journal = Journal(path, SETTINGS)
    assert list(journal.records()) == []
    records = [{"n": 1}, {"n": 2, "text": "zwei\nLinien"}, {"n": 3}]
    for record in records:
        journal.append(record)
    assert list(journal.records()) == records
    with pytest.raises(SpireError, match="journal: another process is at this job"):
        Journal(path, SETTINGS)
    journal.close()
    assert list(Journal(path, SETTINGS).records()) == records
    assert next(read_journal(path, header=True)) == {"settings": SETTINGS}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_every_torn_tail_is_cut_off_and_can_be_written_again(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, SETTINGS)
    for number in range(2):
        journal.append({"n": number, "long": "x" * 40})
    journal.close()
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        again = Journal(path, SETTINGS)
        complete = sum(size >= end for end in ends)
        assert len(list(again.records())) == max(0, complete - 1)
        for number in range(max(0, complete - 1), 2):
            again.append({"n": number, "long": "x" * 40})
        again.close()
        assert path.read_bytes() == whole


def test_a_torn_line_longer_than_a_block(tmp_path):
    path = tmp_path / "journal"
    Journal(path, SETTINGS).append({"n": 0})
    kept = path.read_bytes()
    path.write_bytes(kept + b"x" * 200_000)
    assert list(Journal(path, SETTINGS).records()) == [{"n": 0}]
    assert path.read_bytes() == kept
    path.write_bytes(b"y" * 200_000)
    assert list(Journal(path, SETTINGS).records()) == []


def test_reading_leaves_a_torn_line_alone(tmp_path):
    path = tmp_path / "journal"
    Journal(path, SETTINGS).append({"n": 0})
    torn = path.read_bytes() + b'{"n": 1'
    path.write_bytes(torn)
    assert list(read_journal(path)) == [{"n": 0}]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": 21}, "earlier work had layer 22, this has 21; moved to"),
        ({"seed": 1}, "earlier work had seed None, this has 1; moved to"),
    ],
)
def test_other_settings_begin_anew_and_say_why(tmp_path, caplog, change, message):
    path = tmp_path / "journal"
    Journal(path, SETTINGS).append({"n": 0})
    journal = Journal(path, {**SETTINGS, **change})
    assert list(journal.records()) == []
    assert message in caplog.text
    assert next(read_journal(path, header=True))["settings"] == {**SETTINGS, **change}
    # nothing is lost
    assert list(read_journal(f"{path}.stale")) == [{"n": 0}]


def test_a_file_that_is_no_journal(tmp_path, caplog):
    path = tmp_path / "journal"
    path.write_text(json.dumps({"other": 1}) + "\n")
    assert list(Journal(path, SETTINGS).records()) == []
    assert "not a journal of this job" in caplog.text


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, SETTINGS)
    with open(path, "a") as stream:
        stream.write("\x00\x00\x00\n")
    journal.append({"n": 1})
    with pytest.raises(SpireError, match="journal, line 2: not JSON"):
        list(journal.records())
    with pytest.raises(SpireError, match="no such journal"):
        list(read_journal(tmp_path / "none"))


def test_disk_full_is_one_line(tmp_path, monkeypatch):
    import errno
    import os

    journal = Journal(tmp_path / "journal", SETTINGS)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(SpireError, match="journal: no space left on the device"):
        journal.append({"n": 1})


@pytest.mark.parametrize("then", ["removed", "replaced"])
def test_a_journal_that_goes_while_it_is_opened(tmp_path, monkeypatch, then):
    """What is written afterwards is in the file that others read."""
    from espnet_spire.utils import journal as module

    path = tmp_path / "journal"
    path.touch()
    once = iter([True])
    lock = module.lock

    def late(stream, name):
        if next(once, False):
            path.unlink() if then == "removed" else (tmp_path / "other").replace(path)
        lock(stream, name)

    (tmp_path / "other").touch()
    monkeypatch.setattr(module, "lock", late)
    Journal(path, SETTINGS).append({"n": 1})
    assert list(read_journal(path)) == [{"n": 1}]
