from espnet_spire.score.tables.differences import pieces_of_alignment, pieces_of_texts


def test_words():
    found = pieces_of_texts("the cat sat on the mat", "a cat sat down on mat", "en")
    assert found == [
        ["S", "the", "a"], ["=", "cat sat", ""], ["I", "", "down"], ["=", "on", ""],
        ["D", "the", ""], ["=", "mat", ""],
    ]  # fmt: skip


def test_characters_where_words_are_not_set_apart():
    assert pieces_of_texts("我借书", "我买书", "zh") == [
        ["=", "我", ""], ["S", "借", "买"], ["=", "书", ""],
    ]  # fmt: skip


def test_empty_sides():
    assert pieces_of_texts("a b", "", "en") == [["D", "a b", ""]]
    assert pieces_of_texts("", "a b", "en") == [["I", "", "a b"]]
    assert pieces_of_texts("", "", "en") == []


def test_of_an_error_rate():
    entry = {
        "compared": {"reference": "a b c", "hypothesis": "a x c d"},
        "alignment": [["=", 0, 1, 0, 1], ["S", 1, 2, 1, 2], ["=", 2, 3, 2, 3], ["I", 3, 3, 3, 4]],
    }
    assert pieces_of_alignment(entry, characters=False) == [
        ["=", "a", ""], ["S", "b", "x"], ["=", "c", ""], ["I", "", "d"],
    ]  # fmt: skip
    entry = {
        "compared": {"reference": "ab", "hypothesis": "b"},
        "alignment": [["D", 0, 1, 0, 0], ["=", 1, 2, 0, 1]],
    }
    assert pieces_of_alignment(entry, characters=True) == [["D", "a", ""], ["=", "b", ""]]
