"""Texts to tables: keys in order, budgets as sorting all would keep them, lists of the rest."""

import subprocess
from pathlib import Path

import pytest

from espnet_spire.corpus.records import Fault, LeftOut
from espnet_spire.corpus.texts import Draw, Text, breaks_kept, key_names, line_key, write_texts
from espnet_spire.train.selection import Limits, sample_hash
from espnet_spire.utils.datadir import read_rejected, read_table
from espnet_spire.utils.errors import SpireError

NO_LIMITS = Limits(None, None)


def write(items, folder, limits=NO_LIMITS, seed=0, max_rejected=0.0, tables=1):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"t{number}" for number in range(tables)]
    count = write_texts(
        items,
        paths,
        limits=limits,
        seed=seed,
        name="set",
        work=folder,
        rejected=folder / "rejected.tsv",
        left_out=folder / "left_out.tsv",
        max_rejected=max_rejected,
    )
    return count, [read_table(path) for path in paths]


def texts(number):
    """Texts of 1 to 7 bytes, of which the key says how many."""
    return [Text(line_key("f", n), ("é" * (n % 4) + "x" * (1 + n % 3),)) for n in range(number)]


def first_in_order(items, seed, max_bytes, max_texts):
    """What a budget keeps, by sorting everything."""
    kept, size = {}, 0
    for item in sorted(items, key=lambda item: sample_hash(seed, "set", item.key)):
        size += len(item.values[0].encode())
        if size > max_bytes or len(kept) == max_texts:
            break
        kept[item.key] = item.values[0]
    return kept


@pytest.mark.parametrize(
    ("max_bytes", "max_texts"), [(1, 10**6), (700, 10**6), (10**6, 33), (700, 60), (10**6, 10**6)]
)
def test_a_budget_keeps_the_first_in_a_random_order(tmp_path, monkeypatch, max_bytes, max_texts):
    monkeypatch.setattr("espnet_spire.corpus.texts._FIRST_ROOM", 16)  # so that it forgets often
    items = texts(3000)
    expected = first_in_order(items, 5, max_bytes, max_texts)
    if not expected:
        with pytest.raises(SpireError, match="set: none of 3,000 texts is left; see --max_bytes"):
            write(items, tmp_path, Limits(max_bytes, max_texts), seed=5)
        return
    count, (table,) = write(items, tmp_path, Limits(max_bytes, max_texts), seed=5)
    assert table == expected and list(table) == sorted(table)
    assert (count.kept, count.bytes) == (
        len(table),
        sum(len(text.encode()) for text in table.values()),
    )
    assert not (tmp_path / "candidates.jsonl").exists()


def test_a_draw_is_seeded_and_a_larger_one_keeps_what_a_smaller_one_kept(tmp_path):
    items = texts(500)
    small = write(items, tmp_path, Limits(None, 50))[1][0]
    assert write(items, tmp_path, Limits(None, 50))[1][0] == small
    assert set(small) < set(write(items, tmp_path, Limits(None, 90))[1][0])
    assert set(small) != set(write(items, tmp_path, Limits(None, 50), seed=1)[1][0])
    # uniform: of each tenth of the file some
    assert {int(key[-3:]) // 50 for key in small} >= set(range(9))


def test_what_a_draw_remembers_does_not_grow_with_what_it_saw(monkeypatch):
    monkeypatch.setattr("espnet_spire.corpus.texts._FIRST_ROOM", 64)
    draw = Draw(Limits(None, 100))
    kept = sum(draw.may_keep(sample_hash(0, "", str(n)), 1) for n in range(50_000))
    assert len(draw._facts) == 256
    assert 100 <= kept < 3000  # far fewer are written aside than there are
    places = sorted(sample_hash(0, "", str(n)) for n in range(50_000))
    assert draw.border() == places[100]


def test_pairs_share_keys_and_what_is_no_text_is_listed(tmp_path):
    items = [
        Text("f#1", ("a", "b")),
        Fault("f#2", "not valid UTF-8", "f, line 2"),
        LeftOut("f#3", "it is empty (f, line 3)"),
        Text("f#4", ("c", "d\u2028e")),
    ]
    count, tables = write(items, tmp_path, tables=2, max_rejected=0.25)
    assert tables == [{"f#1": "a", "f#4": "c"}, {"f#1": "b", "f#4": "d\u2028e"}]
    assert tuple(count) == (4, 1, 1, 2, 8)
    assert read_rejected(tmp_path / "rejected.tsv") == {"f#2": "not valid UTF-8 (f, line 2)"}
    assert read_rejected(tmp_path / "left_out.tsv") == {"f#3": "it is empty (f, line 3)"}
    message = "set: 1 of 4 texts are unusable, first f#2: not valid UTF-8 .*all in .*rejected.tsv"
    with pytest.raises(SpireError, match=message):
        write(items, tmp_path, tables=2, max_rejected=0.24)


def test_keys_are_in_the_order_of_the_c_locale(tmp_path):
    paths = [Path(name) for name in ("d/b", "d/a-1.jsonl.gz", "d/a.jsonl", "d/a x/é!.txt", "d/a+")]
    names = key_names(paths)
    assert names == {
        "a": Path("d/a.jsonl"),
        "a+": Path("d/a+"),
        "a-1": Path("d/a-1.jsonl.gz"),
        "a_x_": Path("d/a x/é!.txt"),
        "b": Path("d/b"),
    }
    keys = [line_key(name, number) for name in names for number in (2, 10)]
    done = subprocess.run(
        ["sort"], input="\n".join(keys), env={"LC_ALL": "C"}, capture_output=True, text=True
    )
    assert done.stdout.split() == keys
    assert key_names([Path("/x/y.txt")]) == {"y": Path("/x/y.txt")}


def test_files_that_keys_cannot_tell_apart():
    with pytest.raises(SpireError, match="d/a_b and d/a b: one name in keys, a_b; rename a file"):
        key_names([Path("d/a b"), Path("d/a_b")])


def test_line_breaks_stay_as_separators():
    assert breaks_kept("\na\r\n\r\nb\rc\vd\u0085e\u2029f\tg ") == (
        "a\u2028\u2028b\u2028c\u2028d\u2028e\u2028f g"
    )
