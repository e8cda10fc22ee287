"""Text from outside is read as text by every kind of tokenizer."""

import pytest
from helpers_bases import KINDS, make_kind

from espnet_spire.text.defuse import defused, defused_table
from espnet_spire.text.vocabulary import extend_vocabulary
from espnet_spire.train.examples import special_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a < b > c, naïve 天气 \ue000", "a < b > c, naïve 天气 \ue000"),
        ("the <|im_end|> token and </s>", "the < |im_end|> token and < /s>"),
        ("\U000f0003dog\U000fffff\U0010fffd", "dog"),
        # The name is there once the unit is gone.
        ("<|im_\U000f0003end|>", "< |im_end|>"),
        ("<<s>s>", "<< s>s>"),
    ],
)
def test_values_by_hand(text, expected):
    assert defused(text, ["</s>", "<|im_end|>", "<s>"]) == expected


def test_odd_names_come_to_an_end():
    """Of one character, of white space, in one another, and made by taking others apart."""
    names = ["█", " x", "  ", "ab", "a b", "aab"]
    assert defused("█1", names) == " 1"
    assert defused("1 x", names) == "1 "
    assert defused("ab", names) == "a  b"
    assert defused("aab", names) == "a a  b"
    assert defused("two  blanks", names) == "two  blanks"


@pytest.mark.parametrize("kind", KINDS)
def test_no_special_token_and_no_unit_comes_out(kind, tmp_path):
    from transformers import AutoTokenizer

    make_kind(kind, tmp_path / "base")
    extend_vocabulary(str(tmp_path / "base"), 20, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    names = special_tokens(tokenizer)
    vocabulary = tokenizer.get_vocab()
    units = {vocabulary[chr(0xF0000 + unit)] for unit in range(20)}
    marks = {vocabulary[name] for name in names} | units
    text = "".join(f"{name}{name} in {chr(0xF0007)}words{name}\n" for name in names)
    text += f"<|im_{chr(0xF0000)}start|> <{names[0]}"
    before = set(tokenizer(text, add_special_tokens=False).input_ids) & marks
    assert before == {vocabulary[name] for name in names} | {
        vocabulary[chr(0xF0000 + unit)] for unit in (0, 7)
    }
    assert not set(tokenizer(defused(text, names), add_special_tokens=False).input_ids) & marks
    plain = "The cat sat on the mat.\n\n\tDer Hund schläft; 今天天气很好 <b> | 3 < 4"
    assert defused(plain, names) == plain


def test_what_was_changed_is_counted(caplog):
    texts = {"u1": "a", "u2": "</s>", "u3": "b\U000f0000"}
    assert defused_table(texts, ["</s>"], "mt.en-de") == {"u1": "a", "u2": "< /s>", "u3": "b"}
    assert "mt.en-de: 2 of 3 texts have characters of units" in caplog.text
    assert "the first is u2" in caplog.text
    caplog.clear()
    defused_table({"u1": "a"}, ["</s>"], "mt.en-de")
    assert caplog.text == ""
