"""Every prompt of SPIRE, for training and decoding alike: the only copy (paper, Table 10).

A prompt that differs by one space from those in training doubles the error rate, so nothing
outside this module writes ``Speech:`` or ``<|im_start|>``.

Plain prompts (continued pre-training) are one string with loss on all of it. Instructions are
conversations in ChatML; :func:`chatml_pieces` says which characters are answers.
"""

from typing import List, NamedTuple, Sequence

from espnet_spire.text.languages import language_name
from espnet_spire.units.notation import units_to_chars

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
CHATML_TOKENS = (IM_END, IM_START)

# The same layout as chatml_pieces, for users of `apply_chat_template`, vLLM and pipelines.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Turn(NamedTuple):
    """One message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


class Piece(NamedTuple):
    """A stretch of a rendered example and whether the model is to learn to write it."""

    text: str
    is_target: bool


# Continued pre-training -------------------------------------------------------------------


def asr_plain_prompt(units: Sequence[int], speech_lang: str = "en") -> str:
    """What precedes the transcript in a plain ASR example."""
    return f"Speech:{units_to_chars(units)}\n{language_name(speech_lang)}:"


def asr_plain(units: Sequence[int], transcript: str, speech_lang: str = "en") -> str:
    """A plain ASR example: ``Speech:<units>⏎English: <transcript>``."""
    return f"{asr_plain_prompt(units, speech_lang)} {transcript}"


def mt_plain_prompt(source_lang: str, target_lang: str, source: str) -> str:
    """What precedes the translation in a plain MT example."""
    return f"{language_name(source_lang)}: {source}\n{language_name(target_lang)}:"


def mt_plain(source_lang: str, target_lang: str, source: str, translation: str) -> str:
    """A plain MT example: ``English: <source>⏎German: <translation>``."""
    return f"{mt_plain_prompt(source_lang, target_lang, source)} {translation}"


# Instructions -----------------------------------------------------------------------------


def speech_instruction(units: Sequence[int], target_lang: str) -> str:
    """User turn for ASR (``target_lang`` is the speech's own) and for direct ST (any other)."""
    return f"Speech: {units_to_chars(units)}\n{language_name(target_lang)}:"


def follow_up_instruction(target_lang: str) -> str:
    """Second user turn of multi-turn ST, after the transcript: ``German:``."""
    return f"{language_name(target_lang)}:"


def mt_instruction(source_lang: str, target_lang: str, source: str) -> str:
    """User turn for MT, as in TowerInstruct and TowerBlocks."""
    source_name, target_name = language_name(source_lang), language_name(target_lang)
    return (
        f"Translate the following text from {source_name} to {target_name}.\n"
        f"{source_name}: {source}\n{target_name}:"
    )


def ape_instruction(source_lang: str, target_lang: str, source: str, translation: str) -> str:
    """User turn for automatic post-editing, as in TowerInstruct's and Tower-Eval's data.

    Source: https://huggingface.co/Unbabel/TowerInstruct-7B-v0.2/discussions/8, with the blank that
    ends it there.
    """
    return (
        "The primary goal of automatic post-editing is to boost the translation's quality by making"
        " small adjustments to address any existing errors in the translation. If the translation"
        " is already accurate, there is no need to change it and instead it should be copied.\n"
        f"Source ({language_name(source_lang)}): {source}\n"
        f"Translation ({language_name(target_lang)}): {translation}\n"
        "Post-edited: "
    )


# Of MultiCoNER 2023, in Tower-Eval's order and words.
ENTITIES = (
    ("Person", "Names of people"),
    ("Location", "Location or physical facilities"),
    ("Group", "Groups of people, organizations, corporations or other entities"),
    ("Product", "Consumer products such as food, drinks, clothing, and vehicles"),
    ("CreativeWorks", "Titles of creative works like movie, song, and book titles"),
    ("Medical", "Entities from the medical domain, including diseases, symptoms, and medications"),
)


def ner_instruction(tokens: str) -> str:
    """User turn for named entities, as in Tower-Eval.

    Source: https://github.com/deep-spin/tower-eval, ``configs/examples/prepare.yaml``, with the
    blank that ends it there. The answer is a list of tokens and tags:
    ``[("Lima", "B-Location"), ("is", "O")]``.

    Args:
        tokens: a list as text, ``["Lima", "is"]``.
    """
    guidelines = "\n".join(f"- {tag} - {description}" for tag, description in ENTITIES)
    return (
        f'Highlight all the named entities in the following list of tokens "{tokens}".\n'
        "These are the annotation guidelines for named entities you need to follow:\n"
        f"{guidelines}.\n"
        "Besides that, prepend B- as a prefix of the first token of any entity and I- to subsequent"
        " ones if they exist. If a token is not a part of a named entity, mark it as O.\n"
        "Answer: "
    )


def asr_conversation(units: Sequence[int], transcript: str, speech_lang: str = "en") -> List[Turn]:
    """ASR as an instruction and its answer."""
    return [
        Turn("user", speech_instruction(units, speech_lang)),
        Turn("assistant", transcript),
    ]


def st_conversation(units: Sequence[int], target_lang: str, translation: str) -> List[Turn]:
    """Direct speech translation."""
    return [
        Turn("user", speech_instruction(units, target_lang)),
        Turn("assistant", translation),
    ]


def multi_turn_st_conversation(
    units: Sequence[int],
    transcript: str,
    target_lang: str,
    translation: str,
    speech_lang: str = "en",
) -> List[Turn]:
    """Transcript first, translation in a second turn."""
    return asr_conversation(units, transcript, speech_lang) + [
        Turn("user", follow_up_instruction(target_lang)),
        Turn("assistant", translation),
    ]


# ChatML -----------------------------------------------------------------------------------


def chatml_pieces(turns: Sequence[Turn]) -> List[Piece]:
    """Render a conversation; targets are each answer and the ``<|im_end|>`` that closes it.

    >>> [p.text for p in chatml_pieces([Turn("user", "Hi"), Turn("assistant", "Ho")])]
    ['<|im_start|>user\\nHi<|im_end|>\\n', '<|im_start|>assistant\\n', 'Ho<|im_end|>', '\\n']
    """
    pieces = []
    for turn in turns:
        header, message = f"{IM_START}{turn.role}\n", f"{turn.content}{IM_END}"
        if turn.role == "assistant":
            pieces += [Piece(header, False), Piece(message, True), Piece("\n", False)]
        else:
            pieces.append(Piece(f"{header}{message}\n", False))
    return pieces


def chatml_prompt(turns: Sequence[Turn]) -> str:
    """A conversation up to where the assistant is to speak."""
    context = "".join(piece.text for piece in chatml_pieces(turns))
    return f"{context}{IM_START}assistant\n"
