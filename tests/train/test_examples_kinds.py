"""Units put in the place of one character: the same ids as the whole string, for every base."""

import numpy as np
import pytest
from helpers_bases import KINDS, make_kind

from espnet_spire.text import prompts
from espnet_spire.text.prompts import Turn
from espnet_spire.text.vocabulary import extend_vocabulary
from espnet_spire.train.examples import (
    Rendered,
    assemble,
    encode_chatml_prompt,
    encoder_of,
    render_pieces,
    tokenize,
)
from espnet_spire.train.sharegpt import parse_entry

TEXTS = [
    *(
        "The cat sat.",
        "  two  blanks ",
        "天气 and ñandú\t!",
        "x",
        "ends\n",
        "\n\n  begins",
        "'s it",
    ),
    "de\u0301compose\u0301 3, 4.5",
]
UNITS = [[3, 19, 3, 0], [7], list(range(20)) * 3, [0, 0], []]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("kind")
    make_kind(request.param, folder / "base")
    extend_vocabulary(str(folder / "base"), 20, folder / "extended")
    return AutoTokenizer.from_pretrained(folder / "extended")


def row(ragged, number):
    return ragged.values[ragged.offsets[number] : ragged.offsets[number + 1]].tolist()


def encode(tokenizer, rendered):
    encoder = encoder_of(tokenizer)
    assert encoder.num_units == 20
    ids, spans = assemble(encoder, tokenize(encoder, rendered))
    return [(row(ids, i), row(spans, i)) for i in range(len(rendered))]


def begin(tokenizer):
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def test_conversations(tokenizer):
    def turns(units, text, other):
        return [
            prompts.asr_conversation(units, text),
            prompts.multi_turn_st_conversation(units, text, "de", other),
            [Turn("system", other), *prompts.st_conversation(units, "zh", text), Turn("user", "")],
        ]

    rendered, expected = [], []
    for text in TEXTS:
        for units in UNITS:
            one = [0] if units else []
            for few, many in zip(turns(one, text, "B\n"), turns(units, text, "B\n"), strict=True):
                rendered.append(render_pieces(prompts.chatml_pieces(few), np.array(units, int)))
                whole, targets, _ = render_pieces(prompts.chatml_pieces(many))
                found = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
                mask = [any(a <= at < b for a, b in targets) for at, _ in found.offset_mapping]
                mask = [0] * len(begin(tokenizer)) + mask
                edges = np.flatnonzero(np.diff([0, *mask, 0])).tolist()
                expected.append((begin(tokenizer) + found.input_ids, edges))
    assert encode(tokenizer, rendered) == expected


def test_plain_texts(tokenizer):
    rendered, expected = [], []
    for text in TEXTS:
        for units in UNITS:
            few = prompts.asr_plain([0] if units else [], text)
            rendered.append(Rendered(few, None, np.array(units, int)))
            whole = tokenizer(prompts.asr_plain(units, text), add_special_tokens=False).input_ids
            ids = [*begin(tokenizer), *whole, tokenizer.eos_token_id]
            expected.append((ids, [1, len(ids)]))
    assert encode(tokenizer, rendered) == expected


def test_no_answer_shares_a_token_with_its_prompt(tokenizer):
    """Also one that begins with newlines, which Gemma and Qwen have tokens for."""
    for answer in (*TEXTS, "\nDer", "\n\n Der", "\r\nDer", " \nDer", "\tDer"):
        said = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": answer}]
        turns = parse_entry({"conversations": said}, "x").turns
        ((ids, (start, end)),) = encode(tokenizer, [render_pieces(prompts.chatml_pieces(turns))])
        assert encode_chatml_prompt(tokenizer, turns[:1]) == ids[:start]
        assert ids[end - 1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
