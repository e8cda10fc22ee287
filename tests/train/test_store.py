"""Examples read from Arrow where they lie."""

import json
import shutil

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value, concatenate_datasets

from espnet_spire.train.collate import collate
from espnet_spire.train.store import ExampleStore, documents_of
from espnet_spire.utils.errors import SpireError

FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "target_spans": List(Value("int32")),
        "length": Value("int32"),
        "num_targets": Value("int32"),
        "task": Value("string"),
        "lang": Value("string"),
        "key": Value("string"),
    }
)


def rows(count, *, task="asr", lang="en", start=0):
    """Example n has ids 100n, 100n + 1, … of length 3 + n % 5, with loss on all but the first."""
    found = []
    for number in range(start, start + count):
        length = 3 + number % 5
        found.append(
            {
                "input_ids": [100 * number + i for i in range(length)],
                "target_spans": [1, length],
                "length": length,
                "num_targets": length - 1,
                "task": task,
                "lang": lang,
                "key": f"{task}:utt{number}",
            }
        )
    return found


def write(path, data, **options):
    data = data if isinstance(data, Dataset) else Dataset.from_list(data, features=FEATURES)
    data.save_to_disk(path / "dataset", **options)
    return path


@pytest.fixture
def store(tmp_path):
    """2500 examples in several files and chunks, two of the parts cut out of larger ones."""
    parts = [
        Dataset.from_list(rows(1100), features=FEATURES).select(range(1000)),
        Dataset.from_list(rows(300, task="st", lang="en-de", start=1000), features=FEATURES),
        Dataset.from_list(rows(1300, task="asr", lang="fr", start=1200), features=FEATURES),
    ]
    parts[2] = parts[2].select(range(100, 1300))
    return ExampleStore(write(tmp_path, concatenate_datasets(parts), num_shards=3))


def test_every_example_is_found_in_its_chunk(store):
    assert len(store) == 2500
    assert store.groups == [("asr", "en"), ("asr", "fr"), ("st", "en-de")]
    draw = np.random.default_rng(0)
    for index in [0, 999, 1000, 1299, 1300, 2499, *draw.integers(0, 2500, 200).tolist()]:
        number = index
        length = 3 + number % 5
        found = store.document(index)
        assert found.input_ids.tolist() == [100 * number + i for i in range(length)]
        assert found.target_spans.tolist() == [[1, length]]
        task = "st" if 1000 <= index < 1300 else "asr"
        assert store.key(index) == f"{task}:utt{number}"
        lang = "en-de" if task == "st" else "en" if index < 1000 else "fr"
        assert store.groups[store.group(index)] == (task, lang)


def test_numbers_of_many_examples_in_the_order_asked_for(store):
    indices = np.random.default_rng(1).permutation(2500)
    lengths = store.lengths(indices)
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [3 + index % 5 for index in indices]
    assert store.num_targets(indices).tolist() == [2 + index % 5 for index in indices]
    assert store.lengths(np.array([7, 7, 0])).tolist() == [5, 5, 3]
    assert store.lengths(np.array([], dtype=np.int64)).tolist() == []


def test_what_is_not_there(store):
    for index in (2500, -1):
        with pytest.raises(IndexError):
            store.lengths(np.array([0, index]))
        with pytest.raises(IndexError):
            store.document(index)
        with pytest.raises(IndexError):
            store.key(index)


def test_nothing_is_copied(store):
    found = store.document(1234)
    assert not found.input_ids.flags.writeable and not found.input_ids.flags.owndata
    assert found.input_ids.dtype == np.int32


def test_several_spans(tmp_path):
    row = {**rows(1)[0], "input_ids": [1, 2, 3, 4, 5], "target_spans": [1, 2, 4, 5], "length": 5}
    store = ExampleStore(write(tmp_path, [row]))
    assert store.document(0).target_spans.tolist() == [[1, 2], [4, 5]]


def test_a_file_listed_twice_is_there_twice(tmp_path):
    path = write(tmp_path, rows(10))
    state = json.loads((path / "dataset" / "state.json").read_text())
    state["_data_files"] *= 2
    (path / "dataset" / "state.json").write_text(json.dumps(state))
    store = ExampleStore(path)
    assert len(store) == 20 and store.key(13) == store.key(3) == "asr:utt3"


def test_rows_of_sequences(store):
    found = documents_of(store, [np.array([3, 1]), np.array([2])])
    assert [len(row) for row in found] == [2, 1]
    assert collate(found, pad_id=0).input_ids.tolist() == [
        [300, 301, 302, 303, 304, 305, 100, 101, 102, 103],
        [200, 201, 202, 203, 204, 0, 0, 0, 0, 0],
    ]
    assert documents_of(store, []) == []


@pytest.mark.parametrize("spans", [[0, 3], [1, 4], [2, 1], [1, 2, 3], [2, 3, 1, 2], []])
def test_spans_that_are_none(tmp_path, spans):
    store = ExampleStore(write(tmp_path, [{**rows(1)[0], "target_spans": spans}]))
    with pytest.raises(SpireError, match="example asr:utt0 has target_spans .* make_examples"):
        store.document(0)


def test_directories_that_are_no_examples(tmp_path):
    with pytest.raises(SpireError, match="dataset: no such examples; make them with make_examples"):
        ExampleStore(tmp_path)
    (tmp_path / "dataset").mkdir()
    with pytest.raises(SpireError, match="not readable as examples"):
        ExampleStore(tmp_path)
    path = write(tmp_path / "cut", rows(2000))
    (arrow,) = (path / "dataset").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:500])
    with pytest.raises(SpireError, match="not readable as examples"):
        ExampleStore(path)
    shutil.rmtree(path / "dataset")
    write(path, Dataset.from_list(rows(3), features=FEATURES).remove_columns("target_spans"))
    with pytest.raises(SpireError, match="no column target_spans; make examples with"):
        ExampleStore(path)
    shutil.rmtree(path / "dataset")
    old = {**FEATURES, "input_ids": List(Value("int64"))}
    write(path, Dataset.from_list(rows(3), features=Features(old)))
    with pytest.raises(SpireError, match=r"column input_ids is list<.*int64>, not list<.*int32>"):
        ExampleStore(path)
