import pytest

from espnet_spire.baselines.characters import spoken_form, vocabulary
from espnet_spire.utils.errors import SpireError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat, the DOG.", "the cat the dog"),
        ("“Don’t!” – it’s 3 o'clock", "don't it's 3 o'clock"),
        ("'tis the dogs' 'quoted'", "tis the dogs quoted"),
        ("well-known e.g.\tthis|that", "well known e g this that"),
        ("Cafe\u0301 ÜBER İ", "café über i̇"),  # composed; what has no composed form stays
        ("नमस्ते!", "नमस्ते"),  # marks are parts of words
        ("…", ""),
        ("", ""),
    ],
)
def test_spoken_form(text, expected):
    assert spoken_form(text) == expected
    assert spoken_form(expected) == expected


def test_vocabulary():
    assert vocabulary(["ab ba", "b c"], 1) == {
        **{"<pad>": 0, "<unk>": 1, "|": 2},
        **{"a": 3, "b": 4, "c": 5},
    }
    assert vocabulary(["ab ba", "b c"], 3) == {"<pad>": 0, "<unk>": 1, "|": 2, "b": 3}


def test_no_character_is_left():
    with pytest.raises(SpireError, match="no character is 4 times"):
        vocabulary(["ab ba", "b c"], 4)
