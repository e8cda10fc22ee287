"""Kill extraction and k-means at random moments, start them again, and compare what comes out.

Each command first runs undisturbed. Then it is started again and again, and killed (SIGKILL, the
whole process group) at a moment drawn from the time it takes; when it gets through, its files must
be those of the undisturbed run, byte for byte, and it begins anew until all kills are spent.

    python benchmarks/kills.py --work DIR [--kills 20] [--utterances 150]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence


class Outcome(NamedTuple):
    """``kills`` were survived over ``finished`` runs to the end; ``in_work`` of them left some
    work behind that the next start found."""

    kills: int
    finished: int
    in_work: int


def run_until(command: Sequence[str], seconds: float) -> bool:
    """Run a command for at most so long, then kill it; whether it got through.

    Raises:
        RuntimeError: it failed by itself; the message is what it said last.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {said.decode(errors='replace')[-2000:]}")
    return True


def contents(directory: Path) -> Dict[str, bytes]:
    """All files under a directory, without what differs by design: times in summaries."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(".summary.json")
    }


def harass(command: Callable[[Path], List[str]], root: Path, *, kills: int, seed: int) -> Outcome:
    """Run ``command(output directory)`` undisturbed, then through ``kills`` kills.

    Raises:
        AssertionError: the files differ from those of the undisturbed run.
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
    done = finished = in_work = 0
    while done < kills:
        if run_until(command(rough), rng.uniform(0.2, 1.0) * usual):
            finished += 1
            assert contents(rough) == expected, "files differ from the undisturbed run's"
            shutil.rmtree(rough)
            rough.mkdir()
        else:
            done += 1
            in_work += any(path.stat().st_size for path in rough.rglob("*") if path.is_file())
    run_until(command(rough), 3600)
    assert contents(rough) == expected, "files differ from the undisturbed run's"
    return Outcome(done, finished + 1, in_work)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for audio and models")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--utterances", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import bench_common as common

    common.quiet()
    data = common.write_corpus(args.work / f"kills_{args.utterances}", args.utterances, 5)
    encoder = common.write_hubert_large(args.work / "hubert_small", small=True)
    model = ["--encoder", encoder, "--layer", "12", "--device", "cpu"]

    def module(name: str, *options: str) -> List[str]:
        return [sys.executable, "-m", f"espnet_spire.bin.{name}", "--data_dir", str(data), *options]

    def kmeans(backend: str) -> Callable[[Path], List[str]]:
        return lambda out: module(
            "learn_kmeans", *model, "--num_clusters", "200", "--passes", "8", "--tol", "0",
            "--backend", backend, "--out", str(out / "km"),
        )  # fmt: skip

    outcomes = {}
    for backend in ("sklearn", "torch"):
        outcomes[f"learn_kmeans, {backend}"] = harass(
            kmeans(backend), args.work / f"kills_{backend}", kills=args.kills, seed=args.seed
        )
    book = args.work / "kills_torch" / "calm" / "km"
    for dtype in ("float32", "bfloat16"):

        def extract(out: Path, dtype: str = dtype) -> List[str]:
            return module(
                "extract_units", *model, "--codebook", str(book), "--dtype", dtype,
                "--batch_seconds", "20", "--out", str(out / "units"),
            )  # fmt: skip

        outcomes[f"extract_units, {dtype}"] = harass(
            extract, args.work / f"kills_{dtype}", kills=args.kills, seed=args.seed
        )
    print(
        common.table(
            [
                {
                    "command": name,
                    "kills": str(outcome.kills),
                    "of them in the midst of work": str(outcome.in_work),
                    "runs to the end": str(outcome.finished),
                    "files": "identical",
                }
                for name, outcome in outcomes.items()
            ]
        )
    )


if __name__ == "__main__":
    main()
