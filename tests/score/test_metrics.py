import random
from importlib.metadata import version

import pytest

from espnet_spire.score.metrics import (
    alignment_text,
    bleu,
    bleu_tokenizer,
    chrf,
    error_rate,
)
from espnet_spire.utils.errors import SpireError


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_wer_by_hand():
    score, each = error_rate(
        ["The cat sat.", "hello there, my friend", "[noise]", "x y"],
        ["the cat sat down", "Hello their friend!", "uh hi", ""],
        lang="en",
    )
    assert score.metric == "wer"
    assert score.utterances == 4
    assert score.value == pytest.approx(100 * 6 / 9)
    assert score.counts == {
        "hits": 5,
        "substitutions": 1,
        "deletions": 3,
        "insertions": 2,
        "reference_units": 9,
        "utterances_with_errors": 4,
        "empty_references": 1,
        "empty_hypotheses": 1,
    }
    assert [(e.hits, e.substitutions, e.deletions, e.insertions) for e in each] == [
        (3, 0, 0, 1),
        (2, 1, 1, 0),
        (0, 0, 0, 1),
        (0, 0, 2, 0),
    ]
    assert each[1].reference == "hello there my friend"
    assert [e.total for e in each] == [1, 2, 1, 2]


def test_wer_against_another_levenshtein():
    rng = random.Random(0)
    texts = [
        [" ".join(rng.choices("abcdefg", k=rng.randint(1, 9))) for _ in range(60)] for _ in "rh"
    ]
    score, each = error_rate(*texts, lang="de")
    expected = [levenshtein(r.split(), h.split()) for r, h in zip(*texts, strict=True)]
    assert [e.total for e in each] == expected
    words = sum(len(text.split()) for text in texts[0])
    assert score.value == pytest.approx(100 * sum(expected) / words)
    score, each = error_rate(*texts, lang="de", unit="char")
    assert [e.total for e in each] == [levenshtein(r, h) for r, h in zip(*texts, strict=True)]


def test_wer_can_exceed_100():
    assert error_rate(["a"], ["b c d"], lang="de")[0].value == 300


def test_normalisation_is_of_the_language():
    assert error_rate(["twenty five colours"], ["25 colors"], lang="en")[0].value == 0
    assert error_rate(["colours"], ["colors"], lang="de")[0].value == 100


def test_cer_counts_the_space_between_words():
    score, _ = error_rate(["ab cd"], ["abcd"], lang="de", unit="char")
    assert (score.metric, score.value) == ("cer", pytest.approx(20))
    assert "|space:yes|" in score.signature


def test_cer_of_chinese_has_no_spaces():
    score, _ = error_rate(["你好，世界。"], ["你 好 世间"], lang="zh", unit="char")
    assert score.value == pytest.approx(25)
    assert score.counts["reference_units"] == 4
    assert "|space:no|" in score.signature


def test_wer_signature():
    norm = version("whisper_normalizer")
    assert error_rate(["a b"], ["a b"], lang="en")[0].signature == (
        f"nrefs:1|norm:whisper-english@whisper_normalizer-{norm}|unit:word|"
        f"tool:jiwer|version:{version('jiwer')}"
    )


def test_no_reference_text_at_all_is_an_error():
    with pytest.raises(SpireError, match="all 2 references are empty after normalisation"):
        error_rate(["uh", "[noise]"], ["a", "b"], lang="en")
    with pytest.raises(SpireError, match="no reference"):
        error_rate([], [], lang="en")


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 references but 1 hyp"):
        error_rate(["a", "b"], ["a"], lang="en")
    with pytest.raises(ValueError, match="2 references but 1 hyp"):
        bleu(["a", "b"], ["a"], lang="de")
    with pytest.raises(ValueError, match="unit"):
        error_rate(["a"], ["a"], lang="en", unit="phone")


def test_alignment_text():
    assert alignment_text("a b c", "a x c d", unit="word").splitlines() == [
        "REF: a b c *",
        "HYP: a x c d",
        "       S   I",
    ]
    assert alignment_text("", "hi", unit="word").splitlines() == ["REF: **", "HYP: hi", "      I"]
    long = alignment_text("word " * 60, "word " * 59, unit="word", width=80)
    assert len(long.splitlines()) > 4
    assert max(len(line) for line in long.splitlines()) <= 80


def test_bleu_by_hand():
    score = bleu(["the cat sat on the mat"], ["the cat sat on a mat"], lang="de")
    assert score.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert score.counts["ngrams_correct"] == [5, 3, 2, 1]
    assert score.counts["ngrams_total"] == [6, 5, 4, 3]
    assert score.counts["brevity_penalty"] == 1
    assert (
        score.signature
        == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}"
    )


def test_bleu_is_of_the_corpus_and_perfect_is_100():
    refs = ["ein Satz mit fünf Wörtern", "noch einer , der länger ist"]
    assert bleu(refs, refs, lang="de").value == 100.0
    # a missing half costs the brevity penalty exp(1 - 11/6) and nothing else
    score = bleu(refs, ["", refs[1]], lang="de")
    assert score.value == pytest.approx(100 * 2.718281828 ** (1 - 11 / 6), rel=1e-6)
    assert score.counts["empty_hypotheses"] == 1


def test_bleu_of_chinese_is_over_characters():
    score = bleu(["我在公园里看书。"], ["我在公园里看书。"], lang="zh")
    assert score.value == 100.0
    assert score.counts["reference_tokens"] == 8
    assert "|tok:zh|" in score.signature


@pytest.mark.parametrize(
    "lang, name",
    [("de", "13a"), ("en", "13a"), ("zh", "zh"), ("ja", "ja-mecab"), ("ko", "ko-mecab")],
)
def test_tokenizer_of_language(lang, name):
    assert bleu_tokenizer(lang) == name


def test_absent_tokenizer_says_what_to_install(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_ko_mecab

    monkeypatch.setattr(tokenizer_ko_mecab, "MeCab", None)
    with pytest.raises(SpireError, match=r"pip install 'sacrebleu\[ko\]'") as caught:
        bleu(["가"], ["가"], lang="ko")
    assert "\n" not in str(caught.value)
    assert bleu(["가 나 다 라"], ["가 나 다 라"], lang="ko", tokenize="char").value == 100


def test_unknown_tokenizer():
    with pytest.raises(SpireError, match="'flores200' is unknown"):
        bleu(["a"], ["a"], lang="de", tokenize="flores200")


def test_chrf_by_hand():
    # n=1: P 2/2, R 2/3; n=2: P 1/1, R 1/2; longer ones are not in the hypothesis
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    score, each = chrf(["abc"], ["ab"])
    assert score.value == pytest.approx(expected)
    assert each == [pytest.approx(expected)]
    assert score.signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert score.counts == {"hypothesis_characters": 2, "reference_characters": 3}


def test_chrf_of_nothing_is_0():
    score, each = chrf(["abc", "de"], ["", ""])
    assert score.value == 0
    assert each == [0, 0]


def test_as_dict_is_json():
    import json

    for score in (bleu(["a b"], ["a"], lang="de"), error_rate(["a"], ["b"], lang="en")[0]):
        assert json.loads(json.dumps(score.as_dict())) == score.as_dict()
