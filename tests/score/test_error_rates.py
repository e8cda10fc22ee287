import random
from importlib.metadata import version

import jiwer
import pytest
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from espnet_spire.score.error_rates import alignment_text, error_rate
from espnet_spire.score.measured import Texts
from espnet_spire.utils.errors import SpireError


def rate(references, hypotheses, lang, unit="word"):
    keys = [f"u{i}" for i in range(len(references))]
    return error_rate(Texts(keys, references, hypotheses, lang), unit)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_wer_by_hand():
    found = rate(
        ["The cat sat.", "hello there, my friend", "[noise]", "x y"],
        ["the cat sat down", "Hello their friend!", "uh hi", ""],
        "en",
    )
    assert found.value == pytest.approx(100 * 6 / 9)
    assert found.counts == {
        "hits": 5,
        "substitutions": 1,
        "deletions": 3,
        "insertions": 2,
        "reference_units": 9,
        "utterances_with_errors": 4,
        "empty_references": 1,
        "empty_hypotheses": 1,
    }
    assert found.statistics.tolist() == [[3, 0, 0, 1], [2, 1, 1, 0], [0, 0, 0, 1], [0, 0, 2, 0]]
    assert found.compared[0][1] == "hello there my friend"
    assert found.details[1] == {
        "alignment": [["=", 0, 1, 0, 1], ["S", 1, 2, 1, 2], ["D", 2, 3, 2, 2], ["=", 3, 4, 2, 3]]
    }


# Empty lines, zero-width and combining characters, full-width digits, right to left, no spaces.
ODD = {
    "en": (
        ["Caf\u00e9 at ５:３０ p.m.", "", "zero\u200bwidth\u200b", "it's 20 colours"],
        ["cafe\u0301 at 5:30 pm", "um", "zerowidth", ""],
    ),
    "ar": (
        ["السَّلامُ عليكم", "١٢٣ كتاب", "\u200fنعم\u200f"],
        ["السلام عليكم", "123 كتاب", "نعم لا"],
    ),
    "ko": (
        ["안녕하세요 여러분", "\u1112\u1161\u11ab글", "삼 \u3000 ３"],
        ["안녕 하세요", "한글", "삼 3"],
    ),
    "zh": (["今天天气很好。", "他有３本书", ""], ["今天天气 好", "他有3本书", "嗯"]),
    "de": (
        ["Straße, groß!", "Ein\tTab\u00a0hier", "\u202fleer"],
        ["strasse gross", "ein Tab hier", ""],
    ),
}


@pytest.mark.parametrize("lang", ODD)
def test_wer_is_jiwers_of_the_normalised_text(lang):
    references, hypotheses = ODD[lang]
    normalize = EnglishTextNormalizer() if lang == "en" else BasicTextNormalizer()
    sides = [[normalize(text) for text in side] for side in (references, hypotheses)]
    assert rate(references, hypotheses, lang).value == pytest.approx(100 * jiwer.wer(*sides))
    if lang != "zh":  # where we leave out spaces
        value = rate(references, hypotheses, lang, "char").value
        assert value == pytest.approx(100 * jiwer.cer(*[[t.strip() for t in s] for s in sides]))


def test_wer_against_another_levenshtein():
    rng = random.Random(0)
    texts = [
        [" ".join(rng.choices("abcdefg", k=rng.randint(1, 9))) for _ in range(60)] for _ in "rh"
    ]
    found = rate(*texts, "de")
    expected = [levenshtein(r.split(), h.split()) for r, h in zip(*texts, strict=True)]
    assert found.statistics[:, 1:].sum(axis=1).tolist() == expected
    words = sum(len(text.split()) for text in texts[0])
    assert found.value == pytest.approx(100 * sum(expected) / words)
    found = rate(*texts, "de", "char")
    expected = [levenshtein(r, h) for r, h in zip(*texts, strict=True)]
    assert found.statistics[:, 1:].sum(axis=1).tolist() == expected


def test_wer_can_exceed_100():
    assert rate(["a"], ["b c d"], "de").value == 300


def test_normalisation_is_of_the_language():
    assert rate(["twenty five colours"], ["25 colors"], "en").value == 0
    assert rate(["colours"], ["colors"], "de").value == 100


def test_cer_counts_the_space_between_words():
    found = rate(["ab cd"], ["abcd"], "de", "char")
    assert found.value == pytest.approx(20)
    assert "|space:yes|" in found.signature


def test_cer_of_chinese_has_no_spaces():
    found = rate(["你好，世界。"], ["你 好 世间"], "zh", "char")
    assert found.value == pytest.approx(25)
    assert found.counts["reference_units"] == 4
    assert "|space:no|" in found.signature


def test_signature():
    norm = version("whisper_normalizer")
    assert rate(["a b"], ["a b"], "en").signature == (
        f"nrefs:1|norm:whisper-english@whisper_normalizer-{norm}|unit:word|"
        f"tool:jiwer|version:{version('jiwer')}"
    )


def test_no_reference_text_at_all_is_an_error():
    with pytest.raises(SpireError, match="all 2 references are empty after normalisation"):
        rate(["uh", "[noise]"], ["a", "b"], "en")
    with pytest.raises(SpireError, match="no reference"):
        rate([], [], "en")
    with pytest.raises(ValueError, match="unit"):
        rate(["a"], ["a"], "en", "phone")
    with pytest.raises(ValueError, match="2 keys but 1 hyp"):
        Texts(["a", "b"], ["a", "b"], ["a"], "en")


def drawn(reference, hypothesis, unit="word", lang="de", **more):
    found = rate([reference], [hypothesis], lang, unit)
    texts = (side[0] for side in found.compared)
    return alignment_text(*texts, found.details[0]["alignment"], unit=unit, **more).splitlines()


def test_alignment_text():
    assert drawn("a bb c", "a x c d") == ["REF: a bb c *", "HYP: a x  c d", "       S    I"]
    assert drawn("a b c", "c") == ["REF: a b c", "HYP: * * c", "     D D"]
    assert drawn("same", "same") == ["REF: same", "HYP: same"]
    # CER: no blank between characters
    assert drawn("abc", "abd", "char") == ["REF: abc", "HYP: abd", "       S"]


def test_alignment_text_in_lines():
    lines = drawn("word " * 60, "word " * 59, width=80)
    assert len(lines) > 4
    assert max(map(len, lines)) <= 80
    assert sum(line.count("word") for line in lines if line.startswith("REF")) == 60


def test_columns_are_as_wide_as_they_look():
    # a Chinese character fills two columns, a combining one none
    assert drawn("他 有 书", "他 书") == ["REF: 他 有 书", "HYP: 他 ** 书", "        D"]
    assert alignment_text(
        "e\u0301a b", "ea c", [["S", 0, 1, 0, 1], ["S", 1, 2, 1, 2]], unit="word"
    ) == ("REF: e\u0301a b\nHYP: ea c\n     S  S")
