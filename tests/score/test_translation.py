"""BLEU, spBLEU, chrF and TER against the ``sacrebleu`` command, to many digits."""

import json
import logging
import os
import random
import subprocess
import sys
from importlib.metadata import version

import pytest

from espnet_spire.score.files import Job, score_job
from espnet_spire.score.measured import Texts
from espnet_spire.score.metrics import Settings
from espnet_spire.score.translation import (
    bleu,
    bleu_tokenizer,
    chrf,
    plain_bleu,
    spbleu,
    ter,
)
from espnet_spire.utils.errors import SpireError

PAIRS = {
    "de": [
        ("Die Katze saß auf der Matte.", "Die Katze sass auf der Matte ."),
        ("", "Hier war nichts zu sagen."),
        ("„Guten Tag“, sagte er – und ging.", '"Guten Tag", sagte er - und ging.'),
        ("Das kostet 1.234,56 € (inkl. MwSt.).", ""),
        ("Straße\u00a0und\u2009Weg \u200bohne\u00ad Ende", "Strasse und Weg ohne Ende \u3000"),
        ("Noch ein ganz gewöhnlicher Satz mit vielen Wörtern.", "Noch ein gewöhnlicher Satz."),
    ],
    "zh": [
        ("我在公园里看书。", "我 在公园看书。"),
        ("他有３本书，价格是25.5元！", "他有3本书，价格是25.5元!"),
        ("", ""),
        ("「你好」，她说。\u3000", "「您好」，她说\u3000"),
        ("今天天气很好，我们去散步吧。", ""),
    ],
    "ar": [
        ("السَّلامُ عليكم يا صديقي", "السلام عليكم يا صديقي"),
        ("كان هناك ١٢٣ كتابًا في الغرفة.", "كان هناك 123 كتابا في الغرفة"),
        ("\u200fنعم\u200f، هذا صحيح؟", "نعم هذا صحيح"),
        ("", "شيء"),
    ],
    "ko": [
        ("안녕하세요, 여러분!", "안녕 하세요 여러분"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af 문장입니다.", "한글 문장입니다."),
        ("오늘은 날씨가 좋네요.", ""),
    ],
}
TOKENIZER = {"de": "13a", "zh": "zh", "ar": "13a", "ko": "char"}


def texts_of(lang):
    references, hypotheses = (list(side) for side in zip(*PAIRS[lang], strict=True))
    return Texts([str(i) for i in range(len(references))], references, hypotheses, lang)


def command(tmp_path, texts, *options, **environment):
    """Objects that the command prints, in its order: BLEU, chrF2, TER."""
    files = []
    for name, side in (("ref", texts.references), ("hyp", texts.hypotheses)):
        files.append(tmp_path / name)
        files[-1].write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    words = [sys.executable, "-m", "sacrebleu", str(files[0]), "-i", str(files[1]), "-w", "9"]
    done = subprocess.run(
        [*words, *options],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def agree(found, printed):
    assert round(found.value, 9) == printed["score"]
    assert found.signature == printed["signature"]


@pytest.mark.parametrize("lang", PAIRS)
def test_scores_are_those_of_the_command(tmp_path, lang):
    texts, tokenizer = texts_of(lang), TOKENIZER[lang]
    printed = command(tmp_path, texts, "-m", "bleu", "chrf", "ter", "-tok", tokenizer)
    assert [entry["name"] for entry in printed] == ["BLEU", "chrF2", "TER"]
    agree(bleu(texts, tokenizer), printed[0])
    agree(chrf(texts), printed[1])
    agree(ter(texts), printed[2])
    assert bleu(texts, tokenizer).value > 10


def test_variants_are_those_of_the_command(tmp_path):
    texts = texts_of("de")
    options = ("-m", "bleu", "chrf", "-lc", "-tok", "intl", "--chrf-word-order", "2")
    printed = command(tmp_path, texts, *options)
    agree(bleu(texts, "intl", lowercase=True), printed[0])
    agree(chrf(texts, word_order=2), printed[1])


@pytest.fixture(scope="module")
def spm_dir(tmp_path_factory):
    """A directory as sacreBLEU keeps its own, with a small SentencePiece model."""
    import sentencepiece

    directory = tmp_path_factory.mktemp("sacrebleu")
    (directory / "models").mkdir()
    lines = [text for pairs in PAIRS.values() for pair in pairs for text in pair if text]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 5),
        model_prefix=str(directory / "spm"),
        vocab_size=250,
        hard_vocab_limit=False,
        model_type="unigram",
        minloglevel=2,
    )
    (directory / "spm.model").rename(directory / "models" / "flores200sacrebleuspm")
    return directory


@pytest.mark.parametrize("lang", ["de", "zh"])
def test_spbleu_is_that_of_the_command(tmp_path, lang, spm_dir, caplog):
    texts = texts_of(lang)
    (printed,) = command(tmp_path, texts, "-tok", "flores200", SACREBLEU=str(spm_dir))
    found = spbleu(texts, spm_dir / "models" / "flores200sacrebleuspm")
    agree(found, printed)
    assert found.signature == (
        f"nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:{version('sacrebleu')}"
    )
    # what it is not is said
    assert "is not FLORES-200's SentencePiece model as it was published" in caplog.text


def test_spbleu_finds_what_sacrebleu_keeps(spm_dir, monkeypatch):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(spm_dir))
    path = spm_dir / "models" / "flores200sacrebleuspm"
    assert spbleu(texts_of("de")).value == spbleu(texts_of("de"), path).value


def test_spbleu_without_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    words = rf"download https://\S+ to {tmp_path}/models/flores200sacrebleuspm .*--spm_model"
    with pytest.raises(SpireError, match=words) as caught:
        spbleu(texts_of("de"))
    assert "\n" not in str(caught.value)
    with pytest.raises(SpireError, match="--spm_model .*none: no such file"):
        spbleu(texts_of("de"), tmp_path / "none")
    (tmp_path / "bad").write_text("no model")
    with pytest.raises(SpireError, match="bad: no SentencePiece model"):
        spbleu(texts_of("de"), tmp_path / "bad")


def test_plain_bleu_is_that_of_bare_text(tmp_path):
    references = ["Hello, World! It's (really) five o'clock.", "«Oui», dit-il… 50% \uff01"]
    hypotheses = ["hello world its REALLY five oclock", "oui ditil 50"]
    bare = ["hello world its really five oclock", "oui ditil 50"]
    found = plain_bleu(Texts(["a", "b"], references, hypotheses, "fr"))
    assert found.value == 100
    assert list(found.compared[0]) != bare, "case is left to sacreBLEU"
    assert [text.lower() for text in found.compared[0]] == bare
    assert found.signature == (
        f"nrefs:1|case:lc|eff:no|punct:no|tok:13a|smooth:exp|version:{version('sacrebleu')}"
    )
    worse = Texts(["a", "b"], references, ["hello world", "Oui dit il 50."], "fr")
    (printed,) = command(
        tmp_path, Texts(["a", "b"], bare, ["hello world", "oui dit il 50"], "fr"), "-lc"
    )
    assert round(plain_bleu(worse).value, 9) == printed["score"]


def test_bleu_by_hand():
    found = bleu(Texts(["a"], ["the cat sat on the mat"], ["the cat sat on a mat"], "de"))
    assert found.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert found.counts["ngrams_correct"] == [5, 3, 2, 1]
    assert found.counts["ngrams_total"] == [6, 5, 4, 3]
    assert found.counts["brevity_penalty"] == 1


def test_bleu_is_of_the_corpus_and_perfect_is_100():
    references = ["ein Satz mit fünf Wörtern", "noch einer , der länger ist"]
    assert bleu(Texts(["a", "b"], references, references, "de")).value == 100.0
    # a missing half costs the brevity penalty exp(1 - 11/6) and nothing else
    found = bleu(Texts(["a", "b"], references, ["", references[1]], "de"))
    assert found.value == pytest.approx(100 * 2.718281828 ** (1 - 11 / 6), rel=1e-6)
    assert found.counts["empty_hypotheses"] == 1


def test_chrf_by_hand():
    # n=1: P 2/2, R 2/3; n=2: P 1/1, R 1/2; longer ones are not in the hypothesis
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    found = chrf(Texts(["a"], ["abc"], ["ab"], "de"))
    assert found.value == pytest.approx(expected)
    assert found.counts == {"hypothesis_characters": 2, "reference_characters": 3}
    assert chrf(Texts(["a", "b"], ["abc", "de"], ["", ""], "de")).value == 0


def test_ter_by_hand():
    # one shift and one substitution over five words
    found = ter(Texts(["a"], ["a b c d e"], ["d a b c x"], "de"))
    assert found.value == 40
    assert found.counts == {"edits": 2, "reference_words": 5}


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
        bleu(texts_of("ko"))
    assert "\n" not in str(caught.value)
    with pytest.raises(SpireError, match="'flores200' is unknown"):
        bleu(texts_of("de"), "flores200")


def test_many_lines_that_look_tokenized_give_no_advice(caplog):
    rng = random.Random(1)
    lines = [" ".join(rng.choices("abcde", k=6)) + " ." for _ in range(120)]
    with caplog.at_level(logging.WARNING):
        bleu(Texts([str(i) for i in range(120)], lines, lines, "zh"), "char")
    assert not caplog.records


@pytest.mark.parametrize("lang", ["de", "zh", "ar"])
def test_from_tables_to_the_digits_of_the_command(tmp_path, lang):
    """Missing hypotheses and empty ones, Windows' line ends: what the command prints of lines."""
    texts = texts_of(lang)
    tables = {"ref": texts.references, "hyp": texts.hypotheses}
    for name, side in tables.items():
        lines = [f"{key} {text}" for key, text in zip(texts.keys, side, strict=True)]
        if name == "hyp":  # the first has none
            lines = lines[1:]
        (tmp_path / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    job = Job("mt", tmp_path / "ref", tmp_path / "hyp", lang, tmp_path / "out")
    score_job(job, Settings(metrics=["bleu", "chrf", "ter"], resamples=10))
    scores = json.loads((tmp_path / "out/score_bleu/score.json").read_text())["scores"]
    lines = Texts(texts.keys, texts.references, ["", *texts.hypotheses[1:]], lang)
    options = ("-m", "bleu", "chrf", "ter", "-tok", TOKENIZER[lang])
    for ours, printed in zip(scores, command(tmp_path, lines, *options), strict=True):
        assert round(ours["value"], 9) == printed["score"]
        assert ours["signature"] == printed["signature"]
