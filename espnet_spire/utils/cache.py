"""Results that are kept by what they were made from, so that no work is done twice.

A directory of journals, one for each job that has added something. All jobs read all of them, so
another number of jobs, other options or a killed job lose nothing. Nothing is ever removed: a
result that nothing asks for any more is not read again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Collection, Dict, Iterator, Mapping, Optional, Tuple

from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.journal import Journal, read_journal

_SETTINGS = {"kind": "results by content", "version": 1}


def content_key(*content: Any) -> str:
    """What results are kept by: a hash of JSON values, 128 bits in hexadecimal."""
    said = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


class ContentCache:
    """Results (JSON values) by :func:`content_key`.

    Args:
        directory: where the journals are.
        job: name of this job's own journal; made when something is added.
    """

    def __init__(self, directory: PathLike, job: str = "1-of-1") -> None:
        self.directory = Path(directory)
        self._job = job
        self._journal: Optional[Journal] = None

    def known(self, keys: Collection[str]) -> Dict[str, Any]:
        """The results that are there for keys (anything with a quick ``in``)."""
        return {key: value for key, value in self._all() if key in keys}

    def _all(self) -> Iterator[Tuple[str, Any]]:
        for path in sorted(self.directory.glob("*.jsonl")):
            for record in read_journal(path):
                yield from record.items()

    def add(self, results: Mapping[str, Any]) -> None:
        """Keep results; when this returns, a kill loses none of them.

        Raises:
            SpireError: another process of the same job is at work.
        """
        if not results:
            return
        if self._journal is None:
            self._journal = Journal(self.directory / f"{self._job}.jsonl", _SETTINGS)
        self._journal.append(dict(results))

    def close(self) -> None:
        """Let another process of this job have its journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
