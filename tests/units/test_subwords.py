import hashlib
import json
from collections import Counter

import numpy as np
import pytest
import sentencepiece

from espnet_spire.units.notation import units_to_chars, units_to_line
from espnet_spire.units.subwords import (
    convert,
    learn_unit_bpe,
    load_unit_bpe,
    sample_sequences,
    train_model,
    unit_bpe_identity,
)
from espnet_spire.utils.errors import SpireError


def write_units(path, sequences):
    lines = (f"utt{i:05} {units_to_line(s)}".rstrip() + "\n" for i, s in enumerate(sequences))
    path.write_text("".join(lines))
    return path


def wordy(count, num_units, seed=0):
    """Sequences of some 60 units, made of 40 words that recur."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(0, num_units, rng.integers(2, 7)).tolist() for _ in range(40)]
    share = 1 / np.arange(1, 41)
    picks = rng.choice(40, (count, 15), p=share / share.sum())
    return [[unit for word in row for unit in words[word]] for row in picks]


def learn(tmp_path, sequences, num_units, vocab_size, **options):
    units = write_units(tmp_path / "learn.txt", sequences)
    options = {"max_utterances": 10**6, **options}
    learned = learn_unit_bpe([units], num_units, vocab_size, tmp_path / "bpe", **options)
    return load_unit_bpe(tmp_path / "bpe"), learned


def merge_by_hand(units, pieces, num_units):
    """BPE over lists: of all neighbours that make a piece, join those of the earliest one."""
    rank = {piece: number for number, piece in enumerate(pieces) if number >= num_units}
    parts = [(unit,) for unit in units]
    while True:
        found = [
            (rank[joined], place)
            for place in range(len(parts) - 1)
            if (joined := parts[place] + parts[place + 1]) in rank
        ]
        if not found:
            singles = {(unit,): unit for unit in range(num_units)}
            return [{**singles, **rank}[part] for part in parts]
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_merges_by_hand(tmp_path):
    # (1 2) is there four times, then (1 2)(3) three times; the repeat of 4 once
    sequences = [[1, 2, 3, 0, 1, 2, 3], [1, 2, 3], [1, 2, 4, 4]]
    model, learned = learn(tmp_path, sequences, 6, 8)
    # unit 5 occurs nowhere and is a word all the same
    assert model.pieces == [*((unit,) for unit in range(6)), (1, 2), (1, 2, 3)]
    assert model.encode([1, 2, 3, 0, 1, 2, 3]) == [7, 0, 7]
    assert model.encode([1, 2, 4, 4, 5, 2, 1]) == [6, 4, 4, 5, 2, 1]
    assert model.encode([]) == [] and model.decode([]) == []
    assert model.decode([7, 6, 5]) == [1, 2, 3, 1, 2, 5]
    assert learned["pieces"] == {"6": "1 2", "7": "1 2 3"}
    assert (learned["units"], learned["numbers"]) == (14, 3 + 1 + 3)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_an_independent_bpe(tmp_path, seed):
    num_units, vocab_size = 30, 90
    model, learned = learn(tmp_path, wordy(150, num_units, seed), num_units, vocab_size)
    assert model.vocab_size == vocab_size and len(set(model.pieces)) == vocab_size
    assert model.pieces[:num_units] == [(unit,) for unit in range(num_units)]
    rng = np.random.default_rng(seed + 100)
    # words seen, and units at random
    unseen = [rng.integers(0, num_units, 80).tolist() for _ in range(20)]
    for units in wordy(170, num_units, seed)[150:] + unseen:
        numbers = model.encode(units)
        assert numbers == merge_by_hand(units, model.pieces, num_units)
        assert model.decode(numbers) == units
    assert learned["numbers"] < 0.6 * learned["units"]


def test_first_merge_is_the_most_frequent_pair(tmp_path):
    sequences = wordy(100, 20)
    model, _ = learn(tmp_path, sequences, 20, 21)
    pairs = Counter(pair for units in sequences for pair in zip(units, units[1:], strict=False))
    assert pairs[model.pieces[20]] == max(pairs.values())


def test_same_input_same_model(tmp_path):
    sequences = wordy(100, 20)
    first = train_model(sequences, 20, 50)
    assert train_model(sequences, 20, 50) == first
    # sentencepiece alone gives the same numbers
    processor = sentencepiece.SentencePieceProcessor(model_proto=first)
    model, _ = learn(tmp_path, sequences, 20, 50)
    text = units_to_chars(sequences[0])
    assert processor.encode(text) == model.encode(sequences[0])
    assert processor.unk_id() == 50 and processor.decode(processor.encode(text)) == text


def test_length_of_pieces(tmp_path):
    sequences = [[0, 1, 2, 3, 4, 5, 6, 7]] * 30 + wordy(30, 8)
    model, _ = learn(tmp_path, sequences, 8, 30, max_piece_units=3)
    assert max(map(len, model.pieces)) == 3
    model, _ = learn(tmp_path, sequences, 8, 30)
    assert max(map(len, model.pieces)) > 3


def test_utterances_of_any_length(tmp_path):
    """SentencePiece itself would leave out long lines, and stop at 65536 positions."""
    long = [unit for _ in range(30000) for unit in (1, 2, 3)]
    model, learned = learn(tmp_path, [[0], long], 4, 6)
    assert learned["units"] == 90001
    assert model.pieces[4:] in ([(1, 2), (1, 2, 3)], [(2, 3), (1, 2, 3)])
    assert model.encode(long) == [5] * 30000


def test_sample_is_even_and_seeded(tmp_path):
    first = write_units(tmp_path / "1", [[i] for i in range(50)])
    second = write_units(tmp_path / "2", [[i] for i in range(50, 100)] + [[]])
    sample = sample_sequences([first, second], 100, max_utterances=20, seed=0)
    assert sample.utterances == 100  # the empty one is none
    drawn = [units[0] for units in sample.sequences]
    assert len(set(drawn)) == 20 and drawn == sorted(drawn)
    again = sample_sequences([first, second], 100, max_utterances=20, seed=0)
    assert again == sample
    counts = Counter()
    for seed in range(200):
        sample = sample_sequences([first, second], 100, max_utterances=20, seed=seed)
        counts.update(units[0] >= 50 for units in sample.sequences)
    # 2000 each if all utterances are equally likely; the deviation of the draw is below 32
    assert abs(counts[True] - counts[False]) < 2 * 4 * 32
    everything = sample_sequences([first, second], 100, max_utterances=1000, seed=0)
    assert [units[0] for units in everything.sequences] == list(range(100))


@pytest.mark.parametrize(
    ("sequences", "options", "said"),
    [
        ([[0, 1, 4]], {}, r"learn\.txt: utt00000: unit 4, but K is 4"),
        ([[], []], {}, "no units to learn from"),
        ([[0, 1]], {"vocab_size": 4}, "--vocab_size 4: must be more than K = 4"),
        ([[0, 1]], {"vocab_size": 70000}, "65534 at most"),
        ([[0, 1, 2, 1, 0]], {"vocab_size": 500}, "too few pairs; ([5-9]|1[0-9]) is the most"),
        ([[0, 1]], {"max_piece_units": 1}, "--max_piece_units 1: must be from 2 to 512"),
        ([[0, 1]], {"max_piece_units": 513}, "from 2 to 512"),
        ([[0, 1]], {"max_utterances": 0}, "--max_utterances 0: must be at least 1"),
    ],
)
def test_mistakes(tmp_path, sequences, options, said):
    options = {"vocab_size": 5, **options}
    with pytest.raises(SpireError, match=said):
        learn(tmp_path, sequences, 4, options.pop("vocab_size"), **options)
    assert not (tmp_path / "bpe").exists()


def test_the_most_that_the_error_names_is_right(tmp_path):
    sequences = [[0, 1, 2, 1, 0]]
    with pytest.raises(SpireError, match="is the most") as caught:
        learn(tmp_path, sequences, 4, 500)
    most = int(str(caught.value).split(" is the most")[0].split()[-1])
    assert learn(tmp_path, sequences, 4, most)[0].vocab_size == most


def test_convert(tmp_path):
    model, _ = learn(tmp_path, [[1, 2, 1, 2, 1, 2]], 4, 5)
    (tmp_path / "u").write_text("a 1 2 3\nb\nc 0\n")
    assert list(convert(model, tmp_path / "u")) == [
        *[("a", [1, 2, 3], [4, 3]), ("b", [], []), ("c", [0], [0])]
    ]
    (tmp_path / "v").write_text("a 4 3\nb\nc 0\n")
    assert [row[2] for row in convert(model, tmp_path / "v", invert=True)] == [[1, 2, 3], [], [0]]
    with pytest.raises(SpireError, match="v: a: unit 4, but the model was learned on K = 4"):
        list(convert(model, tmp_path / "v"))
    (tmp_path / "w").write_text("a 5\n")
    with pytest.raises(SpireError, match="w: a: number 5, but the model has V = 5"):
        list(convert(model, tmp_path / "w", invert=True))


def test_directory(tmp_path):
    identity = {"num_clusters": 4, "sha256": "0"}
    _, learned = learn(tmp_path, [[1, 2, 1, 2, 1, 2], [3]], 4, 5, codebook=identity, seed=7)
    assert sorted(path.name for path in (tmp_path / "bpe").iterdir()) == [
        *("unit_bpe.json", "unit_bpe.model")
    ]
    stored = json.loads((tmp_path / "bpe/unit_bpe.json").read_text())
    assert (
        stored
        == learned
        == {
            **{"num_units": 4, "vocab_size": 5, "max_piece_units": 16, "seed": 7},
            **{"utterances": 2, "of_utterances": 2, "units": 7, "numbers": 4},
            **{"codebook": identity, "pieces": {"4": "1 2"}},
        }
    )
    told = {name: value for name, value in stored.items() if name != "pieces"}
    digest = hashlib.sha256((tmp_path / "bpe/unit_bpe.model").read_bytes()).hexdigest()
    assert unit_bpe_identity(tmp_path / "bpe") == {**told, "sha256": digest}
    stored["pieces"]["4"] = "2 1"
    (tmp_path / "bpe/unit_bpe.json").write_text(json.dumps(stored))
    with pytest.raises(SpireError, match="do not belong together"):
        load_unit_bpe(tmp_path / "bpe")
    with pytest.raises(SpireError, match="unit_bpe.model: no such file; learn_unit_bpe makes it"):
        load_unit_bpe(tmp_path)
    with pytest.raises(SpireError, match="unit_bpe.model: no such file; learn_unit_bpe makes it"):
        unit_bpe_identity(tmp_path)
