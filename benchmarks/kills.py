"""Kill extraction and k-means at random moments, start them again, and compare what comes out.

Each command first runs undisturbed. Then it is started again and again, and killed (SIGKILL, the
whole process group) at a moment drawn from the time it takes; when it gets through, its files must
be those of the undisturbed run, byte for byte, and it begins anew until all kills are spent. Of
sharded commands the launcher alone is killed: its jobs are left to themselves, and a start that
meets one of them alive is refused and tried again.

    python benchmarks/kills.py --work DIR [--kills 20] [--utterances 150]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

# What a start says while a process of an earlier one is still at work.
BUSY = "another process is at this job"
_ORPHANS_SECONDS = 600


class Outcome(NamedTuple):
    """``kills`` were survived over ``finished`` runs to the end; ``in_work`` of them left some
    work behind that the next start found; ``refused`` starts met a job of a killed one alive."""

    kills: int
    finished: int
    in_work: int
    refused: int


class Busy(Exception):
    """A start was refused, since a process of an earlier one is still at work."""


def run_until(command: Sequence[str], seconds: float, *, parent_only: bool = False) -> bool:
    """Run a command for at most so long, then kill it; whether it got through.

    Args:
        parent_only: kill the process that was started and none of those that it started.

    Raises:
        Busy: another process is at this job.
        RuntimeError: it failed by itself; the message is what it said last.
    """
    # A file, not a pipe: orphans would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            (os.kill if parent_only else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            return False
        if process.returncode == 0:
            return True
        said.seek(0)
        text = said.read().decode(errors="replace")
        if BUSY in text:
            raise Busy
        raise RuntimeError(f"{' '.join(command)}: {text[-2000:]}")


def contents(directory: Path) -> Dict[str, bytes]:
    """All files under a directory, without what differs by design.

    That is: times in summaries, and what a killed process was writing aside.
    """
    names = {
        str(path.relative_to(directory)): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(".summary.json")
    }
    return {name: path.read_bytes() for name, path in names.items() if ".tmp." not in name}


def _check_same(found: Dict[str, bytes], expected: Dict[str, bytes]) -> None:
    differ = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    assert not differ, f"files differ from the undisturbed run's: {', '.join(differ)}"


def harass(
    command: Callable[[Path], List[str]],
    root: Path,
    *,
    kills: int,
    seed: int,
    parent_only: bool = False,
    earliest: float = 0.2,
) -> Outcome:
    """Run ``command(output directory)`` undisturbed, then through ``kills`` kills.

    Args:
        command: argv; called for each start.
        parent_only: see :func:`run_until`.
        earliest: share of the undisturbed run's time before which there is no kill.

    Raises:
        AssertionError: the files differ from those of the undisturbed run; it names them.
    """
    rng = random.Random(seed)
    calm, rough = root / "calm", root / "rough"
    for directory in (calm, rough):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    started = time.monotonic()
    run_until(command(calm), 3600)
    usual = time.monotonic() - started
    expected = contents(calm)
    refused = 0

    def start(seconds: float) -> bool:
        nonlocal refused
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while time.monotonic() < deadline:
            try:
                return run_until(command(rough), seconds, parent_only=parent_only)
            except Busy:
                refused += 1
                time.sleep(0.5)
        raise RuntimeError(f"{rough}: jobs of a killed command are still at work")

    done = finished = in_work = 0
    while done < kills:
        started = time.monotonic()
        if start(rng.uniform(earliest, 1.0) * usual):
            finished += 1
            # the undisturbed run may have met a busy machine
            usual = min(usual, time.monotonic() - started)
            _check_same(contents(rough), expected)
            shutil.rmtree(rough)
            rough.mkdir()
        else:
            done += 1
            in_work += any(contents(rough).values())
    start(3600)
    _check_same(contents(rough), expected)
    return Outcome(done, finished + 1, in_work, refused)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for audio and models")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--utterances", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import bench_common as common

    common.quiet()
    # Two data sets in one command: the second begins when the first is whole.
    data = [
        common.write_corpus(args.work / f"kills_{count}_{seed}", count, seed)
        for count, seed in ((args.utterances * 2 // 3, 5), (args.utterances // 3, 6))
    ]
    encoder = common.write_hubert_large(args.work / "hubert_small", small=True)

    def module(name: str, *options: str) -> List[str]:
        return [
            *(sys.executable, "-m", f"espnet_spire.bin.{name}", "--data_dir", *map(str, data)),
            *("--encoder", encoder, "--layer", "12", "--device", "cpu", *options),
        ]

    def kmeans(out: Path, backend: str = "torch") -> List[str]:
        return module(
            "learn_kmeans", "--num_clusters", "200", "--passes", "8", "--tol", "0",
            "--backend", backend, "--out", str(out / "km"),
        )  # fmt: skip

    book = args.work / "kills_torch" / "calm" / "km"

    def extract(out: Path, dtype: str = "float32") -> List[str]:
        return module(
            "extract_units", "--codebook", str(book), "--dtype", dtype,
            "--batch_seconds", "20", "--out", str(out / "units_1"), str(out / "units_2"),
        )  # fmt: skip

    def launched(command: Callable[[Path], List[str]]) -> Callable[[Path], List[str]]:
        launch = [sys.executable, "-m", "espnet_spire.bin.launch", "--nj", "2"]
        return lambda out: [*launch, "--log", f"{out}.JOB.log", "--", *command(out)]

    commands = {
        "sklearn": ("learn_kmeans, sklearn", lambda out: kmeans(out, "sklearn")),
        "torch": ("learn_kmeans, torch", kmeans),
        "float32": ("extract_units, float32", extract),
        "bfloat16": ("extract_units, bfloat16", lambda out: extract(out, "bfloat16")),
        "sharded_kmeans": ("launch, learn_kmeans", launched(kmeans)),
        "sharded_units": ("launch, extract_units", launched(extract)),
    }
    rows = []
    for directory, (name, command) in commands.items():
        outcome = harass(
            command,
            args.work / f"kills_{directory}",
            kills=args.kills,
            seed=args.seed,
            parent_only=directory.startswith("sharded"),
        )
        rows.append(
            {
                "command": name,
                "killed": "launcher" if directory.startswith("sharded") else "all processes",
                "kills": str(outcome.kills),
                "of them in the midst of work": str(outcome.in_work),
                "starts refused": str(outcome.refused),
                "runs to the end": str(outcome.finished),
                "files": "identical",
            }
        )
        print(f"{name}: {outcome}")
    print(common.table(rows))


if __name__ == "__main__":
    main()
