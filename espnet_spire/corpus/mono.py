"""Monolingual text: JSON lines with a ``text`` (mC4), or plain text, a document a line.

mC4: Xue et al., NAACL 2021; ODC-BY; https://huggingface.co/datasets/allenai/c4, folder
``multilingual``, whose files are shards in random order::

    c4-<lang>.tfrecord-00000-of-02048.json.gz       {"text": "…\\n…", "timestamp": …, "url": …}
    c4-<lang>-validation.tfrecord-00000-of-00016.json.gz

Any other: ``--files`` with ``{lang}`` in it, for files whose names end in ``.json`` or ``.jsonl``
(JSON lines) or otherwise (plain text), ``.gz`` and ``.xz`` behind it or not.

The output is ``text.<lang>`` for each language, a document a line. A document stays whole, since
continued pre-training learns from what a text said paragraphs before, and its line breaks stay:
in the table they are LINE SEPARATORs (U+2028), which training reads as ``\\n`` again. Blank lines
of plain text are no documents; a JSON line without text is listed in ``left_out.tsv``.
"""

import glob
import json
import logging
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence

from espnet_spire.corpus.lines import read_lines
from espnet_spire.corpus.records import Fault, LeftOut
from espnet_spire.corpus.text_corpus import LEFT_OUT, PREPARATION, TextCorpus, TextRequest
from espnet_spire.corpus.texts import (
    Item,
    Text,
    breaks_kept,
    key_names,
    line_key,
    until_cut_off,
    write_texts,
)
from espnet_spire.text.languages import language_name
from espnet_spire.train.selection import sample_hash
from espnet_spire.utils.atomic import atomic_dir, write_json
from espnet_spire.utils.datadir import REJECTED, TEXT
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress
from espnet_spire.utils.workers import run_jobs

_MC4_FILES = {
    "train": "c4-{lang}.tfrecord-*.json.gz",
    "validation": "c4-{lang}-validation.tfrecord-*.json.gz",
}
_JSON = re.compile(r"\.jsonl?(\.gz|\.xz)?")
# Half of a surrogate pair, which JSON can write and UTF-8 cannot.
_HALF = re.compile("[\ud800-\udfff]")


def read_documents(path: Path, name: str) -> Iterator[Item]:
    """Documents of a file, under keys with ``name`` in them."""
    is_json = _JSON.search(path.name) is not None
    for number, line in enumerate(read_lines(path), 1):
        key = line_key(name, number)
        if isinstance(line, Fault):
            yield line._replace(key=key)
            continue
        text = line.text
        if is_json and text.strip():
            try:
                text = json.loads(text)["text"]
            except (ValueError, KeyError, TypeError) as error:
                reason = f"no JSON object with a text ({type(error).__name__}: {error})"
                yield Fault(key, reason, line.where)
                continue
            if not isinstance(text, str) or _HALF.search(text):
                yield Fault(key, "its text is no valid Unicode string", line.where)
                continue
        text = breaks_kept(text)
        if text:
            yield Text(key, (text,))
        elif is_json:
            yield LeftOut(key, f"it is empty ({line.where})")


def files_of(patterns: List[str], lang: str, request: TextRequest) -> Dict[str, Path]:
    """Names in keys and files of a language; with ``max_files`` so many of them, drawn.

    Raises:
        SpireError: a pattern finds nothing.
    """
    found: List[Path] = []
    for pattern in patterns:
        places = sorted(map(Path, glob.glob(pattern.replace("{lang}", lang), recursive=True)))
        if not places:
            raise SpireError(f"{pattern.replace('{lang}', lang)}: no such file")
        found += places
    names = key_names(found)
    if request.max_files is not None:
        order = sorted(names, key=lambda name: sample_hash(request.seed, "files", name))
        names = {name: names[name] for name in sorted(order[: request.max_files])}
    return names


class _Work(NamedTuple):
    """For all languages: where the tables go, and where lists lie until then."""

    patterns: List[str]
    request: TextRequest
    aside: Path
    out: Path

    def lists(self, lang: str) -> List[Path]:
        return [
            self.out.with_name(f"{self.out.name}.{lang}.{name}") for name in (REJECTED, LEFT_OUT)
        ]


def _write_language(work: _Work, lang: str) -> Dict[str, Any]:
    request = work.request
    names = files_of(work.patterns, lang, request)
    folder = work.aside / f".{lang}"
    folder.mkdir()
    count = write_texts(
        progress(_documents(names, request), desc=lang, unit="doc"),
        [work.aside / f"{TEXT}.{lang}"],
        limits=request.limits,
        seed=request.seed,
        name=f"{TEXT}.{lang}",
        work=folder,
        rejected=work.lists(lang)[0],
        left_out=work.lists(lang)[1],
        max_rejected=request.share,
    )
    folder.rmdir()
    return {"lang": lang, "files": [str(path) for path in names.values()], **count._asdict()}


def _documents(names: Dict[str, Path], request: TextRequest) -> Iterator[Item]:
    forgive = request.max_rejected is not None
    for name, path in names.items():
        yield from until_cut_off(read_documents(path, name), name, path, forgive=forgive)


def _prepare(patterns: List[str], request: TextRequest, out: Path) -> Dict[str, Any]:
    with atomic_dir(out) as aside:
        work = _Work(patterns, request, aside, out)
        found = dict(run_jobs(_write_language, work, request.langs, request.nj))
        reports = [found[lang] for lang in request.langs]
        for position, name in enumerate((REJECTED, LEFT_OUT)):
            with open(aside / name, "wb") as joined:
                for lang in sorted(request.langs):
                    listed = work.lists(lang)[position]
                    joined.writelines(f"{lang}:".encode() + line for line in open(listed, "rb"))
                    os.remove(listed)
        for report in reports:
            logging.info(
                "%s: %s documents in %d files, %s kept (%s bytes), %s rejected, %s empty",
                *(report["lang"], f"{report['read']:,}", len(report["files"])),
                *(f"{report[name]:,}" for name in ("kept", "bytes", "rejected", "left_out")),
            )
        result = {"seed": request.seed, "limits": request.limits._asdict(), "languages": reports}
        write_json(aside / PREPARATION, result)
    return result


# The two corpora ---------------------------------------------------------------------------


def _mc4_patterns(request: TextRequest) -> List[str]:
    split = request.split or "train"
    if split not in _MC4_FILES:
        raise SpireError(f"mc4 has no split {split!r}; it has {', '.join(_MC4_FILES)}")
    below = request.root / "multilingual"
    root = below if below.is_dir() else request.root
    return [os.path.join(glob.escape(str(root)), _MC4_FILES[split])]


def _mono_patterns(request: TextRequest) -> List[str]:
    if not request.files:
        raise SpireError("--files is missing: names of files with {lang} in them, or patterns")
    for pattern in request.files:
        if "{lang}" not in pattern and len(request.langs) > 1:
            raise SpireError(
                f"--files {pattern}: {{lang}} must be in it, or --langs be one language"
            )
    return list(request.files)


def _corpus(
    patterns_of: Callable[[TextRequest], List[str]], name: str, more: Sequence[str] = (), **facts
) -> TextCorpus:
    def checked(request: TextRequest) -> List[str]:
        for lang in request.langs:
            language_name(lang)
        if len(set(request.langs)) < len(request.langs):
            raise SpireError(f"--langs {' '.join(request.langs)}: one of them is there twice")
        return patterns_of(request)

    def index(request: TextRequest) -> List[Path]:
        found = checked(request)
        return [path for lang in request.langs for path in files_of(found, lang, request).values()]

    def prepare(request: TextRequest, out: Path) -> Dict[str, Any]:
        return _prepare(checked(request), request, out)

    options = ("langs", "max_files", "limits", "seed", "nj", "max_rejected", *more)
    return TextCorpus(name=name, options=options, index=index, prepare=prepare, **facts)


TEXT_CORPORA = [
    _corpus(
        _mc4_patterns,
        "mc4",
        variable="MC4",
        source="https://huggingface.co/datasets/allenai/c4, folder multilingual",
        splits=", ".join(_MC4_FILES),
    ),
    _corpus(
        _mono_patterns,
        "mono",
        more=("files",),
        variable="",
        source="your own files",
        splits="",
    ),
]
