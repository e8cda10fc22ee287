"""What must hold of an extended tokenizer, tried out on it before the model is written."""

from pathlib import Path
from typing import List

from espnet_spire.text.prompts import Turn, chatml_prompt
from espnet_spire.text.tokenizer_files import SENTENCEPIECE_FILE, SPECIAL_TOKENS, Layout
from espnet_spire.units.notation import unit_to_char
from espnet_spire.utils.errors import SpireError

# Text that must tokenise as before: SPIRE's ten languages, digits, scripts, emoji, combining
# marks, code, and every kind of white space.
SAMPLE = (
    "",
    " ",
    "The cat sat.  Two  spaces and   three. It's we'll they'RE don't",
    " leading, trailing ",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, „Öl“",
    "L'été à Nîmes, où l'œuvre naît; ¿qué mañana? olá, então, coração; è così, perché no?",
    "De coöperatie 's ochtends in 's-Hertogenbosch; ĳsland, één",
    "今天天气很好，我们去公园吧。「你好」１２３ 한국어 문장입니다. 안녕하세요?",
    "Русский текст: съешь ещё этих мягких французских булок, да выпей чаю.",
    "0 1 12 123 1234567890 3.14 1,000,000 50% €9.99 $5 №7 ½ 10⁻³",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ✓ → ∀x∈ℝ",
    "combining: e\u0301 n\u0303 a\u0308 composed: é ñ ä \u1100\u1161\u11a8 각 ﬁ Å \u212b",
    "العربية עברית हिन्दी ภาษาไทย Ελληνικά",
    "def f(x):\n    return {'a': [x ** 2, -1]}  # note\n\tif x != 0 and y >= 1: pass",
    "English: a\nGerman: b\n\n\tc\n \n  \n\n\n",
    "line\r\nline\r\n\r\nline\rline\t\ttabs \t mixed \u00a0 \u3000 \u200b wide",
    "https://example.org/a?b=c&d=%20#e <b>bold</b> </s> <s>x</s>y [INST] <unk> <0x41> ▁ Ġ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa --------------------------- ........ !!!!!!",
    "\x00\x01\x7f \ufeffbom \ufffd \ue000 \U000effff \U00010348",
)


def check_tokenizer(before, after, layout: Layout) -> None:
    """Units are one id each wherever they stand, and text is what it was.

    Args:
        before: the base tokenizer.
        after: the extended one.
        layout: which ids are to be found.

    Raises:
        SpireError: what does not hold; the base's tokenizer cannot be used then.
    """
    if len(after) != layout.size:
        raise SpireError(f"the extended tokenizer has {len(after)} tokens, not {layout.size}")
    for token, index in {**layout.new_ids(), **layout.reused}.items():
        if after.convert_tokens_to_ids(token) != index:
            raise SpireError(f"token {token!r} does not have id {index} in the extended tokenizer")
        if token in SPECIAL_TOKENS and _ids(after, f"a{token}b").count(index) != 1:
            raise SpireError(f"{token} between letters is not one id")
    for text in SAMPLE + tuple(_about_special(before, layout)):
        if before(text).input_ids != after(text).input_ids:
            raise SpireError(f"{text!r} is tokenised otherwise than before")
    _check_units(before, after, layout)


def _ids(tokenizer, text: str) -> List[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _about_special(tokenizer, layout: Layout) -> List[str]:
    """Texts with the base's own special tokens in them."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    wanted = dict.fromkeys([*tokenizer.all_special_tokens, *special[:64]])
    return [f"a{t} b {t}{t}\n{t}\n c" for t in wanted if t not in layout.new_tokens]


def _check_units(before, after, layout: Layout) -> None:
    """All units in a row, with all kinds of neighbours; and back to text."""
    first, last = layout.first_unit_id, layout.first_unit_id + layout.num_units
    units = "".join(map(unit_to_char, range(layout.num_units)))
    expected = list(range(first, last))
    for left, right in (
        ("", ""),
        ("a", "b"),
        ("Speech: ", "\nEnglish:"),
        (" \n", "\n\n "),
        ("é", "今"),
    ):
        text = f"{left}{units}{right}"
        ids = _ids(after, text)
        start = ids.index(first) if first in ids else 0
        if ids[start : start + layout.num_units] != expected:
            raise SpireError(f"units between {left!r} and {right!r} are not one id each")
        # A row of units acts on its neighbours as one unit does, whichever it is.
        one = _ids(after, f"{left}{units[-1]}{right}")
        if ids[:start] + [last - 1] + ids[start + layout.num_units :] != one:
            raise SpireError(f"{left!r} and {right!r} depend on the units between them")
        if _back(before, f"{left}|{right}") and not _back(after, text):
            raise SpireError(f"units between {left!r} and {right!r} are not decoded to themselves")


def _back(tokenizer, text: str) -> bool:
    """Whether ids of ``text`` are decoded to it."""
    ids = _ids(tokenizer, text)
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def check_template(tokenizer) -> None:
    """The chat template in force is ours, and its ids are those of the prompts in training."""
    turns = [Turn("system", "Be brief."), Turn("user", f"Speech: {unit_to_char(0)}\nEnglish:")]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    found = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    if list(found) != bos + _ids(tokenizer, chatml_prompt(turns)):
        raise SpireError("the chat template does not give the ids of the prompts in training")


def check_sentencepiece(base: Path, extended: Path, layout: Layout) -> None:
    """The SentencePiece file too has text as before and the units' ids.

    Args:
        base, extended: directories with ``tokenizer.model``.
        layout: which ids are to be found.
    """
    from sentencepiece import SentencePieceProcessor

    before, after = (
        SentencePieceProcessor(model_file=str(directory / SENTENCEPIECE_FILE))
        for directory in (base, extended)
    )
    if after.vocab_size() != layout.size:
        raise SpireError(f"{SENTENCEPIECE_FILE} has {after.vocab_size()} pieces, not {layout.size}")
    for token, index in layout.new_ids().items():
        if after.piece_to_id(token) != index:
            raise SpireError(f"{SENTENCEPIECE_FILE}: {token!r} does not have id {index}")
    for text in SAMPLE:
        if before.encode(text) != after.encode(text):
            raise SpireError(f"{SENTENCEPIECE_FILE}: {text!r} is tokenised otherwise than before")
    units = "".join(map(unit_to_char, range(layout.num_units)))
    expected = list(range(layout.first_unit_id, layout.first_unit_id + layout.num_units))
    ids = after.encode(f"a{units}b")
    if ids[ids.index(expected[0]) :][: layout.num_units] != expected:
        raise SpireError(f"{SENTENCEPIECE_FILE}: units are not one id each")
