"""Peak memory of learn_kmeans against its bound, on 1, 3 and 10 times the audio there is room for.

    python benchmarks/kmeans_memory.py [--max_gib 1.75] [--times 1 3 10]

Each run is a process of its own that does all of the command's work on audio files; a stand-in
takes the encoder's place: random vectors of HuBERT-large's width, so that hours of audio cost
seconds. The peak of collecting (which with a real encoder is the encoder's own memory) and that of
clustering are measured apart, in two processes, as `--num_shards` and `--merge` would.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SECONDS = 30
DIM = 1024
DESCRIPTION = {
    "encoder": "stand-in",
    "encoder_type": "stand-in",
    "layer": 0,
    "normalization": "none",
    "normalization_eps": 0.0,
    "pooling": "none",
    "pool_frames": 1,
    "frame_rate": 50.0,
    "dim": DIM,
}


class StandIn:
    """Sums of two rows of a table each, the same for the same order of calls."""

    dim = DIM
    description = DESCRIPTION

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.table = self.rng.standard_normal((5000, DIM), dtype=np.float32)

    def num_frames(self, num_samples: int) -> int:
        return max(0, (num_samples - 400) // 320 + 1)

    def __call__(self, batch):
        import torch

        result = []
        for samples in batch:
            first, second = self.rng.integers(
                len(self.table), size=(2, self.num_frames(len(samples)))
            )
            result.append(torch.from_numpy(self.table[first] + 0.5 * self.table[second]))
        return result


def child(part: str, directory: Path, hours: float, max_gib: float, num_clusters: int) -> None:
    from espnet_spire.units.kmeans import Options, cluster, collect, plan_learning, publish

    options = Options(
        num_clusters,
        hours=hours,
        passes=2,
        backend="torch",
        max_gib=max_gib,
        batch_seconds=120.0,
    )
    work = directory / "work"
    plan = plan_learning(DESCRIPTION, [directory / "data"], options, work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {"start": before, "keep": plan.collection.keep}
    if part == "collect":
        collect(StandIn(), plan, work)
    else:
        learned = cluster(plan, work)
        publish(learned, directory / "book")
        facts["frames"] = learned.codebook.description["frames"]
    facts["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(facts))


def data_of(directory: Path, hours: float) -> None:
    """A data directory of one recording under many names."""
    import soundfile

    (directory / "data").mkdir()
    wav = directory / "audio.wav"
    noise = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * 16000)
    soundfile.write(wav, noise, 16000, subtype="PCM_16")
    keys = [f"utt{number:07d}" for number in range(int(hours * 3600 / SECONDS) + 1)]
    tables = {"wav.scp": str(wav), "utt2num_samples": str(SECONDS * 16000)}
    for name, value in tables.items():
        text = "".join(f"{key} {value}\n" for key in keys)
        (directory / "data" / name).write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_gib", type=float, default=1.75)
    parser.add_argument("--num_clusters", type=int, default=1000)
    parser.add_argument("--times", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        part, directory, hours = args.child
        child(part, Path(directory), float(hours), args.max_gib, args.num_clusters)
        return
    from espnet_spire.units.clustering import frame_capacity
    from espnet_spire.units.kmeans import PROCESS_GIB

    room = frame_capacity(
        int((args.max_gib - PROCESS_GIB) * 2**30), DIM, args.num_clusters, "torch"
    )
    print(f"bound {args.max_gib} GiB, room for {room:,} frames of {DIM}\n")
    print("| audio, times the room | hours | kept of frames | frames clustered |", end="")
    print(" peak of collecting, GiB | peak of clustering, GiB | share of the bound |")
    print("|---|---|---|---|---|---|---|")
    for times in args.times:
        hours = times * room / 50 / 3600
        with tempfile.TemporaryDirectory() as name:
            data_of(Path(name), hours)
            facts = {}
            for part in ("collect", "cluster"):
                command = [sys.executable, __file__, "--max_gib", str(args.max_gib)]
                command += ["--num_clusters", str(args.num_clusters)]
                done = subprocess.run(
                    [*command, "--child", part, name, str(hours)], capture_output=True, text=True
                )
                if done.returncode:
                    sys.exit(done.stderr)
                facts[part] = json.loads(done.stdout.splitlines()[-1])
        peaks = [facts[part]["peak"] / 2**20 for part in ("collect", "cluster")]
        print(
            f"| {times:g} | {hours:.2f} | {facts['cluster']['keep']:.3f} |"
            f" {facts['cluster']['frames']:,} | {peaks[0]:.2f} | {peaks[1]:.2f} |"
            f" {peaks[1] / args.max_gib:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
