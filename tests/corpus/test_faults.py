"""Faults on disk: in the order of their keys, each once, whatever their number."""

from espnet_spire.corpus import faults
from espnet_spire.corpus.faults import Faults
from espnet_spire.utils.datadir import iter_rejected, read_rejected
from espnet_spire.utils.external_sort import external_sort


def test_sorted_and_numbered(tmp_path):
    found = Faults(tmp_path / "work")
    assert len(found) == 0 and found.first is None
    for key in ("b", "a", "b", "b!", "", "b", "a\tb\nc"):
        found.add(key, f"no {len(found)}", "f, line 1")
    assert len(found) == 7 and found.first == ("b", "no 0 (f, line 1)")
    found.write(tmp_path / "rejected.tsv")
    assert read_rejected(tmp_path / "rejected.tsv") == {
        "?": "no 4 (f, line 1)",
        "a": "no 1 (f, line 1)",
        "a b c": "no 6 (f, line 1)",
        "b": "no 0 (f, line 1)",
        "b!": "no 3 (f, line 1)",
        "b#2": "no 2 (f, line 1)",
        "b#3": "no 5 (f, line 1)",
    }
    assert list((tmp_path / "work").iterdir()) == []
    # sorted, so that it can be read from a key on
    assert [key for key, _ in iter_rejected(tmp_path / "rejected.tsv", "b!")] == [
        "b!",
        "b#2",
        "b#3",
    ]


def test_more_than_fit_into_memory(tmp_path, monkeypatch):
    def small(rows, directory):
        return external_sort(rows, directory, rows_in_memory=7)

    monkeypatch.setattr(faults, "external_sort", small)
    found = Faults(tmp_path / "work")
    for number in range(100):
        found.add(f"k{number * 37 % 50:02d}", str(number), "f")
    found.write(tmp_path / "rejected.tsv")
    keys = list(read_rejected(tmp_path / "rejected.tsv"))
    assert len(keys) == 100 and keys == sorted(keys) and keys[:3] == ["k00", "k00#2", "k01"]
    assert read_rejected(tmp_path / "rejected.tsv")["k37#2"] == "51 (f)"


def test_none(tmp_path):
    Faults(tmp_path / "work").write(tmp_path / "rejected.tsv")
    assert (tmp_path / "rejected.tsv").read_text() == ""
