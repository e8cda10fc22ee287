import pytest

from espnet_spire.score.entities import TOWER_TYPES, entities, read_tags, sequence_f1
from espnet_spire.score.measured import Texts
from espnet_spire.utils.errors import SpireError


def tagged(*tags):
    return "[" + ", ".join(f'("w{i}", "{tag}")' for i, tag in enumerate(tags)) + "]"


def f1(references, hypotheses, **more):
    keys = [f"u{i}" for i in range(len(references))]
    return sequence_f1(Texts(keys, references, hypotheses, "en"), **more)


def test_read_tags():
    text = '[("Lima", "B-Location"), ("\'s", "O"), (""", "O"), ("06", "O"), ("a, b", "B-Group")]'
    assert read_tags(text) == ["B-Location", "O", "O", "O", "B-Group"]
    assert read_tags("there is none") == []


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("B-Person I-Person O", {("Person", 0, 2)}),
        ("B-Person B-Person", {("Person", 0, 1), ("Person", 1, 2)}),
        # I- begins an entity where none of its type goes on
        ("I-Person I-Person O I-Group", {("Person", 0, 2), ("Group", 3, 4)}),
        ("B-Person I-Group I-Group", {("Person", 0, 1), ("Group", 1, 3)}),
        # IOBES
        ("S-Person I-Person", {("Person", 0, 1), ("Person", 1, 2)}),
        ("B-Person I-Person E-Person I-Person", {("Person", 0, 3), ("Person", 3, 4)}),
        # neither a type nor a tag that counts
        ("B-Planet Person XX-Person B- -", set()),
        ("", set()),
    ],
)
def test_entities(tags, expected):
    assert entities(tags.split()) == expected


def test_f1_by_hand():
    references = [
        tagged("B-Person", "I-Person", "O", "B-Location"),
        tagged("O", "B-Group", "O"),
        tagged("B-Medical", "O"),
    ]
    hypotheses = [
        tagged("B-Person", "I-Person", "O", "B-Group"),  # one of two, the other's type is wrong
        tagged("O", "B-Group", "I-Group", "B-Person", "B-Person"),  # its end is wrong; rest is cut
        "I do not know.",
    ]
    found = f1(references, hypotheses)
    assert found.statistics.tolist() == [[1, 2, 2], [0, 1, 1], [0, 0, 1]]
    assert found.value == pytest.approx(200 * 1 / (3 + 4))
    counts = found.counts
    assert (counts["precision"], counts["recall"]) == (pytest.approx(100 / 3), 25)
    assert counts["f1_by_type"] == {
        "Person": 100, "Location": 0, "Group": 0, "Product": 0, "CreativeWorks": 0, "Medical": 0,
    }  # fmt: skip
    assert counts["unreadable_hypotheses"] == 1


def test_short_answers_lack_entities_at_the_end():
    found = f1([tagged("B-Person", "O", "B-Person")], [tagged("B-Person")])
    assert found.statistics.tolist() == [[1, 1, 2]]


def test_other_types():
    references = [tagged("B-PER", "O", "B-LOC")]
    found = f1(references, [tagged("B-PER", "B-ORG", "O")], types=("PER", "LOC"))
    assert found.statistics.tolist() == [[1, 1, 2]]
    assert "|types:PER,LOC|" in found.signature
    with pytest.raises(SpireError, match=f"entity of type {', '.join(TOWER_TYPES)}"):
        f1(references, references)


def test_references_may_be_tags_alone():
    answers = [tagged("B-Person", "I-Person", "O"), "O B-Group"]
    found = f1(["B-Person I-Person O", "O B-Group"], answers)
    # an answer has words, too
    assert found.statistics.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert found.counts["unreadable_hypotheses"] == 1


def test_a_reference_must_be_a_list_of_tags():
    with pytest.raises(SpireError, match="reference of u1 is no list of tags.*'plain"):
        f1([tagged("B-Person"), "plain text"], ["", ""])
