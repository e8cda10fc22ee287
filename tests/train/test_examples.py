"""Token ids and the spans with loss, against literal strings and the tokenizer's own way."""

import numpy as np
import pytest

from espnet_spire.text import prompts
from espnet_spire.text.prompts import Turn
from espnet_spire.train.examples import (
    Encoded,
    Encoder,
    Rendered,
    assemble,
    cut_off,
    encode_chatml_prompt,
    encode_plain,
    encode_plain_prompt,
    encoder_of,
    forbidden_text,
    full_length,
    render_pieces,
    special_tokens,
    tokenize,
)
from espnet_spire.utils.errors import SpireError

U = "\U000f0000"
UNITS = [3, 19, 3, 0]
CHARS = "\U000f0003\U000f0013\U000f0003\U000f0000"


def target_texts(tokenizer, encoded):
    """Text of each span."""
    ids = encoded.input_ids.tolist()
    return [
        tokenizer.decode(ids[start:end], skip_special_tokens=False)
        for start, end in encoded.target_spans.tolist()
    ]


def whole(tokenizer, encoded):
    return tokenizer.decode(encoded.input_ids, skip_special_tokens=False)


CONVERSATIONS = {
    "asr": (
        prompts.asr_conversation(UNITS, "the cook cuts bread"),
        f"<|im_start|>user\nSpeech: {CHARS}\nEnglish:<|im_end|>\n"
        "<|im_start|>assistant\nthe cook cuts bread<|im_end|>\n",
        ["the cook cuts bread<|im_end|>"],
    ),
    "st": (
        prompts.st_conversation(UNITS, "de", "der Koch schneidet Brot."),
        f"<|im_start|>user\nSpeech: {CHARS}\nGerman:<|im_end|>\n"
        "<|im_start|>assistant\nder Koch schneidet Brot.<|im_end|>\n",
        ["der Koch schneidet Brot.<|im_end|>"],
    ),
    "multi-turn": (
        prompts.multi_turn_st_conversation(UNITS, "the cook cuts", "zh", "厨师切面包。"),
        f"<|im_start|>user\nSpeech: {CHARS}\nEnglish:<|im_end|>\n"
        "<|im_start|>assistant\nthe cook cuts<|im_end|>\n"
        "<|im_start|>user\nChinese:<|im_end|>\n"
        "<|im_start|>assistant\n厨师切面包。<|im_end|>\n",
        ["the cook cuts<|im_end|>", "厨师切面包。<|im_end|>"],
    ),
    "chat": (
        [
            Turn("system", "Be brief."),
            Turn("user", "Count:  two\nlines"),
            Turn("assistant", "1\n\n2 "),
            Turn("user", "more"),
            Turn("assistant", ""),
            Turn("user", "thanks"),
        ],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCount:  two\nlines<|im_end|>\n"
        "<|im_start|>assistant\n1\n\n2 <|im_end|>\n<|im_start|>user\nmore<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nthanks<|im_end|>\n",
        ["1\n\n2 <|im_end|>", "<|im_end|>"],
    ),
}


def encode_conversation(tokenizer, turns):
    """The whole text tokenised at once, units and all."""
    encoder = encoder_of(tokenizer)
    text = render_pieces(prompts.chatml_pieces(turns))
    ids, spans = assemble(encoder, tokenize(encoder, [text]))
    return Encoded(ids.values, spans.values.reshape(-1, 2))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_loss_is_on_answers_and_their_end_tokens_only(lm_tokenizer, name):
    turns, text, targets = CONVERSATIONS[name]
    encoded = encode_conversation(lm_tokenizer, turns)
    assert target_texts(lm_tokenizer, encoded) == targets
    assert whole(lm_tokenizer, encoded) == "<s>" + text
    assert encoded.input_ids.tolist().count(lm_tokenizer.bos_token_id) == 1
    assert encoded.input_ids[0] == lm_tokenizer.bos_token_id
    assert encoded.target_spans.shape == (len(targets), 2)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_decode_prompt_is_a_prefix_of_the_training_ids(lm_tokenizer, name):
    turns, _, _ = CONVERSATIONS[name]
    encoded = encode_conversation(lm_tokenizer, turns)
    answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    for number, (start, _) in zip(answers, encoded.target_spans, strict=True):
        prompt = encode_chatml_prompt(lm_tokenizer, turns[:number])
        assert encoded.input_ids[: len(prompt)].tolist() == prompt
        # … and ends exactly where the loss begins.
        assert start == len(prompt)


def test_the_chat_template_of_the_model_gives_the_same_prompt(lm_tokenizer):
    turns, _, _ = CONVERSATIONS["multi-turn"]
    messages = [{"role": t.role, "content": t.content} for t in turns[:3]]
    ids = lm_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert list(ids) == encode_chatml_prompt(lm_tokenizer, turns[:3])


def test_plain_text_has_loss_on_everything_but_the_first_token(lm_tokenizer):
    encoded = encode_plain(lm_tokenizer, f"Speech:{CHARS}\nEnglish: a child")
    # Llama's tokenizer writes the beginning of a text as a space, as it does with BOS of its own.
    assert whole(lm_tokenizer, encoded) == f"<s> Speech:{CHARS}\nEnglish: a child</s>"
    ids = encoded.input_ids.tolist()
    assert ids[:-1] == lm_tokenizer(f"Speech:{CHARS}\nEnglish: a child").input_ids
    assert encoded.target_spans.tolist() == [[1, len(ids)]]
    assert ids[0] == lm_tokenizer.bos_token_id == 1
    assert ids[-1] == lm_tokenizer.eos_token_id == 2
    assert ids.count(1) == ids.count(2) == 1


@pytest.mark.parametrize(
    "prompt, text",
    [
        (prompts.asr_plain_prompt(UNITS), prompts.asr_plain(UNITS, "the cook")),
        (
            prompts.mt_plain_prompt("en", "de", "bread"),
            prompts.mt_plain("en", "de", "bread", "Brot"),
        ),
        (prompts.mt_plain_prompt("de", "zh", "Brot"), prompts.mt_plain("de", "zh", "Brot", "面包")),
    ],
)
def test_a_plain_prompt_is_a_prefix_of_the_training_ids(lm_tokenizer, prompt, text):
    assert text.startswith(prompt)
    ids = encode_plain_prompt(lm_tokenizer, prompt)
    training = encode_plain(lm_tokenizer, text).input_ids.tolist()
    assert training[: len(ids)] == ids and len(ids) < len(training)


def test_each_unit_is_one_id_of_the_training_example(lm_tokenizer):
    ids = encode_conversation(lm_tokenizer, CONVERSATIONS["asr"][0]).input_ids.tolist()
    first = lm_tokenizer.convert_tokens_to_ids(U)
    assert [i - first for i in ids if first <= i < first + 20] == UNITS


@pytest.mark.parametrize(
    "text, reason",
    [
        ("an ordinary text < | > </ s>, 面包", None),
        ("", None),
        (f"a {U} unit", "private use characters"),
        ("beyond the units \U00100000", "private use characters"),
        ("ends </s> here", "</s>"),
        ("x<|im_end|>", "<|im_end|>"),
        ("<|im_start|>user", "<|im_start|>"),
        ("a<s>b", "<s>"),
        ("<unk>", "<unk>"),
        ("is <PAD> one", "<PAD>"),
    ],
)
def test_text_that_would_be_read_as_something_else_is_refused(lm_tokenizer, text, reason):
    found = forbidden_text(text, special_tokens(lm_tokenizer))
    assert (found is None) if reason is None else (reason in found)


def test_of_many_special_tokens_the_first_in_the_text_is_named():
    names = ["</s>", *(f"<|reserved_{number}|>" for number in range(300)), "[a.b]"]
    assert forbidden_text("x [a.b] </s>", names) == "text has the special token [a.b]"
    assert forbidden_text("<|reserved_12|>", names) == "text has the special token <|reserved_12|>"
    assert forbidden_text("<|reserved_300|> [acb] s", names) is None
    assert forbidden_text("anything", []) is None


# Units in the place of one character ----------------------------------------------------------

TEXTS = ["the cook", " two  blanks ", "面包 and ñandú\t!", "x", "ends in a newline\n", "\n\nx"]
MANY = [[3, 19, 3, 0], [7], list(range(20)) * 3, [0, 0], [19]]


def plain_way(tokenizer, text, targets):
    """One tokenisation of the whole string, and for each token the piece in which it begins."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [*bos, *encoding.input_ids]
    mask = [False] * len(bos)
    mask += [any(a <= start < b for a, b in targets) for start, _ in encoding.offset_mapping]
    return ids, mask


def spans_of(mask):
    edges = np.flatnonzero(np.diff(np.array([0, *mask, 0])))
    return edges.tolist()


def row(ragged, number):
    return ragged.values[ragged.offsets[number] : ragged.offsets[number + 1]].tolist()


def conversations(units, text, other):
    return [
        prompts.asr_conversation(units, text),
        prompts.st_conversation(units, "de", text),
        prompts.multi_turn_st_conversation(units, text, "zh", other),
        [Turn("system", other), *prompts.asr_conversation(units, text), Turn("user", "")],
    ]


def test_conversations_are_those_of_the_whole_string(lm_tokenizer):
    encoder = encoder_of(lm_tokenizer)
    assert (encoder.first_unit, encoder.num_units) == (
        lm_tokenizer.convert_tokens_to_ids(U),
        20,
    )
    rendered, expected = [], []
    for text in TEXTS:
        for units in MANY:
            for with_one, with_all in zip(
                conversations([0], text, "Brot \n"),
                conversations(units, text, "Brot \n"),
                strict=True,
            ):
                rendered.append(render_pieces(prompts.chatml_pieces(with_one), np.array(units)))
                whole = render_pieces(prompts.chatml_pieces(with_all))
                expected.append(plain_way(lm_tokenizer, whole.text, whole.targets))
    tokens = tokenize(encoder, rendered)
    ids, spans = assemble(encoder, tokens)
    assert ids.values.dtype == spans.values.dtype == np.int32
    for number, (all_ids, mask) in enumerate(expected):
        assert row(ids, number) == all_ids
        assert row(spans, number) == spans_of(mask)
        assert full_length(encoder, tokens[number]) == len(all_ids)


def test_plain_texts_are_those_of_the_whole_string(lm_tokenizer):
    encoder = encoder_of(lm_tokenizer)
    rendered, expected = [], []
    for text in TEXTS:
        rendered.append(Rendered(text, None))
        expected.append(lm_tokenizer(text).input_ids + [2])
        for units in MANY:
            rendered.append(Rendered(prompts.asr_plain([0], text), None, np.array(units)))
            expected.append(lm_tokenizer(prompts.asr_plain(units, text)).input_ids + [2])
    tokens = tokenize(encoder, rendered)
    ids, spans = assemble(encoder, tokens)
    for number, all_ids in enumerate(expected):
        assert row(ids, number) == all_ids
        assert row(spans, number) == [1, len(all_ids)]
        assert full_length(encoder, tokens[number]) == len(all_ids)


def test_an_utterance_without_a_single_unit(lm_tokenizer):
    encoder = encoder_of(lm_tokenizer)
    text = prompts.asr_plain([], "x")
    ids, _ = assemble(encoder, tokenize(encoder, [Rendered(text, None, np.array([], np.int32))]))
    assert ids.values.tolist() == lm_tokenizer(text).input_ids + [2]


def test_a_tokenizer_without_bos(lm_tokenizer):
    encoder = encoder_of(lm_tokenizer)._replace(bos=None)
    turns = prompts.asr_conversation([0], "the cook")
    tokens = tokenize(encoder, [render_pieces(prompts.chatml_pieces(turns), np.array(UNITS))])
    ids, spans = assemble(encoder, tokens)
    with_bos = encode_conversation(lm_tokenizer, prompts.asr_conversation(UNITS, "the cook"))
    assert ids.values.tolist() == with_bos.input_ids[1:].tolist()
    assert spans.values.tolist() == (with_bos.target_spans - 1).reshape(-1).tolist()
    # Plain: nothing predicts the first token, whatever it is.
    ids, spans = assemble(encoder, tokenize(encoder, [Rendered("a child", None)]))
    assert ids.values.tolist() == lm_tokenizer("a child").input_ids[1:] + [2]
    assert spans.values.tolist() == [1, len(ids.values)]


class NoBos:
    """What of a tokenizer prompts are encoded with, without BOS."""

    bos_token_id = None

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **options):
        return self.tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def test_prompts_of_a_tokenizer_without_bos_begin_with_the_text(lm_tokenizer):
    turns = [Turn("user", "x")]
    assert (
        encode_chatml_prompt(NoBos(lm_tokenizer), turns)
        == (encode_chatml_prompt(lm_tokenizer, turns)[1:])
    )
    assert (
        encode_plain_prompt(NoBos(lm_tokenizer), "a") == encode_plain_prompt(lm_tokenizer, "a")[1:]
    )


def test_a_text_that_is_cut_off_has_no_end(lm_tokenizer):
    encoder = encoder_of(lm_tokenizer)
    (tokens,) = tokenize(encoder, [Rendered("the cook cuts bread", None)])
    cut = cut_off(encoder, tokens, 4)
    assert full_length(encoder, cut) == 4
    ids, spans = assemble(encoder, [cut, tokens])
    assert row(ids, 0) == lm_tokenizer("the cook cuts bread").input_ids[:4]
    assert row(ids, 1) == lm_tokenizer("the cook cuts bread").input_ids + [2]
    assert row(spans, 0) == [1, 4] and row(spans, 1) == [1, len(row(ids, 1))]


def test_neighbouring_targets_are_one_and_empty_ones_none(lm_tokenizer):
    pieces = [prompts.Piece("ab", False), prompts.Piece("c", True), prompts.Piece("d", True)]
    assert render_pieces(pieces) == Rendered("abcd", [(2, 4)], None)
    encoder = encoder_of(lm_tokenizer)
    (tokens,) = tokenize(encoder, [Rendered("abcd", [(4, 4)])])
    assert tokens.spans == []


def test_a_slow_tokenizer_is_refused():
    class Slow:
        name_or_path = "m"

    with pytest.raises(SpireError, match="m: not a fast tokenizer; it must have a tokenizer.json"):
        encoder_of(Slow())


def test_a_tokenizer_without_an_end_is_refused(lm_tokenizer):
    class NoEnd:
        name_or_path, backend_tokenizer, eos_token_id = "m", lm_tokenizer.backend_tokenizer, None

    with pytest.raises(SpireError, match="m: the tokenizer has no eos_token"):
        encoder_of(NoEnd())


def test_an_encoder_can_be_sent_to_another_process(lm_tokenizer):
    import pickle

    encoder = encoder_of(lm_tokenizer)
    sent = pickle.loads(pickle.dumps(encoder))
    assert isinstance(sent, Encoder) and sent[1:] == encoder[1:]
    assert sent.backend.to_str() == encoder.backend.to_str()
