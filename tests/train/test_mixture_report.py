"""Sums of a report against numbers added up by hand."""

import numpy as np
import pytest

from espnet_spire.train.assemble import Selected
from espnet_spire.train.mixture_report import Report, report_table
from espnet_spire.train.selection import EVERYTHING, FACTS, Limits
from espnet_spire.train.sources import streams_of
from espnet_spire.utils.errors import SpireError

HEAD = {"format": "plain", "seed": 3, "max_length": 40}
MONO = {"name": "mono", "task": "mono", "text_dir": "d", "langs": ["de", "zh"]}
CHAT = {"name": "chat", "task": "chat", "file": "f", "repeat": 2}


def facts(lengths, targets, langs):
    array = np.zeros(len(lengths), FACTS)
    array["length"], array["targets"], array["lang"] = lengths, targets, langs
    return array


def summary(langs, rejected=(), cut=0, cut_tokens=0, content=0):
    counts = {"cut": cut, "cut_tokens": cut_tokens, "content": content}
    return {"langs": langs, "rejected": list(rejected), **counts}


def streams(source, limits, alone):
    return [Selected(s, [], EVERYTHING, limits, alone) for s in streams_of(source, "u")]


def two_sources():
    report = Report(HEAD, "full")
    report.begin(MONO, streams(MONO, Limits(20, None), True))
    rejected = [["mono:a.de", "too_long", "50 tokens"], ["mono:b.de", "empty_text", "empty"]]
    mask = np.array([True, False, True])
    report.add(
        0,
        facts([8, 30, 9], [7, 29, 8], [0, 0, 0]),
        mask,
        summary(["de"], rejected, content=2**64 - 3),
    )
    cut = summary(["zh"], cut=1, cut_tokens=5, content=5)
    report.add(1, facts([40], [39], [0]), np.array([False]), cut)
    report.add(1, facts([5], [4], [0]), np.array([True]), summary(["zh"]))
    report.end()
    report.begin(CHAT, streams(CHAT, Limits(None, 2), False))
    chat = facts([10, 12, 14], [1, 2, 3], [0, 1, 0])
    report.add(0, chat, np.array([True, True, False]), summary(["en-de", "und"]))
    report.end()
    return report.result()


def test_sums_by_source_language_and_task(caplog):
    result = two_sources()
    assert {key: result[key] for key in ("variant", "format", "seed", "max_length")} == {
        "variant": "full",
        **HEAD,
    }
    mono, chat = result["sources"]
    assert mono == {
        "source": "mono",
        "task": "mono",
        "repeat": 1,
        "examples": 3,
        "tokens": 8 + 9 + 5,
        "target_tokens": 7 + 8 + 4,
        "available": 5,
        "available_tokens": 8 + 30 + 9 + 40 + 5,
        "rejected": 2,
        "rejected_by": {"too_long": 1, "empty_text": 1},
        "without_units": 0,
        "too_long": 1,
        "cut": 1,
        "cut_tokens": 5,
        "budget_tokens": 40,
        "budget_examples": None,
        "reached": 22 / 40,
        "length": {"mean": 7.3, "median": 8, "max": 9},
        "content": "0000000000000002",
        "langs": [
            {
                **{"lang": "de", "examples": 2, "tokens": 17, "target_tokens": 15},
                **{"available": 3, "available_tokens": 47},
                **{"budget_tokens": 20, "budget_examples": None, "reached": 0.85},
            },
            {
                **{"lang": "zh", "examples": 1, "tokens": 5, "target_tokens": 4},
                **{"available": 2, "available_tokens": 45},
                **{"budget_tokens": 20, "budget_examples": None, "reached": 0.25},
            },
        ],
    }
    # taken twice
    assert (chat["examples"], chat["tokens"], chat["target_tokens"]) == (4, 44, 6)
    assert (chat["available"], chat["budget_examples"], chat["reached"]) == (3, 4, 1.0)
    assert chat["length"] == {"mean": 11.0, "median": 10, "max": 12}
    assert result["groups"] == [
        {"task": "chat", "lang": "en-de", "examples": 2, "tokens": 20, "target_tokens": 2},
        {"task": "chat", "lang": "und", "examples": 2, "tokens": 24, "target_tokens": 4},
        {"task": "mono", "lang": "de", "examples": 2, "tokens": 17, "target_tokens": 15},
        {"task": "mono", "lang": "zh", "examples": 1, "tokens": 5, "target_tokens": 4},
    ]
    assert result["lengths"] == [{"up_to": 16, "examples": 7}]
    # neither language lacks data: what was left out would have gone over the budget
    assert "there is no more" not in caplog.text


def test_memory_does_not_depend_on_the_longest_that_could_be():
    report = Report({**HEAD, "max_length": 10**12}, "")
    report.begin(CHAT, streams(CHAT, Limits(None, None), False))
    report.add(0, facts([9, 3], [1, 1], [0, 0]), np.array([True, True]), summary(["de"]))
    report.add(0, facts([20], [1], [0]), np.array([True]), summary(["de"]))
    report.end()
    assert report.result()["sources"][0]["length"] == {"mean": 10.7, "median": 9, "max": 20}
    assert [entry["up_to"] for entry in report.result()["lengths"]] == [16, 32]


def test_tables():
    by_source, by_group = report_table(two_sources()).split("\n\n")
    lines = [line.split() for line in by_source.splitlines()]
    assert lines == [
        [
            "source",
            "task",
            "examples",
            "tokens",
            "target_tokens",
            "rejected",
            "cut",
            "of",
            "budget",
        ],
        ["mono", "mono", "3", "22", "19", "2", "1", "55.0", "%"],
        ["chat", "chat", "4", "44", "6", "0", "0", "100.0", "%"],
        ["total", "7", "66", "25", "2", "1"],
    ]
    assert by_group.splitlines()[1].split() == ["chat", "en-de", "2", "20", "2"]


def test_a_shortfall_is_said(caplog):
    report = Report(HEAD, "")
    report.begin(CHAT, streams(CHAT, Limits(1000, 10), False))
    report.add(0, facts([10, 20], [1, 1], [0, 0]), np.array([True, True]), summary(["de"]))
    report.end()
    # of the two budgets the one that is nearer: 4 of 20 examples, 60 of 2000 tokens
    assert "source chat: 4 of 20 examples (20.0 %), there is no more" in caplog.text
    assert report.result()["sources"][0]["reached"] == 0.2


def test_an_histogram_of_lengths():
    report = Report({**HEAD, "max_length": 100}, "")
    report.begin(CHAT, streams(CHAT, Limits(None, None), False))
    lengths = [1, 16, 17, 32, 33, 64, 65, 100]
    report.add(0, facts(lengths, [1] * 8, [0] * 8), np.ones(8, bool), summary(["de"]))
    report.end()
    assert report.result()["lengths"] == [
        *({"up_to": 16, "examples": 4}, {"up_to": 32, "examples": 4}),
        *({"up_to": 64, "examples": 4}, {"up_to": 100, "examples": 4}),
    ]
    (entry,) = report.result()["sources"]
    assert entry["reached"] is None and entry["budget_tokens"] is None
    assert entry["length"] == {"mean": 41.0, "median": 32, "max": 100}


@pytest.mark.parametrize(
    "rejected, words",
    [
        ([], "source chat: no example; is its data empty"),
        ([["chat:1", "too_long", "9 tokens"]], r"no example; all are rejected \(chat:1: 9 tokens"),
    ],
)
def test_a_source_without_examples(rejected, words):
    report = Report(HEAD, "")
    report.begin(CHAT, streams(CHAT, Limits(None, None), False))
    report.add(0, facts([], [], []), np.zeros(0, bool), summary([], rejected))
    with pytest.raises(SpireError, match=words):
        report.end()
