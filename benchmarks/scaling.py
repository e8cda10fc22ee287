"""Extraction by amount of data and by number of jobs: time per hour of audio, and memory.

    python benchmarks/scaling.py --work DIR [--base 60] [--factors 1 5 20]

The small HuBERT, so that reading, journal and bookkeeping weigh as much as they ever will. Memory
is the process's peak; time leaves out starting Python and loading the model.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import bench_common as common

_ONE = """
import json, resource, sys, time
from espnet_spire.units.assign import Assigner
from espnet_spire.units.codebook import load_codebook
from espnet_spire.units.encoder import load_encoder
from espnet_spire.units.extract import Job, Options
data, name, book, out, shards, shard = sys.argv[1:7]
encoder, codebook = load_encoder(name, 12), load_codebook(book)
job = Job(encoder, Assigner(codebook), codebook, Options())
started = time.perf_counter()
job.run(data, out, num_shards=int(shards), shard=int(shard))
print(json.dumps({"seconds": time.perf_counter() - started,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def jobs(arguments, count: int, threads: int):
    """Run ``count`` jobs side by side; the longest time and the highest peak."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _ONE, *arguments, str(count), str(shard)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )  # fmt: skip
        for shard in range(1, count + 1)
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return max(r["seconds"] for r in results), max(r["peak_mib"] for r in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for audio and models")
    parser.add_argument("--base", type=int, default=60, help="utterances of the smallest set")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--rounds", type=int, default=3, help="of one and two jobs")
    args = parser.parse_args()
    common.quiet()

    from espnet_spire.bin import learn_kmeans
    from espnet_spire.units.durations import utterance_samples

    name = common.write_hubert_large(args.work / "hubert_small", small=True)
    base = common.write_corpus(args.work / f"scale_{args.base}", args.base, 6)
    book = args.work / "km_scale"
    if not book.exists():
        learn_kmeans.main(
            ["--data_dir", str(base), "--encoder", name, "--layer", "12"]
            + ["--num_clusters", "500", "--passes", "2", "--out", str(book), "--device", "cpu"]
        )
    print(common.machine())
    rows, first = [], None
    run = time.strftime("%H%M%S")
    lines = [line.split() for line in (base / "wav.scp").read_text().splitlines()]
    for factor in args.factors:
        data = args.work / f"scale_{args.base}x{factor}"
        data.mkdir(exist_ok=True)
        # the same audio under other names
        (data / "wav.scp").write_text(
            "".join(f"{key}-{copy:03d} {path}\n" for key, path in lines for copy in range(factor))
        )
        hours = sum(one.num_samples for one in utterance_samples(data)) / 16000 / 3600
        seconds, peak = jobs([str(data), name, str(book), str(data / f"units{run}")], 1, 2)
        first = first or seconds / hours
        rows.append(
            {
                "data": f"{factor} x",
                "hours": f"{hours:.2f}",
                "s an hour of audio": f"{seconds / hours:.1f}",
                "against 1 x": f"{seconds / hours / first:.2f}",
                "peak memory": f"{peak:.0f} MiB",
            }
        )
    print(common.table(rows))
    rows = []
    data = args.work / f"scale_{args.base}x{args.factors[min(1, len(args.factors) - 1)]}"
    for number in range(args.rounds):
        taken = {}
        for count in (1, 2):
            out = data / f"units{run}.{number}.{count}"
            # one thread a job: how work divides, not how a matrix product does
            taken[count], _ = jobs([str(data), name, str(book), str(out)], count, 1)
        rows.append(
            {
                "round": str(number + 1),
                "one job": f"{taken[1]:.1f} s",
                "two jobs": f"{taken[2]:.1f} s",
                "share": f"{taken[2] / taken[1]:.2f}",
            }
        )
    print(common.table(rows))


if __name__ == "__main__":
    main()
