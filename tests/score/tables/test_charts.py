import xml.etree.ElementTree as ET

import pytest
from helpers_tables import result

from espnet_spire.score.tables.charts import (
    Bar,
    Chart,
    error_chart,
    model_charts,
    svg,
    ticks,
    translation_charts,
)
from espnet_spire.score.tables.own import own_specs
from espnet_spire.score.tables.paper import paper_tables
from espnet_spire.score.tables.table import fill

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    "highest, last, count", [(4.2, 5, 6), (93, 100, 6), (100, 100, 6), (0.4, 0.4, 5), (410, 500, 6)]
)
def test_ticks(highest, last, count):
    found = ticks(highest)
    assert found[0] == 0 and found[-1] == last and len(found) == count


def test_bars_are_as_long_as_their_figures():
    bars = (Bar(0, 50.0, 40.0, 60.0, 100.0), Bar(1, 100.0))
    chart = Chart("A < B", "wer", ("first", "second"), (("one & only", bars),))
    drawn = ET.fromstring(
        svg(chart, "c").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )
    first, second = (float(r.get("width")) for r in drawn.iter(f"{SVG}rect"))
    assert second == pytest.approx(2 * first, abs=0.2)
    assert [r.get("class") for r in drawn.iter(f"{SVG}rect")] == ["s0", "s1"]
    assert sorted(p.get("class") for p in drawn.iter(f"{SVG}path")) == ["paper", "whisker"]
    texts = [t.text for t in drawn.iter(f"{SVG}text")]
    assert "one & only" in texts and "50.0" in texts
    # For those who do not see it: a name and all the figures.
    title, desc = drawn.find(f"{SVG}title"), drawn.find(f"{SVG}desc")
    assert drawn.get("role") == "img"
    assert drawn.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert title.text == "A < B"
    assert desc.text == "one & only: first 50.0 [40.0, 60.0] (paper 100.0), second 100.0"


def test_wer_by_set():
    results = [
        result("spirefull", "fleurs_test", "asr.en-en", "wer", 11.0, low=10.0, high=12.0),
        result("spirefull", "mine", "asr.en-en", "wer", 5.0),
        result("towerfull", "mine", "asr.en-en", "wer", 9.0),
        result("towerfull", "mine", "asr.en-en", "cer", 3.0),
    ]
    (chart,) = error_chart(results)
    assert chart.series == ("SpireFull", "TowerFull") and chart.direction == "lower is better"
    assert chart.groups == (
        ("fleurs_test", (Bar(0, 11.0, 10.0, 12.0, 10.7),)),
        ("mine", (Bar(0, 5.0), Bar(1, 9.0))),
    )
    assert error_chart(results[3:]) == []


def test_bleu_by_language_direct_beside_self_cascade():
    results = [
        result("spirefull", "fleurs_test", "st_cascade.en-de", "spbleu", 38.0),
        result("spirefull", "fleurs_test", "st_cascade.en-de", "bleu", 37.0),
        result("spirefull", "fleurs_test", "st.en-de", "spbleu", 31.0),
        result("towerfull", "fleurs_test", "st.en-de", "spbleu", 44.0),
    ]
    spire, tower = translation_charts(results)
    assert spire.metric == "spbleu" and spire.series == ("direct", "self-cascade")
    assert spire.groups == (("en→de", (Bar(0, 31.0, paper=31.1), Bar(1, 38.0, paper=38.1))),)
    assert tower.groups == (("en→de", (Bar(0, 44.0),)),)
    assert spire.highest == tower.highest == 44.0  # their axes are the same


def test_ablations():
    results = [
        result(system, "mine", job, metric, value)
        for system, value in (("spirefull", 4.0), ("towerfull", 9.0))
        for job, metric in (("asr.en-en", "wer"), ("mt.en-de", "bleu"), ("st.en-de", "bleu"))
    ]
    tables = [fill(spec, results) for spec in own_specs(results)[-1:]]
    (bleu,) = model_charts(tables)
    assert bleu.metric == "bleu" and bleu.series == ("SpireFull", "TowerFull")
    assert bleu.groups == (
        ("MT en→xx", (Bar(0, 4.0), Bar(1, 9.0))),
        ("ST direct", (Bar(0, 4.0), Bar(1, 9.0))),
    )


def test_ablations_of_the_papers_sets():
    """Table 12: WMT23 has a set for each pair; slips of the paper's are no marks."""
    results = [
        result(system, f"wmt23.{pair}", f"mt.{pair}", "spbleu", value)
        for system, value in (("spirefull", 30.0), ("spirenoblocks", 20.0))
        for pair in ("en-de", "en-ru", "en-zh", "de-en", "ru-en", "zh-en")
    ]
    (chart,) = model_charts([fill(paper_tables()[12], results)])
    assert chart.title == "Ablations: Table 12" and chart.metric == "spbleu"
    assert chart.groups == (
        ("MT en→xx", (Bar(0, 30.0, paper=37.2), Bar(1, 20.0, paper=26.9))),
        ("MT xx→en", (Bar(0, 30.0), Bar(1, 20.0, paper=25.1))),
    )
    assert model_charts([fill(paper_tables()[12], results[:6])]) == []
