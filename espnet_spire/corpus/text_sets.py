"""Test sets of text alone: whole or not at all."""

import logging
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from espnet_spire.corpus.records import one_line
from espnet_spire.corpus.text_corpus import PREPARATION
from espnet_spire.text.jobs import SET_JOBS, Job
from espnet_spire.utils.atomic import atomic_dir, write_json
from espnet_spire.utils.datadir import write_table
from espnet_spire.utils.errors import SpireError


def write_test_set(
    name: str,
    keys: Sequence[str],
    columns: Dict[str, List[Tuple[str, str]]],
    files: Sequence[Path],
    out: Path,
    jobs: Sequence[Job] = (),
) -> Dict[str, Any]:
    """Write a data directory with a table for each column; returns ``preparation.json``.

    Texts stay as they are, but what would break a line or a column becomes a blank; how many texts
    have such is logged and noted.

    Args:
        name: of the corpus.
        keys: of the rows.
        columns: name of the table → for each row text and where it stands.
        files: that were read.
        jobs: that the set is for; none: all that its tables allow.

    Raises:
        SpireError: there is nothing, a value is no text or an empty one.
    """
    if not keys:
        raise SpireError(f"{files[0]}: there is nothing in it")
    tables: Dict[str, Dict[str, str]] = {}
    changed = 0
    for table, texts in columns.items():
        tables[table] = {}
        for key, (text, where) in zip(keys, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise SpireError(f"{where}: no text for {table} ({text!r})")
            tables[table][key] = one_line(text)
            changed += tables[table][key] != text.strip()
    if changed:
        logging.info("%s: line breaks or tabs became blanks in %d texts", out, changed)
    report = {
        "corpus": name,
        "files": [str(file) for file in files],
        "texts": len(keys),
        "tables": sorted(tables),
        "texts_with_line_breaks": changed,
    }
    with atomic_dir(out) as aside:
        for table, rows in tables.items():
            write_table(aside / table, rows)
        if jobs:
            (aside / SET_JOBS).write_text("".join(f"{job.name}\n" for job in jobs))
        write_json(aside / PREPARATION, report)
    logging.info("%s: %d texts in %s", out, len(keys), ", ".join(sorted(tables)))
    return report
