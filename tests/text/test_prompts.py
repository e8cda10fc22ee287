"""Every prompt letter by letter, written out from the paper's Table 10 and the released models."""

import pytest

from espnet_spire.text import prompts
from espnet_spire.text.languages import LANGUAGES, language_name
from espnet_spire.text.prompts import Piece, Turn
from espnet_spire.utils.errors import SpireError

UNITS = [3, 0, 4999]
CHARS = "\U000f0003\U000f0000\U000f1387"


def test_languages():
    assert LANGUAGES == {
        "en": "English",
        "de": "German",
        "fr": "French",
        "nl": "Dutch",
        "it": "Italian",
        "es": "Spanish",
        "pt": "Portuguese",
        "ko": "Korean",
        "ru": "Russian",
        "zh": "Chinese",
    }
    with pytest.raises(SpireError, match="language 'xx' is unknown: an ISO 639-1"):
        language_name("xx")


def test_asr_plain():
    assert prompts.asr_plain(UNITS, "hello there") == f"Speech:{CHARS}\nEnglish: hello there"
    assert prompts.asr_plain_prompt(UNITS) == f"Speech:{CHARS}\nEnglish:"
    assert prompts.asr_plain_prompt(UNITS, "de") == f"Speech:{CHARS}\nGerman:"
    assert prompts.asr_plain([], "x", "fr") == "Speech:\nFrench: x"


def test_mt_plain():
    assert prompts.mt_plain("en", "de", "a cat", "eine Katze") == (
        "English: a cat\nGerman: eine Katze"
    )
    assert prompts.mt_plain("zh", "en", "猫", "a cat") == "Chinese: 猫\nEnglish: a cat"
    assert prompts.mt_plain_prompt("en", "pt", "a cat") == "English: a cat\nPortuguese:"


def test_instructions():
    assert prompts.speech_instruction(UNITS, "en") == f"Speech: {CHARS}\nEnglish:"
    assert prompts.speech_instruction(UNITS, "ko") == f"Speech: {CHARS}\nKorean:"
    assert prompts.follow_up_instruction("zh") == "Chinese:"
    assert prompts.mt_instruction("en", "ru", "Hello, world!") == (
        "Translate the following text from English to Russian.\nEnglish: Hello, world!\nRussian:"
    )


def test_post_editing():
    assert prompts.ape_instruction("en", "de", "a cook", "ein Kuh") == (
        "The primary goal of automatic post-editing is to boost the translation's quality by"
        " making small adjustments to address any existing errors in the translation. If the"
        " translation is already accurate, there is no need to change it and instead it should be"
        " copied.\nSource (English): a cook\nTranslation (German): ein Kuh\nPost-edited: "
    )


def test_named_entities():
    """Tower-Eval's template, rendered by jinja as it is there."""
    from jinja2 import Template

    template = (
        'Highlight all the named entities in the following list of tokens "{{ input }}".\n'
        "These are the annotation guidelines for named entities you need to follow:\n"
        "{% for annotation in annotations -%}- {{ annotation.tag }} - "
        "{{ annotation.description }}{% if not loop.last %}\n{% endif %}{%- endfor %}.\n"
        "Besides that, prepend B- as a prefix of the first token of any entity and I- to"
        " subsequent ones if they exist. If a token is not a part of a named entity, mark it as"
        " O.\nAnswer: "
    )
    annotations = [{"tag": tag, "description": text} for tag, text in prompts.ENTITIES]
    rendered = Template(template).render(input='["Lima", "is"]', annotations=annotations)
    assert prompts.ner_instruction('["Lima", "is"]') == rendered
    assert "\n- Person - Names of people\n- Location - " in rendered


def test_asr_conversation():
    assert prompts.asr_conversation(UNITS, "hello") == [
        ("user", f"Speech: {CHARS}\nEnglish:"),
        ("assistant", "hello"),
    ]


def test_st_conversation():
    assert prompts.st_conversation(UNITS, "nl", "hallo") == [
        ("user", f"Speech: {CHARS}\nDutch:"),
        ("assistant", "hallo"),
    ]


def test_multi_turn_st_conversation():
    assert prompts.multi_turn_st_conversation(UNITS, "hello", "it", "ciao") == [
        ("user", f"Speech: {CHARS}\nEnglish:"),
        ("assistant", "hello"),
        ("user", "Italian:"),
        ("assistant", "ciao"),
    ]


def test_chatml_of_a_multi_turn_example():
    turns = prompts.multi_turn_st_conversation([7], "hello", "es", "hola")
    pieces = prompts.chatml_pieces(turns)
    assert "".join(piece.text for piece in pieces) == (
        "<|im_start|>user\nSpeech: \U000f0007\nEnglish:<|im_end|>\n"
        "<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\nSpanish:<|im_end|>\n"
        "<|im_start|>assistant\nhola<|im_end|>\n"
    )
    assert [piece.text for piece in pieces if piece.is_target] == [
        "hello<|im_end|>",
        "hola<|im_end|>",
    ]


def test_system_turns_are_no_targets():
    assert prompts.chatml_pieces([Turn("system", "Be brief.")]) == [
        Piece("<|im_start|>system\nBe brief.<|im_end|>\n", False)
    ]


def test_chatml_prompts_are_prefixes_of_what_was_trained():
    turns = prompts.multi_turn_st_conversation([7], "hello", "es", "hola")
    whole = "".join(piece.text for piece in prompts.chatml_pieces(turns))
    assert prompts.chatml_prompt(turns[:1]) == (
        "<|im_start|>user\nSpeech: \U000f0007\nEnglish:<|im_end|>\n<|im_start|>assistant\n"
    )
    for spoken in (1, 3):
        assert whole.startswith(prompts.chatml_prompt(turns[:spoken]))


def test_template_by_jinja_itself():
    from jinja2 import Environment

    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    template = Environment().from_string(prompts.CHAT_TEMPLATE)
    assert template.render(messages=messages, bos_token="<s>") == (
        "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    )
    assert template.render(messages=messages[:1], bos_token="", add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
