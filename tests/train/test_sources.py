"""Sources as streams, and the joining of their tables."""

import pytest
from helpers_lm import GERMAN, SENTENCES, UNITS_NAME, make_data_dir

from espnet_spire.text.prompts import Turn
from espnet_spire.train.sources import (
    Raw,
    content_hash,
    conversation,
    join_tables,
    mixture_files,
    plain_text,
    read_stream,
    streams_of,
)
from espnet_spire.utils.errors import SpireError

U = "\U000f0000"


def tables(tmp_path, *contents):
    paths = []
    for number, content in enumerate(contents):
        paths.append(str(tmp_path / f"t{number}"))
        (tmp_path / f"t{number}").write_text(content, encoding="utf-8")
    return paths


def test_join_keeps_the_keys_of_the_first_table(tmp_path):
    paths = tables(tmp_path, "b 1\nd 2\n", "a x\nb y\nc z\nd w w\ne v\n", "b\nd q\n")
    assert list(join_tables(paths)) == [("b", ["1", "y", ""]), ("d", ["2", "w w", "q"])]
    assert list(join_tables(paths, [(4, None), (8, 18), (0, None)])) == [("d", ["2", "w w", "q"])]
    assert next(join_tables(tables(tmp_path, "a 1\n", "a 2\nbroken")))[0] == "a"  # streams


@pytest.mark.parametrize("second", ["a 1\nc 1\n", "a 1\n", "", "c 1\n"])
def test_join_names_the_missing_key(tmp_path, second):
    with pytest.raises(SpireError, match=r"t1: key [ab] of .*t0 is missing"):
        list(join_tables(tables(tmp_path, "a 1\nb 1\n", second)))


def test_join_refuses_unsorted_tables(tmp_path):
    with pytest.raises(SpireError, match=r"t1, line 3: key a comes after b"):
        list(join_tables(tables(tmp_path, "a 1\nc 1\n", "a 1\nb 1\na 1\n")))
    with pytest.raises(SpireError, match=r"t0, line 2: key a is there twice"):
        list(join_tables(tables(tmp_path, "a 1\na 1\n", "a 1\n")))


def test_a_part_looks_at_every_line_of_its_tables(tmp_path):
    paths = tables(tmp_path, "a 1\n", "a 1\nc 1\nb 1\n")
    assert len(list(join_tables(paths))) == 1
    with pytest.raises(SpireError, match="t1, line 3: key b comes after c"):
        list(join_tables(paths, [(0, 4), (0, 12)]))


def test_files_of_sources():
    def files(**source):
        return mixture_files([{"name": "n", **source}], "u")

    assert files(task="asr", data_dir="d") == ["d/text", "d/u"]
    assert files(task="st", data_dir="d", targets=["de", "fr"], translations="p/{lang}") == [
        *("d/text", "d/u", "p/de/text.tc.de", "p/fr/text.tc.fr")
    ]
    assert files(task="mt", text_dir="t", pairs=["en-de", "de-en"]) == [
        *("t/text.tc.de", "t/text.tc.en")
    ]
    assert files(task="mono", text_dir="t", langs=["zh"]) == ["t/text.zh"]
    assert files(task="chat", file="b.jsonl") == ["b.jsonl"]


def test_streams_and_their_languages():
    def langs(**source):
        return [stream.lang for stream in streams_of({"name": "n", **source}, "u")]

    assert langs(task="asr", data_dir="d") == ["en"]
    assert langs(task="asr", data_dir="d", speech_lang="de") == ["de"]
    assert langs(task="st", data_dir="d", targets=["fr", "de"]) == ["en-fr", "en-de"]
    assert langs(task="mt", text_dir="t", pairs=["en-de", "de-en"]) == ["en-de", "de-en"]
    assert langs(task="mono", text_dir="t", langs=["zh", "xx"]) == ["zh", "xx"]
    assert langs(task="chat", file="f") == [""]


def read(source, seed=0):
    return [raw for stream in streams_of(source, UNITS_NAME) for raw in read_stream(stream, seed)]


def test_examples_of_each_task(tmp_path):
    data = make_data_dir(tmp_path / "data", 1)
    (data / "text.tc.en").write_text((data / "text").read_text())
    (data / "text.zh").write_text("z1 厨师\nz2\n", encoding="utf-8")
    units = (data / UNITS_NAME).read_text().split(" ", 1)[1].rstrip("\n")
    speech = {"name": "n", "data_dir": str(data)}
    texts = {"name": "n", "text_dir": str(data)}
    en, de = SENTENCES[0], GERMAN[0]
    (asr,) = read({**speech, "task": "asr"})
    assert asr == Raw("utt000", "en", (en,), units)
    (st,) = read({**speech, "task": "st", "targets": ["de"]})
    assert st == Raw("utt000.de", "en-de", (en, de), units)
    (mt,) = read({**texts, "task": "mt", "pairs": ["de-en"]})
    assert mt == Raw("utt000.de-en", "de-en", (de, en))
    assert read({**texts, "task": "mono", "langs": ["zh"]}) == [
        Raw("z1.zh", "zh", ("厨师",)),
        Raw("z2.zh", "zh", ("",)),
    ]


FORMS = [
    (
        {"task": "asr", "data_dir": "d"},
        ("a child",),
        f"Speech:{U}\nEnglish: a child",
        [("user", f"Speech: {U}\nEnglish:"), ("assistant", "a child")],
    ),
    (
        {"task": "asr", "data_dir": "d", "speech_lang": "de"},
        ("ein Kind",),
        f"Speech:{U}\nGerman: ein Kind",
        [("user", f"Speech: {U}\nGerman:"), ("assistant", "ein Kind")],
    ),
    (
        {"task": "st", "data_dir": "d", "targets": ["de"]},
        ("a child", "ein Kind"),
        None,
        [("user", f"Speech: {U}\nGerman:"), ("assistant", "ein Kind")],
    ),
    (
        {"task": "st_multi_turn", "data_dir": "d", "targets": ["de"]},
        ("a child", "ein Kind"),
        None,
        [
            *(("user", f"Speech: {U}\nEnglish:"), ("assistant", "a child")),
            *(("user", "German:"), ("assistant", "ein Kind")),
        ],
    ),
    (
        {"task": "mt", "text_dir": "d", "pairs": ["de-en"]},
        ("ein Kind", "a child"),
        "German: ein Kind\nEnglish: a child",
        [
            (
                "user",
                "Translate the following text from German to English.\nGerman: ein Kind\nEnglish:",
            ),
            ("assistant", "a child"),
        ],
    ),
    ({"task": "mono", "text_dir": "d", "langs": ["de"]}, ("ein Kind",), "ein Kind", None),
]


@pytest.mark.parametrize("source, texts, plain, turns", FORMS)
def test_the_forms_of_each_task(source, texts, plain, turns):
    (stream,) = streams_of({"name": "n", **source}, "u")
    raw = Raw("k", stream.lang, texts)
    if plain is not None:
        assert plain_text(stream, raw, [0]) == plain
    if turns is not None:
        assert conversation(stream, raw, [0]) == [Turn(*turn) for turn in turns]


def test_ranges_are_disjoint_and_complete(tmp_path):
    data = str(make_data_dir(tmp_path / "data", 60))
    base = {"task": "st", "data_dir": data, "targets": ["de"]}

    def keys(name, span=None):
        source = {**base, "name": name, **({"range": span} if span else {})}
        return [raw.key for raw in read(source, 7)]

    first, second, third = keys("a", [0, 0.3]), keys("b", [0.3, 0.5]), keys("c", [0.5, 1])
    assert all(0 < len(part) < 60 for part in (first, second, third))
    assert sorted(first + second + third) == keys("all") == [f"utt{i:03d}.de" for i in range(60)]
    assert set(first) <= set(keys("b", [0, 0.5]))


def test_a_range_has_the_same_utterances_for_every_task_and_language(tmp_path):
    data = make_data_dir(tmp_path / "data", 60)
    for lang in ("en", "fr"):
        (data / f"text.tc.{lang}").write_text((data / "text").read_text())

    def utterances(task, span=(0, 0.5), **more):
        folder = {"text_dir" if task == "mt" else "data_dir": str(data)}
        source = {"name": task, "task": task, "range": span, **folder, **more}
        return {raw.key[:6] for raw in read(source, 7)}

    expected = utterances("asr")
    assert 15 < len(expected) < 45
    for targets in (["de"], ["fr"], ["fr", "de"]):
        assert utterances("st", targets=targets) == expected
        assert utterances("st_multi_turn", targets=targets) == expected
    # direct and multi-turn prompts of conf/mixture_it.yaml
    rest = utterances("st_multi_turn", (0.5, 1), targets=["de"])
    assert not rest & expected and len(rest | expected) == 60
    assert utterances("mt", pairs=["de-en"]) == utterances("mt", pairs=["fr-en"]) == expected


def test_the_hash_of_an_example_depends_on_all_that_a_corpus_gave():
    turns = [Turn("user", "a"), Turn("assistant", "b")]
    raw = Raw("k", "en", ("a", "b"), "1 2", turns)
    others = [
        raw._replace(key="l"),
        raw._replace(lang="de"),
        raw._replace(texts=("a", "c")),
        raw._replace(line="1 3"),
        raw._replace(line=None),
        raw._replace(turns=[Turn("system", "a"), turns[1]]),
    ]
    assert content_hash(raw) == content_hash(raw._replace(turns=list(turns)))
    assert len({content_hash(x) for x in (raw, *others)}) == 7


def test_mt_of_transcripts(tmp_path):
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    (tmp_path / "text").write_text("a mwashibukeni\n")
    (tmp_path / "text.tc.en").write_text("a good morning\n")
    source = {"name": "m", "task": "mt", "text_dir": str(tmp_path), "pairs": ["bem-en", "en-bem"]}
    there, back = streams_of({**source, "speech_lang": "bem"}, "units")
    assert [(raw.key, raw.texts) for raw in read_stream(there, 0)] == [
        ("a.bem-en", ("mwashibukeni", "good morning"))
    ]
    assert [raw.texts for raw in read_stream(back, 0)] == [("good morning", "mwashibukeni")]
    (there, _) = streams_of(source, "units")
    assert there.tables[0] == str(tmp_path / "text.tc.bem")
