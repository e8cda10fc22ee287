"""Readers of corpora: utterances a second and memory, beside lhotse's recipes.

Each reading is a process of its own over a corpus of made-up lines in its true layout (see
``corpora_layouts.py``), once with ``--lines`` and once with a tenth of them: what memory an
utterance takes is the difference of the two peaks over that of the lines. Everything counts that
``prepare_corpus`` does: reading, looking for each audio file, sorting, writing the data directory.
lhotse's recipes write their manifests instead; they read the header of each audio file, and so are
given fewer lines. Time is of the processor, all processes together, since machines are shared.
Ratios are of time an utterance and of bytes an utterance.

    python benchmarks/corpora.py --work DIR [--lines 1000000] [--corpora MLS GigaSpeech …]
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, NamedTuple, Optional

from bench_common import machine, table
from corpora_layouts import CASES, Case

MIB = 1 << 20


class Reading(NamedTuple):
    """Processor's ``seconds`` and ``peak`` resident bytes of a process that read ``lines``."""

    lines: int
    seconds: float
    peak: int


class Pair(NamedTuple):
    """Readings of a tenth and of all lines."""

    tenth: Reading
    whole: Reading

    @property
    def rate(self) -> float:
        return self.whole.lines / self.whole.seconds

    @property
    def bytes_an_utterance(self) -> float:
        lines = self.whole.lines - self.tenth.lines
        return (self.whole.peak - self.tenth.peak) / lines


def _status(field: str) -> int:
    """Bytes that the kernel says of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _seconds() -> float:
    """Time that processors spent on this process and on those of its that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def read_here(case: Case, way: str, root: Path, out: Path) -> None:
    """Run one way in this process; print its time and peak. What is imported does not count."""
    from espnet_spire.corpus.prepare import Request, prepare_split
    from espnet_spire.corpus.registry import speech_corpus

    corpus = speech_corpus(case.corpus)
    if way == "lhotse":
        import lhotse.recipes  # noqa: F401

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    started = _seconds()
    if way == "lhotse":
        case.lhotse(root, out)
    else:
        request = Request(root, case.split, list(case.targets), [], 0, 1, 0.0)
        prepare_split(corpus, request, out)
    print(json.dumps({"seconds": _seconds() - started, "peak": _status("VmHWM")}))


def reading(case: Case, way: str, lines: int, work: Path) -> Optional[Reading]:
    """Write the corpus, read it in a process of its own, remove it; ``None`` if that fails."""
    root, out = work / "corpus", work / "out"
    for path in (root, out):
        shutil.rmtree(path, ignore_errors=True)
    case.write(root, lines)
    command = [sys.executable, __file__, "--work", str(work), "--way", way, "--case", case.name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{case.name}, {way}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    if way == "ours":
        with open(out / "text", encoding="utf-8") as stream:
            written = sum(1 for _ in stream)
        if written != lines:
            raise RuntimeError(f"{case.name}: {written} of {lines} utterances came out")
    for path in (root, out):
        shutil.rmtree(path, ignore_errors=True)
    return Reading(lines, found["seconds"], found["peak"])


def pair(case: Case, way: str, lines: int, work: Path) -> Optional[Pair]:
    tenth = reading(case, way, lines // 10, work)
    whole = tenth and reading(case, way, lines, work)
    return whole and Pair(tenth, whole)


def row(case: Case, ours: Pair, theirs: Optional[Pair]) -> Dict[str, str]:
    found = {
        "reader": case.name,
        "lines": f"{ours.whole.lines:,}",
        "utterances / s": f"{ours.rate:,.0f}",
        "peak, a tenth": f"{ours.tenth.peak / MIB:.0f} MiB",
        "peak, all": f"{ours.whole.peak / MIB:.0f} MiB",
        "bytes an utterance": f"{ours.bytes_an_utterance:.1f}",
    }
    names = ("lhotse: lines", "its utterances / s", "its bytes an utterance", "time", "memory")
    if theirs is None:
        return {**found, **dict.fromkeys(names, "–")}
    # below a byte it is noise
    least = max(ours.bytes_an_utterance, 1.0)
    values = (
        f"{theirs.whole.lines:,}",
        f"{theirs.rate:,.0f}",
        f"{theirs.bytes_an_utterance:,.0f}",
        f"{ours.rate / theirs.rate:.1f} x",
        f"{theirs.bytes_an_utterance / least:,.0f} x",
    )
    return {**found, **dict(zip(names, values, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory that may be removed")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--baseline_lines", type=int, default=20_000, help="0: without lhotse")
    names = [case.name for case in CASES]
    parser.add_argument("--corpora", nargs="*", choices=names, default=names)
    parser.add_argument("--way", choices=("ours", "lhotse"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=names, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        logging.basicConfig(level=logging.WARNING)
        [case] = [case for case in CASES if case.name == args.case]
        read_here(case, args.way, args.work / "corpus", args.work / "out")
        return
    print(machine(), flush=True)
    rows = []
    for case in CASES:
        if case.name not in args.corpora:
            continue
        work = args.work / case.corpus
        work.mkdir(parents=True, exist_ok=True)
        theirs = None
        if case.lhotse and args.baseline_lines:
            theirs = pair(case, "lhotse", args.baseline_lines, work)
        ours = pair(case, "ours", args.lines, work)
        if ours is not None:
            rows.append(row(case, ours, theirs))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        shutil.rmtree(work, ignore_errors=True)
    if rows:
        print("\n" + table(rows))


if __name__ == "__main__":
    main()
