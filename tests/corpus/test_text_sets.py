"""Test sets of text alone: FLORES-200, WMT23, post-editing, named entities."""

import json

import pytest
from corpora import ape_ner, flores200, wmt23
from corpora.text_checks import prepare_text

from espnet_spire.bin import score, spire_inference
from espnet_spire.bin.prepare_text import main
from espnet_spire.corpus.records import LeftOut, Utterance
from espnet_spire.corpus.rules import Setting, without_overlap
from espnet_spire.score.files import read_entries
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.datadir import utterance_keys, validate_data_dir
from espnet_spire.utils.errors import SpireError

# FLORES --------------------------------------------------------------------------------------


@pytest.fixture
def flores(tmp_path):
    return flores200.build(tmp_path / "FLORES 200")


def test_flores(flores, tmp_path, capsys):
    out = tmp_path / "flores200_devtest"
    tables = prepare_text("flores200", out, "--root", flores, "--split", "devtest")
    assert list(tables) == [f"text.tc.{lang}" for lang in sorted(flores200.CODES)]
    keys = [f"devtest{number:04d}" for number in range(1, 13)]
    assert validate_data_dir(out) == 12 and utterance_keys(out) == keys
    for lang in flores200.CODES:
        assert tables[f"text.tc.{lang}"] == dict(zip(keys, flores200.sentences(lang), strict=True))
    dev = prepare_text("flores200", tmp_path / "dev", "--root", flores, "--split", "dev")
    assert dev["text.tc.de"]["dev0002"] == flores200.sentences("de", "dev")[1]
    main(["--corpus", "flores200", "--root", str(flores), "--print_index", "--langs", "zh", "en"])
    folder = flores / "flores200_dataset/devtest"
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{folder}/zho_Hans.devtest", f"{folder}/eng_Latn.devtest"]


def test_flores_plus(tmp_path):
    plus = flores200.build_plus(tmp_path / "flores_plus")
    root = flores200.build(tmp_path / "flores")
    found = prepare_text("flores200", tmp_path / "a", "--root", plus, "--split", "devtest")
    assert found == prepare_text("flores200", tmp_path / "b", "--root", root, "--split", "devtest")
    rows = [{"id": 5, "text": "a"}, {"id": 6, "text": "b"}]
    for code, ids in (("eng_Latn", (5, 6)), ("deu_Latn", (5, 7))):
        (plus / f"devtest/{code}.parquet").unlink()
        lines = [json.dumps({**row, "id": one}) for row, one in zip(rows, ids, strict=True)]
        (plus / f"devtest/{code}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(SpireError, match="deu_Latn.jsonl, line 2: sentence 7 where .* has 6"):
        prepare_text("flores200", tmp_path / "c", "--root", plus, "--langs", "en", "de")
    (plus / "devtest/deu_Latn.jsonl").write_text("\n".join([json.dumps(rows[0])] * 2))
    with pytest.raises(SpireError, match="deu_Latn.jsonl: one id is there twice"):
        prepare_text("flores200", tmp_path / "c", "--root", plus, "--langs", "de")


def test_other_languages_of_flores(flores, tmp_path):
    folder = flores / "flores200_dataset/devtest"
    (folder / "gle_Latn.devtest").write_text("abhainn\n")
    tables = prepare_text("flores200", tmp_path / "out", "--root", flores, "--langs", "ga")
    assert tables == {"text.tc.ga": {"devtest0001": "abhainn"}}
    (folder / "gle_Hans.devtest").write_text("x\n")
    with pytest.raises(SpireError, match="several files of ga: gle_Hans.devtest, gle_Latn"):
        prepare_text("flores200", tmp_path / "out", "--root", flores, "--langs", "ga")


def break_file(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_file(b"x\n" * 11), "deu_Latn.devtest has 11 sentences and .*eng_Latn.devtest 12"),
        (break_file(b"x\n" * 3 + b"\xff\n" * 9), "deu_Latn.devtest, line 4: not valid UTF-8"),
        (break_file(b"x\n" * 5 + b" \n" * 7), "deu_Latn.devtest, line 6: no text for text.tc.de"),
        (lambda path: path.unlink(), r"no file of de \(deu_Latn.devtest\) there"),
    ],
)
def test_a_flores_that_is_not_whole(flores, tmp_path, change, message):
    change(flores / "flores200_dataset/devtest/deu_Latn.devtest")
    with pytest.raises(SpireError, match=message):
        prepare_text("flores200", tmp_path / "out", "--root", flores)
    assert not (tmp_path / "out").exists()


def test_fleurs_is_filtered_by_it(flores, tmp_path):
    prepare_text("flores200", tmp_path / "flores", "--root", flores)
    table = tmp_path / "flores/text.tc.en"
    sentence = flores200.sentences("en")[3]
    spoken = sentence.upper().replace(".", " !")  # the same after Whisper's normaliser
    utterances = [Utterance("u1", "a", spoken, "s", ""), Utterance("u2", "b", "other", "s", "")]
    found = list(without_overlap(str(table)).apply(utterances, Setting(0, tmp_path, 1)))
    assert found[1] == utterances[1]
    assert found[0] == LeftOut("u1", f"is sentence devtest0004 of {table}: {spoken}")


def test_it_is_decoded_and_scored(flores, tmp_path, lm_dir, capsys):
    data, out = tmp_path / "flores", tmp_path / "out"
    prepare_text("flores200", data, "--root", flores)
    options = ["--model", str(lm_dir), "--data_dir", str(data), "--out", str(out)]
    options += ["--max_new_tokens", "3", "--device", "cpu", "--jobs"]
    spire_inference.main([*options, "mt.en-zh", "mt.fr-en"])
    score.main(["--decode_dir", str(out), "--data_dir", str(data)])
    assert capsys.readouterr().out.count(": BLEU ") == 2
    scored = read_entries(out / "mt.fr-en/score_bleu/utterances.jsonl")
    assert [row["utterance"] for row in scored] == utterance_keys(data)
    assert [row["reference"] for row in scored] == flores200.sentences("en")
    assert [row["source"] for row in scored] == flores200.sentences("fr")
    with pytest.raises(SpireError, match="flores: job asr.en-en needs speech, and this set has no"):
        spire_inference.main([*options, "asr.en-en"])


# Tower-Eval ----------------------------------------------------------------------------------


@pytest.fixture
def tower(tmp_path):
    return ape_ner.build(wmt23.build(tmp_path / "Tower Eval"))


@pytest.mark.parametrize("below", ["", "data", "data/raw_data"])
def test_wmt23(tower, tmp_path, below):
    out = tmp_path / "wmt23.zh-en"
    tables = prepare_text("wmt23", out, "--root", tower / below, "--split", "zh-en")
    keys = [f"wmt23.zh-en-{number:05d}" for number in range(1, 7)]
    rows = wmt23.rows("zh-en")
    source, target = tables["text.tc.zh"], tables["text.tc.en"]
    assert list(source) == list(target) == keys and validate_data_dir(out) == 6
    assert [source[key] for key in keys[:5]] == [row["src"] for row in rows[:5]]
    # a paragraph is one line of a table; that is told
    assert target[keys[5]] == rows[5]["ref"].replace("\n", " ")
    assert read_json(out / "preparation.json")["texts_with_line_breaks"] == 2
    assert (out / "jobs").read_text() == "mt.zh-en\n"  # not the other way


def test_other_sets_of_translation(tower, tmp_path):
    wmt23.write_rows(
        tower / "data/raw_data/mt/tico19.en-pt/test.jsonl", [{"src": "a", "ref": "b", "x": 1}]
    )
    tables = prepare_text("wmt23", tmp_path / "out", "--root", tower, "--split", "tico19.en-pt")
    assert tables["text.tc.pt"] == {"tico19.en-pt-00001": "b"}


def test_post_editing(tower, tmp_path):
    out = tmp_path / "ape.en-ru"
    tables = prepare_text("ape", out, "--root", tower, "--split", "en-ru")
    rows = ape_ner.edits("en-ru")
    assert validate_data_dir(out) == 4
    for name, column in (("text.tc.en", "src"), ("text.mt.ru", "mt"), ("text.tc.ru", "ref")):
        assert tables[name] == {
            f"nllb_3b_wmt23.en-ru-{number:05d}": row[column] for number, row in enumerate(rows, 1)
        }


def test_named_entities(tower, tmp_path):
    out = tmp_path / "ner.es"
    tables = prepare_text("ner", out, "--root", tower, "--split", "es")
    keys = [f"multiconer2023.es-{number:05d}" for number in (1, 2, 3)]
    assert validate_data_dir(out) == 3
    assert tables["text.tags.es"] == {
        keys[0]: "B-Person I-Person O O",
        keys[1]: "O O B-Location O O",
        keys[2]: "B-Medical",
    }
    tokens = {key: json.loads(value) for key, value in tables["text.tokens.es"].items()}
    assert tokens == {
        key: [token for token, _ in pairs]
        for key, pairs in zip(keys, ape_ner.ENTITIES, strict=True)
    }
    assert tables["text.input.es"][keys[0]] == '["emilio", "castelar", "said", """]'


def test_named_entities_as_lists(tower, tmp_path):
    path = tower / "data/raw_data/ner/multiconer2023.de/test.jsonl"
    wmt23.write_rows(
        path, [{"answer": [["Köln", "B-Location"], ["!", "O"]], "input": ["Köln", "!"]}]
    )
    tables = prepare_text("ner", tmp_path / "out", "--root", tower, "--split", "de")
    key = "multiconer2023.de-00001"
    assert tables["text.input.de"] == tables["text.tokens.de"] == {key: '["Köln", "!"]'}
    assert tables["text.tags.de"] == {key: "B-Location O"}


ANSWERS = [
    "",
    "[]",
    '[("a", "B-Person")',
    '[("a", "Person")]',
    '[("a", "O"), "b"]',
    7,
    [["a"]],
    [["a", "X"]],
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_cannot_be_read(tower, tmp_path, answer):
    path = tower / "data/raw_data/ner/multiconer2023.de/test.jsonl"
    wmt23.write_rows(path, [{"input": "x", "answer": '[("x", "O")]'}, {"answer": answer}])
    message = "test.jsonl, line 2, 'answer': not a list of tokens with tags"
    with pytest.raises(SpireError, match=message):
        prepare_text("ner", tmp_path / "out", "--root", tower, "--split", "de")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "test.jsonl, line 1: no 'src', but "),
        ('{"src": "a"}', "line 1: no 'ref', but src"),
        ('{"src": "", "ref": "b"}', "line 1, 'src': no text for text.tc.en \\(''\\)"),
        ('{"src": "a", "ref": null}', "line 1, 'ref': no text for text.tc.de \\(None\\)"),
        ("[]", "line 1: a JSON object was expected"),
        ("nothing", "line 1: not valid JSON"),
        ("\udcff", "line 1: not valid UTF-8"),
    ],
)
def test_translations_that_are_not_whole(tower, tmp_path, line, message):
    path = tower / "data/raw_data/mt/wmt23.en-de/test.jsonl"
    path.write_bytes(f"{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(SpireError, match=message):
        prepare_text("wmt23", tmp_path / "out", "--root", tower, "--split", "en-de")
    path.write_bytes(b"")
    with pytest.raises(SpireError, match="test.jsonl: there is nothing in it"):
        prepare_text("wmt23", tmp_path / "out", "--root", tower, "--split", "en-de")


@pytest.mark.parametrize(
    ("corpus", "split", "message"),
    [
        ("wmt23", "en-fr", "wmt23.en-fr/test.jsonl: no such file; there are wmt23.de-en, wmt23.en"),
        ("wmt23", "de", "wmt23: --split de: one such as en-de was expected"),
        ("ner", "en-de", "ner: --split en-de: one such as de was expected"),
        ("ape", "en-qq", "language 'qq'"),
        ("flores200", "train", "flores200 has no split 'train'; it has devtest, dev"),
        ("flores200", "devtest", r"Eval: no directory of devtest there \(devtest or flores200_da"),
    ],
)
def test_sets_that_are_not_there(tower, tmp_path, corpus, split, message):
    with pytest.raises(SpireError, match=message):
        prepare_text(corpus, tmp_path / "out", "--root", tower, "--split", split)
