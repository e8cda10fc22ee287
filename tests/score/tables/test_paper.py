import pytest

from espnet_spire.score.metrics import METRICS
from espnet_spire.score.tables.paper import paper_figure, paper_tables
from espnet_spire.score.tables.spec import Part
from espnet_spire.text.jobs import parse_job

# Systems by table, as the paper lists them.
SYSTEMS = {2: 9, 3: 5, 4: 2, 5: 5, 6: 6, 7: 6, 9: 4, 11: 6, 12: 4}
COLUMNS = {2: 4, 3: 4, 4: 3, 5: 12, 6: 4, 7: 11, 9: 7, 11: 11, 12: 9}


def test_tables_are_whole():
    tables = paper_tables()
    assert {n: sum(len(s.figures) for s in t.sections) for n, t in tables.items()} == SYSTEMS
    assert {n: len(t.columns) for n, t in tables.items()} == COLUMNS
    for table in tables.values():
        for section in table.sections:
            for column in table.columns:
                assert column.metric in METRICS
                for part in column.parts:
                    task = column.task or section.task
                    parse_job(f"{task}.{part.src}-{part.tgt}")
            assert all(len(figures) == len(table.columns) for figures in section.figures.values())
    unreported = [f for s in tables[2].sections[0].figures["Spirit-LM"] for f in [s] if f is None]
    assert len(unreported) == 2


@pytest.mark.parametrize(
    "number, system, column, value",
    [
        (2, "SpireFull", 3, 15.8),
        (3, "TowerInstruct-7B", 0, 88.45),
        (4, "SpireFull", 2, 67.10),
        (5, "SpireFull", 5, 37.3),
        (9, "TowerFull", 0, 9.5),
        (12, "SpireNoPseudo", 8, 6.8),
    ],
)
def test_single_figures(number, system, column, value):
    assert paper_tables()[number].sections[0].figures[system][column].value == value


@pytest.mark.parametrize("number, places", [(7, 0.051), (11, 0.0051)])
def test_printed_averages_are_those_of_the_printed_figures(number, places):
    """So that no figure was misread."""
    table = paper_tables()[number]
    names = [column.head[0] for column in table.columns[:9]]
    for section in table.sections:
        for figures in section.figures.values():
            values = dict(zip(names, (f.value for f in figures), strict=False))
            seven = [v for name, v in values.items() if name not in ("ko", "ru")]
            assert abs(sum(seven) / 7 - figures[9].value) < places
            assert abs(sum(values.values()) / 9 - figures[10].value) < places


def test_figures_that_stand_in_two_tables():
    """Table 9 repeats Tables 2, 3, 7 and 11; Table 12 is averages of Tables 5 and 6."""
    tables = paper_tables()
    full = {
        number: [f.value for f in table.sections[-1].figures["SpireFull"]]
        for number, table in tables.items()
    }
    assert full[9] == [full[2][0], *full[3], full[11][10], full[7][10]]
    assert full[12][:3] == full[2][1:]
    means = [
        sum(full[5][i] for i in some) / 3 for some in ((0, 2, 4), (1, 3, 5), (6, 8, 10), (7, 9, 11))
    ]
    means += [sum(full[6][i] for i in some) / 2 for some in ((0, 2), (1, 3))]
    # What is printed instead of these averages is marked.
    figures = tables[12].sections[0].figures["SpireFull"][3:]
    for mean, figure, column in zip(means, figures, tables[12].columns[3:], strict=True):
        near = abs(mean - figure.value) <= 0.51 * 10**-column.decimals
        assert near != figure.doubtful, column.title
    doubtful = [
        (number, system, column)
        for number, table in tables.items()
        for section in table.sections
        for system, figures in section.figures.items()
        for column, figure in enumerate(figures, 1)
        if figure and figure.doubtful
    ]
    assert doubtful == [
        (9, "SpireNoPseudo", 7), (12, "SpireFull", 7), (12, "SpireFull", 8), (12, "SpireFull", 9),
    ]  # fmt: skip


def test_a_figure_by_what_it_is_of():
    clean = Part("librispeech_test-clean", "en", "en")
    assert paper_figure("SpireFull", "asr", "wer", clean).value == 4.2
    german = Part("fleurs_test", "en", "de")
    assert paper_figure("SpireFull", "st_cascade", "spbleu", german).value == 38.1
    assert paper_figure("SpireFull", "st", "comet22", german).value == 80.16
    assert paper_figure("SpireFull", "st", "bleu", german) is None
    assert paper_figure("Another", "asr", "wer", clean) is None
