import pytest
from helpers_tables import put_scores

from espnet_spire.score.layout import Run, find
from espnet_spire.score.tables.examples import collect_examples
from espnet_spire.utils.datadir import write_table
from espnet_spire.utils.errors import SpireError

REFERENCES = {"u1": "red green blue black", "u2": "old new", "u3": "cold warm", "u4": "tall"}
# WER: u1 25, u2 100 (both words), u3 0, u4 0; of the other model u3 50, else 0.
FIRST = {**REFERENCES, "u1": "red green blue", "u2": "a b"}
SECOND = {**REFERENCES, "u3": "cold"}
FULL, TOWER = (Run("k", "greedy", name) for name in ("spirefull", "towerfull"))


@pytest.fixture
def exp(tmp_path):
    for name, hypotheses in (("spirefull", FIRST), ("towerfull", SECOND)):
        directory = tmp_path / f"exp/spire_it_{name}_k/greedy/test"
        put_scores(directory, "asr.en-en", REFERENCES, hypotheses)
    return tmp_path / "exp"


def test_worst_first_of_each_with_the_answers_of_all(exp):
    kinds, examples = collect_examples(find([str(exp)]), 1)
    (kind,) = kinds
    assert (kind.set, kind.job.name, kind.metric, kind.spoken) == ("test", "asr.en-en", "wer", True)
    assert kind.utterances == {FULL: 4, TOWER: 4}
    assert [(e.question.utterance, e.rank) for e in examples] == [("u2", 0), ("u3", 0)]
    first, second = examples
    assert first.reference == "old new" and set(first.answers) == {FULL, TOWER}
    answer = first.answers[FULL]
    assert answer.text == "a b" and answer.scores["wer"] == 100.0 and "cer" in answer.scores
    assert answer.pieces == [["S", "old new", "a b"]]
    assert first.answers[TOWER].pieces == [["=", "old new", ""]]
    assert second.answers[TOWER].pieces == [["=", "cold", ""], ["D", "warm", ""]]


def test_as_many_as_wanted(exp):
    _, examples = collect_examples(find([str(exp)]), 2)
    assert [(e.question.utterance, e.rank) for e in examples] == [("u2", 0), ("u3", 0), ("u1", 1)]
    assert len(collect_examples(find([str(exp)]), 9)[1]) == 4
    kinds, none = collect_examples(find([str(exp)]), 0)
    assert none == [] and len(kinds) == 1


def test_answers_that_were_cut(exp):
    directory = exp / "spire_it_spirefull_k/greedy/test/asr.en-en"
    write_table(directory / "cut", {"u2": "64"})
    _, (first, *_) = collect_examples(find([str(exp)]), 1)
    assert first.answers[FULL].cut and not first.answers[TOWER].cut


def test_translations_are_judged_by_chrf(tmp_path):
    directory = tmp_path / "exp/spire_it_spirefull_k/greedy/test"
    references = {"u1": "Das ist gut.", "u2": "Das ist schlecht."}
    hypotheses = {"u1": "Das ist gut.", "u2": "Es war schlecht."}
    put_scores(directory, "st.en-de", references, hypotheses, metrics=["bleu", "chrf"])
    (kind,), (example,) = collect_examples(find([str(tmp_path / "exp")]), 1)
    assert kind.metric == "chrf" and example.question.utterance == "u2"
    assert example.answers[FULL].pieces == [["S", "Das ist", "Es war"], ["=", "schlecht.", ""]]


def test_texts_without_spaces_are_judged_by_characters(tmp_path):
    directory = tmp_path / "exp/spire_it_spirefull_k/greedy/test"
    put_scores(directory, "asr.zh-zh", {"u1": "我借书"}, {"u1": "我买书"})
    (kind,), (example,) = collect_examples(find([str(tmp_path / "exp")]), 1)
    assert kind.metric == "cer"
    assert example.answers[FULL].pieces == [["=", "我", ""], ["S", "借", "买"], ["=", "书", ""]]


def test_a_lost_file(exp):
    (exp / "spire_it_spirefull_k/greedy/test/asr.en-en/score_cer/utterances.jsonl").unlink()
    with pytest.raises(SpireError, match="utterances.jsonl: no such file; score first"):
        collect_examples(find([str(exp)]), 1)
