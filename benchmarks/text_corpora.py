"""Corpora of text: lines a second and memory of ``prepare_text``, beside the plain way.

Each way is a process of its own over made-up lines, once with ``--lines`` and once with a tenth of
them: the memory that a line takes is the difference of the two peaks over that of the lines. The
plain way is what a script of a dozen lines does: everything into a dictionary, ``random.sample``
where some is drawn, sorted, written. Time is of the processor, since machines are shared; both ways
take turns. Ratios are of time and of bytes a line.

    python benchmarks/text_corpora.py --work DIR [--lines 1000000]
"""

import argparse
import functools
import gzip
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple

from bench_common import WORDS, machine, table

MIB = 1 << 20
SHARDS = 8
SHARE = 10  # of the texts one in so many is drawn


class Case(NamedTuple):
    """``options``: of prepare_text; ``write``: the corpus; ``plain``: the plain way."""

    options: List[str]
    write: Callable[[Path, int], None]
    plain: Callable[[Path, Path, int], None]


@functools.lru_cache(maxsize=None)
def _sentence(number: int, words: int) -> str:
    return " ".join(WORDS[zlib.crc32(b"%d %d" % (number, i)) % len(WORDS)] for i in range(words))


def sentence(number: int, words: int) -> str:
    """Words that depend on the number; some thousands of sentences come again and again."""
    return _sentence(number % 4093, words)


def write_shards(root: Path, lines: int) -> None:
    """mC4's layout: documents of four paragraphs."""
    folder = root / "multilingual"
    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        name = f"c4-en.tfrecord-{shard:05d}-of-{SHARDS:05d}.json.gz"
        with gzip.open(folder / name, "wt", compresslevel=1) as stream:
            for number in range(shard, lines, SHARDS):
                text = "\n".join(sentence(4 * number + part, 14) for part in range(4))
                row = {
                    "text": text,
                    "timestamp": "2018-11-14T18:51:37Z",
                    "url": f"https://{number}",
                }
                stream.write(json.dumps(row) + "\n")


def write_moses(root: Path, lines: int) -> None:
    """Two files."""
    root.mkdir(parents=True)
    for shift, lang in enumerate(("en", "de")):
        with open(root / f"x.en-de.{lang}", "w") as stream:
            stream.writelines(f"{sentence(2 * n + shift, 12)}\n" for n in range(lines))


def write_tsv(root: Path, lines: int) -> None:
    """A table of two columns."""
    root.mkdir(parents=True)
    with open(root / "x.en-de.tsv", "w") as stream:
        stream.writelines(f"{sentence(n, 12)}\t{sentence(-n, 12)}\n" for n in range(lines))


def write_blocks(root: Path, lines: int) -> None:
    """Conversations as JSON lines."""
    root.mkdir(parents=True)
    with open(root / "blocks.jsonl", "w") as stream:
        for n in range(lines):
            talk = [
                {"from": "human", "value": sentence(2 * n, 20)},
                {"from": "gpt", "value": sentence(2 * n + 1, 12)},
            ]
            facts = {"lang": "en-de", "split": "train", "dataset": f"d{n % 7}", "task": "mt"}
            stream.write(json.dumps({"conversations": talk, **facts}) + "\n")


def _documents(root: Path) -> Iterator[tuple]:
    for path in sorted((root / "multilingual").iterdir()):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                yield f"{path.name}#{number:09d}", json.loads(line)["text"].replace("\n", "\u2028")


def _write(texts: Dict[str, str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        for key in sorted(texts):
            stream.write(f"{key} {texts[key]}\n")


def plain_all(root: Path, out: Path, _lines: int) -> None:
    _write(dict(_documents(root)), out / "text.en")


def plain_drawn(root: Path, out: Path, lines: int) -> None:
    texts = dict(_documents(root))
    chosen = random.Random(0).sample(sorted(texts), lines // SHARE)
    _write({key: texts[key] for key in chosen}, out / "text.en")


def plain_moses(root: Path, out: Path, _lines: int) -> None:
    for lang in ("en", "de"):
        with open(root / f"x.en-de.{lang}", encoding="utf-8") as stream:
            texts = {f"x#{n:09d}": " ".join(line.split()) for n, line in enumerate(stream, 1)}
        _write(texts, out / f"text.tc.{lang}")


def plain_tsv(root: Path, out: Path, _lines: int) -> None:
    with open(root / "x.en-de.tsv", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream]
    for column, lang in enumerate(("en", "de")):
        _write(
            {f"x#{n:09d}": row[column] for n, row in enumerate(rows, 1)}, out / f"text.tc.{lang}"
        )


def plain_blocks(root: Path, out: Path, _lines: int) -> None:
    with open(root / "blocks.jsonl", encoding="utf-8") as stream:
        entries = [json.loads(line) for line in stream]
    with open(out, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(entry) + "\n" for entry in entries)


CASES = {
    "mC4, all": Case(["--corpus", "mc4", "--langs", "en"], write_shards, plain_all),
    "mC4, a tenth drawn": Case(
        ["--corpus", "mc4", "--langs", "en", "--max_documents", "{tenth}"],
        write_shards,
        plain_drawn,
    ),
    "Moses pair": Case(["--corpus", "parallel", "--split", "en-de"], write_moses, plain_moses),
    "TSV": Case(["--corpus", "parallel", "--split", "en-de"], write_tsv, plain_tsv),
    "TowerBlocks": Case(["--corpus", "towerblocks"], write_blocks, plain_blocks),
}


def run_here(case: Case, way: str, root: Path, out: Path, lines: int) -> None:
    """One way in this process; prints its time and peak. What is imported does not count."""
    from espnet_spire.bin.prepare_text import main
    from espnet_spire.corpus.registry import text_corpus

    text_corpus(case.options[1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = os.times()
    if way == "plain":
        case.plain(root, out, lines)
    else:
        options = [option.replace("{tenth}", str(lines // SHARE)) for option in case.options]
        main([*options, "--root", str(root), "--out", str(out)])
    after = os.times()
    [peak] = [
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    seconds = after.user + after.system - before.user - before.system
    print(json.dumps({"seconds": seconds, "peak": peak}))


def measured(name: str, way: str, lines: int, work: Path) -> Dict[str, float]:
    """The same in a process of its own; the output is removed."""
    out = work / "out"
    command = [sys.executable, __file__, "--work", str(work), "--lines", str(lines)]
    done = subprocess.run(
        [*command, "--case", name, "--way", way], capture_output=True, text=True, check=True
    )
    for path in work.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not out.exists()
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, lines: int, work: Path) -> Dict[str, str]:
    """A line of the table."""
    found: Dict[str, Dict[int, Dict[str, float]]] = {"ours": {}, "plain": {}}
    for count in (lines // 10, lines):
        shutil.rmtree(work / "corpus", ignore_errors=True)
        CASES[name].write(work / "corpus", count)
        for way, results in found.items():
            results[count] = measured(name, way, count, work)
    ours, plain = found["ours"], found["plain"]

    def growth(results: Dict[int, Dict[str, float]]) -> float:
        grown = results[lines]["peak"] - results[lines // 10]["peak"]
        return max(grown, 0) / (lines - lines // 10)

    return {
        "reader": name,
        "lines": f"{lines:,}",
        "lines / s": f"{lines / ours[lines]['seconds']:,.0f}",
        "plain": f"{lines / plain[lines]['seconds']:,.0f}",
        "rate": f"{plain[lines]['seconds'] / ours[lines]['seconds']:.2f} x",
        "peak, a tenth": f"{ours[lines // 10]['peak'] / MIB:.0f} MiB",
        "peak, all": f"{ours[lines]['peak'] / MIB:.0f} MiB",
        "bytes a line": f"{growth(ours):.1f}",
        "plain, bytes a line": f"{growth(plain):,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="directory that may be removed")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        logging.basicConfig(level=logging.WARNING)
        case = CASES[args.case]
        run_here(case, args.way, args.work / "corpus", args.work / "out", args.lines)
        return
    print(machine(), flush=True)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.cases:
        rows.append(row(name, args.lines, args.work))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    shutil.rmtree(args.work)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
