"""The report of the pseudo-labels: numbers, text, picture."""

import json

import pytest
from matplotlib.image import imread

from espnet_spire.corpus.pseudo import BINS, Counts
from espnet_spire.corpus.pseudo_report import write_report

ABOUT = {"threshold": 0.85, "scorer": "cometkiwi"}


def counts(corpus, lang, **changes):
    histogram = [0] * BINS
    histogram[20], histogram[36] = 2, 6
    given = {"utterances": 1000, "selected": 10, "texts": 9, "tokens": 120, "cut": 1, "empty": 1}
    given = {**given, "scored": 8, "kept": 6, "total": 6.4, "histogram": histogram, **changes}
    return Counts(corpus, lang, **given)


ROWS = [
    counts("cv_train", "de"),
    counts("spgi", "de", kept=2, total=4.0),
    counts("cv_train", "fr"),
    counts("spgi", "fr", scored=0, kept=0, total=0.0, cut=9, histogram=[0] * BINS),
]


def test_numbers(tmp_path):
    write_report(ROWS, tmp_path, {**ABOUT, "seed": 3})
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["threshold"], report["scorer"], report["seed"]) == (0.85, "cometkiwi", 3)
    first, _, _, last = report["rows"]
    assert first["corpus"] == "cv_train" and first["mean_score"] == 0.8
    assert first["kept_share"] == 0.6 and first["texts"] == 9
    assert last["mean_score"] is None and last["kept_share"] == 0.0
    german, french = report["languages"]["de"], report["languages"]["fr"]
    assert german["mean_score"] == pytest.approx(10.4 / 16) and german["kept_share"] == 8 / 20
    assert (german["tokens"], german["cut"], german["scored"]) == (240, 2, 16)
    assert german["histogram"][20] == 4 and sum(french["histogram"]) == 8


def test_text(tmp_path):
    write_report(ROWS, tmp_path, ABOUT)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| de | cv_train | 1,000 | 10 | 9 | 120 | 1 | 1 | 0.8000 | 6 | 60.0 |" in lines
    assert "| fr | spgi | 1,000 | 10 | 9 | 120 | 9 | 1 |  | 0 | 0.0 |" in lines
    assert "| de | all |  | 20 |  | 240 | 2 | 2 | 0.6500 | 8 | 40.0 |" in lines
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 4 + 2 and len({line.count("|") for line in rows}) == 1
    # A sum of one thing is no news.
    write_report(ROWS[:1], tmp_path, ABOUT)
    assert " all " not in (tmp_path / "report.md").read_text()


def test_picture(tmp_path):
    write_report(ROWS, tmp_path / "a", ABOUT)
    write_report(ROWS, tmp_path / "b", ABOUT)
    first = (tmp_path / "a" / "scores.png").read_bytes()
    assert first == (tmp_path / "b" / "scores.png").read_bytes()
    image = imread(tmp_path / "a" / "scores.png")
    # A row more makes it taller, a corpus more wider.
    write_report([*ROWS, counts("cv_train", "zh"), counts("x", "zh")], tmp_path / "a", ABOUT)
    larger = imread(tmp_path / "a" / "scores.png")
    assert larger.shape[0] > image.shape[0] and larger.shape[1] > image.shape[1]
    write_report(ROWS, tmp_path / "b", {**ABOUT, "threshold": 0.4})
    assert first != (tmp_path / "b" / "scores.png").read_bytes()
