"""The mini grammar and the instructions made of it, against sentences written by hand."""

import collections
import json

import pytest

from espnet_spire.mini import blocks, grammar
from espnet_spire.utils.errors import SpireError

ALL = list(grammar.sentences())


def test_eight_thousand_different_sentences():
    assert grammar.NUM_SENTENCES == len(ALL) == 8000
    for lang in grammar.LANGS:
        assert len({s[lang] for s in ALL}) == 8000, lang


def test_english_words():
    lengths = collections.Counter(len(s["en"].split()) for s in ALL)
    assert set(lengths) == {9, 10, 11}
    assert all(s["en"][0].isupper() and s["en"].endswith(".") for s in ALL)
    assert all(s["zh"].endswith("。") and " " not in s["zh"] for s in ALL)
    assert not any("  " in s[lang] for s in ALL for lang in grammar.LANGS)


@pytest.mark.parametrize(
    "parts, expected",
    [
        (
            (0, 0, 0, 0),
            {
                "en": "The young doctor bought a heavy basket near the river.",
                "de": "Der junge Arzt hat am Fluss einen schweren Korb gekauft.",
                "fr": "Le jeune médecin a acheté un panier lourd près de la rivière.",
                "zh": "年轻的医生在河边买了一个沉重的篮子。",
            },
        ),
        (
            (4, 3, 6, 4),
            {
                "en": "The happy children are cleaning a yellow bicycle under the bridge.",
                "de": "Die fröhlichen Kinder reinigen unter der Brücke ein gelbes Fahrrad.",
                "fr": "Les enfants joyeux nettoient un vélo jaune sous le pont.",
                "zh": "快乐的孩子们正在桥下清洗一辆黄色的自行车。",
            },
        ),
        (
            (8, 3, 3, 1),
            {
                "en": "Her grandmother is cleaning a small guitar in the garden.",
                "de": "Ihre Großmutter reinigt im Garten eine kleine Gitarre.",
                "fr": "Sa grand-mère nettoie une petite guitare dans le jardin.",
                "zh": "她的奶奶正在花园里清洗一把小吉他。",
            },
        ),
        (
            (6, 7, 9, 9),
            {
                "en": "Two brave soldiers will borrow a blue carpet on the island.",
                "de": "Zwei tapfere Soldaten werden auf der Insel einen blauen Teppich ausleihen.",
                "fr": "Deux soldats courageux emprunteront un tapis bleu sur l'île.",
                "zh": "两名勇敢的士兵将在岛上借用一块蓝色的地毯。",
            },
        ),
    ],
)
def test_translations_by_hand(parts, expected):
    index = grammar.index_of(grammar.Parts(*parts))
    assert grammar.sentence(index) == expected


def test_index_round_trip_and_limits():
    for index in (0, 1, 799, 800, 7999):
        assert grammar.index_of(grammar.parts_of(index)) == index
    for index in (-1, 8000):
        with pytest.raises(SpireError, match=f"no sentence {index}"):
            grammar.sentence(index)


def test_german_article_agrees_with_adjective():
    # Accusative after the indefinite article: -en masculine, -e feminine, -es neuter.
    ending = {"einen": "en", "eine": "e", "ein": "es"}
    for phrase in grammar.OBJECTS:
        article, adjective, _ = phrase.de.split()
        assert adjective.endswith(ending[article]), phrase.de


def test_chinese_place_before_verb_and_german_place_before_object():
    for index in range(0, 8000, 37):
        zh, de, en = (grammar.spans(index, lang) for lang in ("zh", "de", "en"))
        assert zh["subject"][1] <= zh["place"][0] < zh["place"][1] < zh["object"][0]
        assert de["place"][0] < de["object"][0]
        assert en["object"][0] < en["place"][0]
        start, end = de["object"]
        assert ALL[index]["de"][start:end] == grammar.OBJECTS[grammar.parts_of(index).object].de


# Instructions


def test_blocks_are_mostly_translation_and_right():
    made = blocks.build_blocks(range(1000), 600, seed=3)
    tasks = collections.Counter(block["task"] for block in made)
    assert tasks == {blocks.MT: 480, blocks.NER: 60, blocks.APE: 60}
    pairs = collections.Counter(b["lang"] for b in made if b["task"] == blocks.MT)
    assert pairs == {p: 80 for p in ("en-de", "en-fr", "en-zh", "de-en", "fr-en", "zh-en")}
    translation_of = {(a, b): {s[a]: s[b] for s in ALL} for a, b in blocks.MT_PAIRS}
    for block in made:
        human, answer = (turn["value"] for turn in block["conversations"])
        assert [turn["from"] for turn in block["conversations"]] == ["human", "gpt"]
        if block["task"] == blocks.MT:
            source, target = block["lang"].split("-")
            text = human.split("\n")[1].split(": ", 1)[1]
            assert translation_of[source, target][text] == answer
        elif block["task"] == blocks.APE:
            english, wrong = (line.split(": ", 1)[1] for line in human.split("\n")[1:3])
            assert translation_of["en", block["lang"][3:]][english] == answer != wrong


def test_block_texts_by_hand():
    translation = blocks.translation_block(0, "en", "de")["conversations"]
    assert translation[0]["value"] == (
        "Translate the following text from English to German.\n"
        "English: The young doctor bought a heavy basket near the river.\nGerman:"
    )
    assert translation[1]["value"] == "Der junge Arzt hat am Fluss einen schweren Korb gekauft."
    entities = blocks.entity_block(0, "fr")["conversations"]
    assert entities[0]["value"].split("\n")[1].startswith("French: Le jeune médecin")
    assert entities[1]["value"] == "person: Le jeune médecin\nplace: près de la rivière"
    editing = blocks.post_editing_block(0, "de", "place", 1)["conversations"]
    assert "Translation: Der junge Arzt hat im Garten einen" in editing[0]["value"]
    # A wrong subject changes the number of the verb with it.
    editing = blocks.post_editing_block(0, "de", "subject", 4)["conversations"]
    assert "Translation: Die fröhlichen Kinder haben am Fluss" in editing[0]["value"]


def test_blocks_are_reproducible_and_repeat_only_when_they_must():
    assert blocks.build_blocks(range(50), 120, 0) == blocks.build_blocks(range(50), 120, 0)
    assert blocks.build_blocks(range(50), 120, 0) != blocks.build_blocks(range(50), 120, 1)
    lines = blocks.dump_blocks(blocks.build_blocks(range(5), 12, 0)).splitlines()
    assert len(lines) == 12
    assert {"conversations", "lang", "split", "dataset", "task"} == set(json.loads(lines[0]))


@pytest.mark.parametrize("indices, count", [([], 5), (range(5), 0)])
def test_blocks_of_nothing(indices, count):
    with pytest.raises(SpireError, match="at least 1"):
        blocks.build_blocks(indices, count, 0)
