"""Token ids and loss masks, against literal strings."""

import pytest

from espnet_spire.text import prompts
from espnet_spire.text.prompts import Turn
from espnet_spire.train.examples import (
    encode_chatml_prompt,
    encode_conversation,
    encode_plain,
    encode_plain_prompt,
    forbidden_text,
    special_tokens,
)

U = "\U000f0000"
UNITS = [3, 19, 3, 0]
CHARS = "\U000f0003\U000f0013\U000f0003\U000f0000"


def target_spans(tokenizer, encoded):
    """Text of each unbroken run of ids under the mask."""
    assert len(encoded.input_ids) == len(encoded.loss_mask)
    spans, run = [], []
    for token, is_target in [*zip(*encoded, strict=True), (None, False)]:
        if is_target:
            run.append(token)
        elif run:
            spans.append(tokenizer.decode(run, skip_special_tokens=False))
            run = []
    return spans


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


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_loss_is_on_answers_and_their_end_tokens_only(lm_tokenizer, name):
    turns, text, targets = CONVERSATIONS[name]
    encoded = encode_conversation(lm_tokenizer, turns)
    assert target_spans(lm_tokenizer, encoded) == targets
    assert whole(lm_tokenizer, encoded) == "<s>" + text
    assert encoded.input_ids.count(lm_tokenizer.bos_token_id) == 1
    assert encoded.input_ids[0] == lm_tokenizer.bos_token_id
    assert all(type(flag) is bool for flag in encoded.loss_mask)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_decode_prompt_is_a_prefix_of_the_training_ids(lm_tokenizer, name):
    turns, _, _ = CONVERSATIONS[name]
    encoded = encode_conversation(lm_tokenizer, turns)
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        prompt = encode_chatml_prompt(lm_tokenizer, turns[:number])
        assert encoded.input_ids[: len(prompt)] == prompt
        # … and ends exactly where the loss begins.
        assert encoded.loss_mask[len(prompt)] and not encoded.loss_mask[len(prompt) - 1]


def test_the_chat_template_of_the_model_gives_the_same_prompt(lm_tokenizer):
    turns, _, _ = CONVERSATIONS["multi-turn"]
    messages = [{"role": t.role, "content": t.content} for t in turns[:3]]
    ids = lm_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert ids == encode_chatml_prompt(lm_tokenizer, turns[:3])


def test_plain_text_has_loss_on_everything_but_the_first_token(lm_tokenizer):
    encoded = encode_plain(lm_tokenizer, f"Speech:{CHARS}\nEnglish: a child")
    # Llama's tokenizer writes the beginning of a text as a space, as it does with BOS of its own.
    assert whole(lm_tokenizer, encoded) == f"<s> Speech:{CHARS}\nEnglish: a child</s>"
    assert encoded.input_ids[:-1] == lm_tokenizer(f"Speech:{CHARS}\nEnglish: a child").input_ids
    assert encoded.loss_mask == [False] + [True] * (len(encoded.input_ids) - 1)
    assert encoded.input_ids[0] == lm_tokenizer.bos_token_id == 1
    assert encoded.input_ids[-1] == lm_tokenizer.eos_token_id == 2
    assert encoded.input_ids.count(1) == encoded.input_ids.count(2) == 1


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
    training = encode_plain(lm_tokenizer, text).input_ids
    assert training[: len(ids)] == ids and len(ids) < len(training)


def test_each_unit_is_one_id_of_the_training_example(lm_tokenizer):
    ids = encode_conversation(lm_tokenizer, CONVERSATIONS["asr"][0]).input_ids
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
