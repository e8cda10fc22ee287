"""What ends an answer, and what is no token."""

from types import SimpleNamespace as Config

import pytest

from espnet_spire.model.generation import end_tokens, padding_rows


class Tokenizer:
    """As much of one as is looked at."""

    def __init__(self, vocabulary, eos=None):
        self.eos_token_id = eos
        self.get_vocab = lambda: vocabulary


@pytest.mark.parametrize(
    ("stated", "eos", "im_end", "expected"),
    [
        (2, 2, None, [2]),
        # Settings of the base beside a tokenizer of the tuned model, and the other way round.
        (400, 402, 402, [400, 402]),
        ([1, 107], 1, None, [1, 107]),
        (2, 2, 445, [2, 445]),
        (None, 2, None, [2]),
        (None, None, None, []),
    ],
)
def test_whoever_knows_an_end_is_heard(stated, eos, im_end, expected):
    vocabulary = {"a": 0} if im_end is None else {"a": 0, "<|im_end|>": im_end}
    assert end_tokens(Tokenizer(vocabulary, eos), Config(eos_token_id=stated)) == expected


def test_rows_without_a_token():
    """Behind the last one, in gaps, and of a text model within another."""
    config = Config(get_text_config=lambda: Config(vocab_size=8))
    assert padding_rows(Tokenizer({"a": 0, "b": 1, "c": 3, "d": 4}), config) == [2, 5, 6, 7]
    assert padding_rows(Tokenizer({str(n): n for n in range(9)}), config) == []
