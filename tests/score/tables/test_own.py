from helpers_tables import result

from espnet_spire.score.tables.own import not_in, own_specs, read_by
from espnet_spire.score.tables.paper import paper_tables
from espnet_spire.score.tables.table import fill


def rows(spec, results):
    table = fill(spec, results)
    return {row.label: [cell.value for cell in row.cells] for row in table.rows}


def heads(spec):
    return [column.title for column in spec.columns]


def test_what_a_task_is_read_by():
    assert read_by("asr", ["cer", "wer"]) == ["wer", "cer"]
    assert read_by("st", ["chrf", "bleu"]) == ["bleu", "chrf"]
    assert read_by("mt", ["chrf", "bleu", "spbleu", "comet22"]) == ["comet22", "spbleu"]
    assert read_by("ner", ["f1"]) == ["f1"]


def test_what_the_paper_has_no_table_for():
    results = [
        result("spirefull", "librispeech_test-clean", "asr.en-en", "wer", 4.0),
        result("spirefull", "librispeech_test-clean", "asr.en-en", "cer", 2.0),
        result("spirefull", "mine", "asr.en-en", "wer", 5.0),
        result("spirefull", "flores200_devtest", "mt.en-de", "bleu", 30.0),
        result("spirefull", "fleurs_test", "st.en-de", "spbleu", 30.0),
        result("spirefull", "fleurs_test", "st_multi_turn.en-de", "spbleu", 31.0),
    ]
    left = not_in(paper_tables().values(), results)
    # By BLEU alone FLORES is in none of the paper's tables, so that it is shown here.
    assert [(r.set, r.task, r.metric) for r in left] == [
        ("mine", "asr", "wer"),
        ("flores200_devtest", "mt", "bleu"),
        ("fleurs_test", "st_multi_turn", "spbleu"),
    ]


def test_tables_of_the_papers_shapes():
    values = {
        "asr.en-en": ("wer", 4.0), "mt.en-de": ("bleu", 30.0), "mt.en-fr": ("bleu", 40.0),
        "mt.de-en": ("bleu", 35.0), "st.en-de": ("bleu", 20.0), "st.en-fr": ("bleu", 26.0),
        "st_cascade.en-de": ("bleu", 25.0), "ner.de-de": ("f1", 61.0),
    }  # fmt: skip
    results = [
        result(system, "mine", job, metric, value + plus)
        for system, plus in (("spirefull", 0), ("towerfull", 1))
        for job, (metric, value) in values.items()
    ]
    specs = own_specs(results)
    assert [spec.title for spec in specs] == [
        "ASR on various test sets",
        "MT on mine, en→xx",
        "MT on mine, xx→en",
        "NER on mine",
        "ST on mine, en→xx",
        "All models on mine",
    ]
    asr, out, into, ner, st, models = specs
    assert heads(asr) == ["mine WER"] and rows(asr, results)["TowerFull"] == [5.0]
    assert heads(out) == ["de BLEU", "fr BLEU", "avg 2 BLEU"]
    assert rows(out, results)["SpireFull"] == [30.0, 40.0, 35.0]
    assert heads(into) == ["de BLEU"] and heads(ner) == ["de F1"]
    assert [section.title for section in st.sections] == ["Self-cascade", "Direct"]
    table = fill(st, results)
    cascade, direct = (members[0] for _, members in table.sections)
    assert [cell.value for cell in cascade.cells] == [25.0, None, None]
    assert [cell.value for cell in direct.cells] == [20.0, 26.0, 23.0]
    assert heads(models) == [
        "ASR WER", "MT en→xx BLEU", "MT xx→en BLEU", "ST direct BLEU", "ST self-cascade BLEU",
    ]  # fmt: skip
    assert rows(models, results) == {
        "SpireFull": [4.0, 35.0, 35.0, 23.0, 25.0],
        "TowerFull": [5.0, 36.0, 36.0, 24.0, 26.0],
    }


def test_one_model_alone_is_not_compared():
    results = [result("spirefull", "mine", "asr.en-en", "wer", 4.0)]
    assert [spec.title for spec in own_specs(results)] == ["ASR on various test sets"]


def test_many_languages_have_a_table_for_each_metric():
    results = [
        result("spirefull", "mine", f"mt.en-{lang}", metric, 30.0)
        for lang in ("de", "es", "fr", "it", "nl", "pt")
        for metric in ("bleu", "chrf")
    ]
    first, second = own_specs(results)
    assert first.title == "MT on mine, en→xx in terms of BLEU" and heads(first)[0] == "de"
    assert second.title.endswith("chrF") and heads(second)[-1] == "avg 6"
    assert len(first.columns) == len(second.columns) == 7


def test_the_language_that_is_spoken_is_another():
    results = [
        result("spirefull", "mine", "st.de-en", "bleu", 20.0),
        result("spirefull", "mine", "mt.de-en", "bleu", 30.0),
    ]
    assert [spec.title for spec in own_specs(results, "de")] == [
        "MT on mine, de→xx", "ST on mine, de→xx",
    ]  # fmt: skip


def test_sets_of_one_pair_each_share_a_table():
    results = [
        result("spirefull", f"wmt23.{pair}", f"mt.{pair}", "bleu", value)
        for pair, value in (("en-de", 30.0), ("en-zh", 20.0), ("de-en", 40.0))
    ]
    results += [
        result("spirefull", f"ner.{lang}", f"ner.{lang}-{lang}", "f1", value)
        for lang, value in (("de", 60.0), ("en", 70.0))
    ]
    out, into, ner = own_specs(results)
    assert out.title == "MT on wmt23, en→xx" and into.title == "MT on wmt23, xx→en"
    assert rows(out, results) == {"SpireFull": [30.0, 20.0, 25.0]}
    assert ner.title == "NER on ner" and rows(ner, results) == {"SpireFull": [60.0, 70.0, 65.0]}
