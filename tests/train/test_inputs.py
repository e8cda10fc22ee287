"""Whether a stream's files are what they were."""

import os

import pytest

from espnet_spire.train.inputs import check_unchanged, inputs_of
from espnet_spire.train.sources import streams_of
from espnet_spire.utils.errors import SpireError


def stream(tmp_path, **source):
    return streams_of({"name": "n", **source}, "units")[0]


def test_every_file_of_a_stream_counts(tmp_path):
    names = ["text.tc.de", "text", "units", "units.rejected.tsv"]
    for name in names[:3]:
        (tmp_path / name).write_text("a 1\n")
    speech = stream(tmp_path, task="st", data_dir=str(tmp_path), targets=["de"])
    known = inputs_of(speech)
    assert [os.path.basename(path) for path, _ in known] == names
    check_unchanged(known)
    for name in names:  # the last one comes to be
        known = inputs_of(speech)
        (tmp_path / name).write_text("a 12\n")
        with pytest.raises(SpireError, match=f"{name}: changed while it was read; start the same"):
            check_unchanged(known)
    known = inputs_of(speech)
    (tmp_path / "text").unlink()
    with pytest.raises(SpireError, match="text: changed while it was read"):
        check_unchanged(known)


def test_a_directory_counts_with_all_that_is_in_it(tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "dangling").symlink_to(tmp_path / "nowhere")
    chat = stream(tmp_path, task="chat", file=str(tmp_path / "hub"))
    known = inputs_of(chat)
    check_unchanged(known)
    (tmp_path / "hub" / "data" / "train.parquet").write_text("x")
    with pytest.raises(SpireError, match="hub: changed"):
        check_unchanged(known)
