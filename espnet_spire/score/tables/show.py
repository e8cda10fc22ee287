"""From experiment directories to tables and the page's content."""

from typing import List, NamedTuple, Sequence

from espnet_spire.score.layout import Scored
from espnet_spire.score.report import Result, label_of, results_of
from espnet_spire.score.tables.charts import Chart, error_chart, model_charts, translation_charts
from espnet_spire.score.tables.own import not_in, own_specs
from espnet_spire.score.tables.paper import paper_tables
from espnet_spire.score.tables.table import Table, fill
from espnet_spire.utils.atomic import read_json


class Shown(NamedTuple):
    """Results and the tables with them; ``notes`` say what is not there."""

    results: List[Result]
    tables: List[Table]
    notes: List[str]

    def charts(self) -> List[Chart]:
        """WER by set, BLEU by language, ablations."""
        side_by_side = [table for table in self.tables if table.spec.ablation]
        return [
            *error_chart(self.results),
            *translation_charts(self.results),
            *model_charts(side_by_side),
        ]


def show(found: Sequence[Scored], *, speech_lang: str = "en", others: bool = False) -> Shown:
    """The paper's tables as far as there are results, then those of the same shape.

    Args:
        speech_lang: language of the speech, by which translation is out of or into it.
        others: the paper's other systems are in its tables, too.

    Raises:
        SpireError: a ``score.json`` is none.
    """
    results = results_of(found)
    specs = paper_tables()
    filled = {number: fill(spec, results, others=others) for number, spec in specs.items()}
    empty = [str(number) for number, table in filled.items() if table is None]
    tables = [table for table in filled.values() if table is not None]
    own = own_specs(not_in(specs.values(), results), speech_lang)
    tables += filter(None, (fill(spec, results) for spec in own))
    notes = []
    if empty:
        notes.append(
            f"No results here for the paper's tables {', '.join(empty)}: they are about"
            " other test sets, or by other metrics."
        )
    return Shown(results, tables, notes + _missing(found, results))


def _missing(found: Sequence[Scored], results: Sequence[Result]) -> List[str]:
    """Jobs whose hypotheses were not all there, from what their scores say of themselves."""
    counts = {}
    for run, name, job, path in found:
        said = read_json(path).get("missing_hypotheses", {}).get("count", 0)
        if said:
            counts[(run, name, job)] = said
    return [
        f"{label_of(run, results)} {job.name} on {name}: {count} hypotheses were missing"
        " and counted as empty."
        for (run, name, job), count in counts.items()
    ]
