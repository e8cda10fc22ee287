import re

import pytest
from helpers_tables import result

from espnet_spire.score.tables.formats import latex, markdown
from espnet_spire.score.tables.paper import paper_tables
from espnet_spire.score.tables.table import fill

CLEAN, OTHER = "librispeech_test-clean", "librispeech_test-other"
LANGS = ("de", "es", "fr", "it", "ko", "nl", "pt", "ru", "zh")


def cells(table, label):
    return next(row.cells for row in table.rows if row.label == label)


def test_ours_beside_the_papers():
    results = [
        result("spirefull", CLEAN, "asr.en-en", "wer", 4.04, low=3.81, high=4.37),
        result("spirefull", OTHER, "asr.en-en", "wer", 7.5),
        result("towerfull", CLEAN, "asr.en-en", "wer", 9.5),
    ]
    table = fill(paper_tables()[2], results)
    clean, other, fleurs, _ = cells(table, "SpireFull")
    assert (clean.value, clean.low, clean.high, clean.paper.value) == (4.04, 3.81, 4.37, 4.2)
    assert clean.difference == pytest.approx(-0.16) and clean.better is True
    assert other.difference == pytest.approx(0.4) and other.better is False
    assert fleurs.value is None and fleurs.paper.value == 10.7 and fleurs.difference is None
    # Table 2 has no TowerFull: a row without figures of the paper's, behind its own.
    assert [row.label for row in table.rows] == ["SpireFull", "TowerFull"]
    assert not next(row for row in table.rows if row.label == "TowerFull").compared
    assert markdown([table]).splitlines() == [
        "## Table 2: WER on various ASR test sets",
        "",
        "|  | LibriSpeech Clean | LibriSpeech Other | FLEURS | VoxPopuli |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| SpireFull | 4.0 [3.8, 4.4] | 7.5 | – | – |",
        "| *paper* | 4.2 | 7.1 | 10.7 | 15.8 |",
        "| *difference* | −0.2 | +0.4 | – | – |",
        "| TowerFull | 9.5 | – | – | – |",
    ]
    with_all = fill(paper_tables()[2], results, others=True)
    labels = [row.label for row in with_all.rows]
    assert labels[:2] == ["Whisper-base", "Whisper-large-v3"] and len(labels) == 10
    assert labels[-2:] == ["SpireFull", "TowerFull"]


def test_an_average_needs_all_of_its_parts():
    """(20 + 21 + … + 28) / 9 = 24; without ko and ru (20 + … + 23 + 25 + 26 + 28) / 7 = 165 / 7."""
    results = [
        result("spirefull", "fleurs_test", f"st.en-{lang}", "spbleu", 20.0 + i)
        for i, lang in enumerate(LANGS)
    ]
    table = fill(paper_tables()[7], results)
    assert [title for title, _ in table.sections] == ["Direct"]
    row = cells(table, "SpireFull")
    assert [cell.value for cell in row[:9]] == [20.0 + i for i in range(9)]
    assert row[9].value == pytest.approx(165 / 7) and row[10].value == 24.0
    assert row[10].difference == pytest.approx(24.0 - 27.1)
    without = fill(paper_tables()[7], [r for r in results if r.tgt not in ("ko", "zh")])
    row = cells(without, "SpireFull")
    assert row[9].value is None and row[10].value is None and row[0].value == 20.0
    assert without.notes() == [
        "SpireFull, Direct, avg 7: not computed, 1 of 7 parts are missing (fleurs_test en→zh)",
        "SpireFull, Direct, avg all: not computed, 2 of 9 parts are missing"
        " (fleurs_test en→ko, fleurs_test en→zh)",
    ]


def test_sets_of_their_own_for_each_pair():
    results = [
        result("spirefull", "wmt23.en-de", "mt.en-de", "spbleu", 39.0),
        result("spirefull", "ape.en-de", "ape.en-de", "comet22", 83.0),
        result("spirefull", "ape.en-ru", "ape.en-ru", "comet22", 84.0),
        result("spirefull", "ape.en-zh", "ape.en-zh", "comet22", 85.0),
        result("spirefull", "ner.de", "ner.de-de", "f1", 60.0),
    ]
    assert cells(fill(paper_tables()[5], results), "SpireFull")[1].difference == pytest.approx(-0.5)
    ape = cells(fill(paper_tables()[4], results), "SpireFull")
    assert ape[0].value == 84.0 and ape[2].value is None and len(ape[2].missing) == 6
    assert "| *difference* | +0.87 | – | – |" in markdown([fill(paper_tables()[4], results)])


def test_several_runs_and_systems_by_their_names():
    results = [
        result("spirefull", CLEAN, "asr.en-en", "wer", 4.2, inference="greedy"),
        result("spirefull", CLEAN, "asr.en-en", "wer", 4.0, inference="beam"),
        result("whisper-BASE", CLEAN, "asr.en-en", "wer", 5.5, tag=""),
    ]
    table = fill(paper_tables()[2], results)
    labels = [row.label for row in table.rows]
    assert labels == ["whisper-BASE", "SpireFull (k, greedy)", "SpireFull (k, beam)"]
    assert cells(table, "whisper-BASE")[0].paper.value == 5.0
    same = cells(table, "SpireFull (k, greedy)")[0]
    assert same.better is None and "| *difference* | 0.0 |" in markdown([table])


def test_slips_of_the_paper_are_marked_and_not_judged():
    results = [
        result("spirenopseudo", "fleurs_test", f"st.en-{lang}", "spbleu", 7.0) for lang in LANGS
    ]
    table = fill(paper_tables()[9], results)
    last = cells(table, "SpireNoPseudo")[-1]
    assert last.value == pytest.approx(7.0) and last.better is None
    assert last.difference == pytest.approx(-20.1)
    text = markdown([table])
    assert "27.1 [sic]" in text and "Table 12 has 6.8" in text


def test_nothing_of_it():
    assert fill(paper_tables()[2], [result("spirefull", "mine", "asr.en-en", "wer", 1.0)]) is None


def test_latex_has_its_headings_and_escapes():
    results = [
        result("my_system & co", CLEAN, "asr.en-en", "wer", 4.0),
        result("spirefull", CLEAN, "asr.en-en", "wer", 4.0),
    ]
    text = latex([fill(paper_tables()[2], results)])
    assert r" & \multicolumn{2}{c}{LibriSpeech} &  &  \\" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"my\_system \& co & 4.0 & -- & -- & -- \\" in text
    assert r"\quad \textit{difference} & $-$0.2 & -- & -- & -- \\" in text
    body = text[text.index(r"\begin{table}") :]
    assert body.count(r"\begin{") == body.count(r"\end{") == 2
    assert body.count("{") == body.count("}")
    # Every row is as wide as the table, counting what spans columns.
    for line in body.splitlines():
        if line.endswith(r"\\"):
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert line.count(" & ") + sum(spans) == 4, line
