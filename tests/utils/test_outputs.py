"""What may be replaced, and what not."""

import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.outputs import check_output


def test_an_output_is_or_contains_no_input(tmp_path):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "text").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    given = tmp_path / "data" / "raw" / "text"
    for out in ("data", "data/raw", "data/../data/raw", "link", "link/raw", "."):
        with pytest.raises(SpireError, match="--out .* and .*/data/raw/text is read from there"):
            check_output(tmp_path / out, inputs=[given], marks=[])
    with pytest.raises(SpireError, match="is read from there"):
        check_output(given, inputs=[tmp_path / "link" / "raw" / "text"])
    check_output(tmp_path / "data" / "raw" / "new", inputs=[given], marks=["m"])
    check_output(tmp_path / "data" / "ra", inputs=[given], marks=["m"])
    check_output(tmp_path / "new.jsonl", inputs=[given])


def test_a_directory_is_replaced_if_it_is_empty_or_has_the_marks(tmp_path):
    out = tmp_path / "out"
    check_output(out, inputs=[], marks=["a", "b"])
    out.mkdir()
    check_output(out, inputs=[], marks=["a", "b"])
    (out / "a").write_text("")
    with pytest.raises(SpireError, match=r"out has files of something else in it \(no b\)"):
        check_output(out, inputs=[], marks=["a", "b"])
    (out / "b").mkdir()
    (out / "c").mkdir()
    check_output(out, inputs=[], marks=["a", "b"])
    with pytest.raises(SpireError, match="a is a file; name a directory"):
        check_output(out / "a", inputs=[], marks=["a"])
    with pytest.raises(SpireError, match="out is a directory; name a file"):
        check_output(out, inputs=[])
    check_output(out / "a", inputs=[])
