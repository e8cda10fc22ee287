"""Memory of each rank while a model is loaded under ZeRO 3, against transformers' from_pretrained.

Two ranks over gloo, a Llama of 171 M parameters in float32 (random weights); the peak of anonymous
memory above what the process had before, and of all resident memory, which counts mapped files.

    python benchmarks/zero3_memory.py --work DIR [--ranks 2]
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import training
from bench_common import machine, table

MIB = 2**20


def memory() -> dict:
    """MiB of this process (Linux)."""
    said = Path("/proc/self/status").read_text()
    return {n: int(re.search(rf"{n}:\s+(\d+)", said)[1]) / 1024 for n in ("RssAnon", "VmRSS")}


def one_rank(model: str, way: str) -> None:
    """Load the model and print what it took, as JSON."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    from espnet_spire.model.loading import load_lm
    from espnet_spire.train.distributed import end_process_group, init_process_group

    init_process_group(0)
    config = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
    keep_alive = HfDeepSpeedConfig({**config, "gradient_accumulation_steps": 1})
    before, peak, done = memory(), memory(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak.update({name: max(peak[name], now) for name, now in memory().items()})
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if way == "ours":
        lm = load_lm(model, dtype="float32", zero3=True)
    else:
        lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    done.set()
    watcher.join()
    whole = sum(parameter.ds_numel for parameter in lm.parameters()) * 4 / MIB
    found = {name: round(peak[name] - before[name]) for name in peak}
    print(json.dumps({"rank": torch.distributed.get_rank(), "whole": round(whole), **found}))
    end_process_group()
    del keep_alive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="directory for the model")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--way", choices=["ours", "from_pretrained"], help="of one rank")
    options = parser.parse_args()
    model = options.work / "llama_171m"
    if options.way:
        one_rank(str(model), options.way)
        return
    print(machine())
    training.SIZES["171m"] = (1024, 2816, 12, 16, 16)
    training.VOCABULARY["171m"] = 8064
    if not (model / "spire.json").exists():
        training.write_model(model, "171m")
    rows = []
    for way in ("from_pretrained", "ours"):
        launcher = ["-m", "espnet_spire.bin.launch_ranks", "--nproc", str(options.ranks), "--"]
        this = [sys.executable, __file__, "--work", str(options.work), "--way", way]
        done = subprocess.run(
            [sys.executable, *launcher, *this], capture_output=True, text=True, check=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in sorted(lines, key=lambda line: line["rank"]):
            rows.append(
                {
                    "way": way,
                    "rank": str(line["rank"]),
                    "whole model": f"{line['whole']} MiB",
                    "anonymous, peak": f"{line['RssAnon']} MiB",
                    "resident, peak": f"{line['VmRSS']} MiB",
                }
            )
    print(table(rows))


if __name__ == "__main__":
    main()
