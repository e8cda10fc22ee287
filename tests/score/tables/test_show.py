import pytest
from helpers_tables import put_scores

from espnet_spire.score.layout import find
from espnet_spire.score.tables.show import show
from espnet_spire.utils.errors import SpireError

TEXTS = {"u1": "red green", "u2": "old new"}


@pytest.fixture
def exp(tmp_path):
    for system, texts in (
        ("spire_it_spirefull_k", {**TEXTS, "u1": "red gray"}),
        ("baseline_whisper-base", {"u1": "red green"}),
    ):
        for name in ("fleurs_test", "mine"):
            put_scores(tmp_path / f"exp/{system}/greedy/{name}", "asr.en-en", TEXTS, texts)
    return tmp_path / "exp"


def test_the_papers_tables_first_then_those_of_other_sets(exp):
    shown = show(find([str(exp)]))
    assert [table.spec.name.split(":")[0] for table in shown.tables] == [
        "Table 2",
        "Table 12",
        "ASR on various test sets",
        "All models on mine",
    ]
    table = shown.tables[0]
    figures = {row.label: (row.cells[2].value, row.cells[2].paper.value) for row in table.rows}
    # One of four words is wrong; of Whisper's two utterances one is missing, so two of four.
    assert figures == {"SpireFull": (25.0, 10.7), "whisper-base": (50.0, 12.1)}
    assert [row.label for row in table.rows] == ["whisper-base", "SpireFull"]
    assert [chart.title for chart in shown.charts()] == ["WER by test set"]


def test_what_is_not_there_is_said(exp):
    empty, *missing = show(find([str(exp)])).notes
    assert empty.startswith("No results here for the paper's tables 3, 4, 5, 6, 7, 9, 11:")
    assert missing == [
        f"whisper-base asr.en-en on {name}: 1 hypotheses were missing and counted as empty."
        for name in ("fleurs_test", "mine")
    ]


def test_the_papers_other_systems_if_wanted(exp):
    table = show(find([str(exp)]), others=True).tables[0]
    assert [row.label for row in table.rows if row.run is None][:2] == [
        "Whisper-large-v3", "SeamlessM4T",
    ]  # fmt: skip
    assert sum(row.run is not None for row in table.rows) == 2


def test_a_broken_score(exp):
    path = exp / "baseline_whisper-base/greedy/mine/asr.en-en/score_wer/score.json"
    path.write_text('{"scores": [{}]}')
    with pytest.raises(SpireError, match="score_wer/score.json: not a score file .*score again"):
        show(find([str(exp)]))
