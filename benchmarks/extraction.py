"""Units of HuBERT-large size against the plain way, on the same cores in the same run.

The plain way: transformers' whole model in float32, its own feature extractor, batches of four in
file order, padded, audio read in between. Rounds of all ways take turns, so that a busy neighbour
slows all of them; the ratio is the median over rounds.

    python benchmarks/extraction.py --work DIR [--rounds 3] [--utterances 20] [--small]
"""

import argparse
import json
import time
from pathlib import Path

import bench_common as common


def plain_way(model, extractor, centroids, data_dir, layer):
    """Units of a data directory, as a script of a dozen lines makes them."""
    import soundfile
    import torch

    half_norms = 0.5 * (centroids * centroids).sum(dim=1)
    lines = [line.split() for line in (data_dir / "wav.scp").read_text().splitlines()]
    units = {}
    with torch.inference_mode():
        for first in range(0, len(lines), 4):
            batch = lines[first : first + 4]
            waves = [soundfile.read(path, dtype="float32")[0] for _, path in batch]
            inputs = extractor(waves, sampling_rate=16000, padding=True, return_tensors="pt")
            hidden = model(**inputs, output_hidden_states=True).hidden_states[layer]
            for (key, _), wave, features in zip(batch, waves, hidden, strict=True):
                features = features[: (len(wave) - 400) // 320 + 1]
                units[key] = (features @ centroids.T - half_norms).argmax(dim=1)
    return units


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for audio and models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=20, help="of a round")
    parser.add_argument("--layer", type=int, default=22)
    parser.add_argument("--clusters", type=int, default=5000)
    parser.add_argument("--codebook_hours", type=float, default=0.7)
    parser.add_argument("--small", action="store_true", help="a small model, to try the script")
    args = parser.parse_args()
    common.quiet()

    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    from espnet_spire.bin import learn_kmeans
    from espnet_spire.units.assign import Assigner
    from espnet_spire.units.audio import load_audio, utterance_sources
    from espnet_spire.units.codebook import load_codebook
    from espnet_spire.units.encoder import load_encoder
    from espnet_spire.units.extract import Job, Options, join_jobs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = "small" if args.small else "large"
    name = common.write_hubert_large(args.work / f"hubert_{size}", small=args.small)
    sets = [
        common.write_corpus(args.work / f"set{number}_{args.utterances}", args.utterances, number)
        for number in range(1, args.rounds + 1)
    ]
    book = args.work / f"km{args.clusters}_{size}"
    if not book.exists():
        learning = common.write_corpus(
            args.work / "learning", int(args.codebook_hours * 3600 / 12.3), 0
        )
        learn_kmeans.main(
            ["--data_dir", str(learning), "--encoder", name, "--layer", str(args.layer)]
            + ["--num_clusters", str(args.clusters), "--out", str(book), "--dtype", "bfloat16"]
            + ["--hours", str(args.codebook_hours)]
        )
    codebook = load_codebook(book)
    model = AutoModel.from_pretrained(name).eval()
    extractor = AutoFeatureExtractor.from_pretrained(name)
    encoders = {
        dtype: load_encoder(name, args.layer, dtype=dtype, device=device)
        for dtype in ("float32", "bfloat16")
    }
    jobs = {
        dtype: Job(encoder, Assigner(codebook, device), codebook, Options(keep_repeats=True))
        for dtype, encoder in encoders.items()
    }

    def ours(dtype, data_dir):
        out = data_dir / f"units.{dtype}"
        jobs[dtype].run(data_dir, out)
        return join_jobs(out, 1, max_rejected=0.0)

    print(common.machine())
    warm = common.write_corpus(args.work / "warm", 2, 99)
    plain_way(model, extractor, codebook.centroids, warm, args.layer)
    for dtype in encoders:
        ours(dtype, warm)

    times = {"plain": [], "float32": [], "bfloat16": []}
    flops, seconds = [], []
    equal = frames = checked = agreed = alone = differs = 0
    for number, data_dir in enumerate(sets, 1):
        started = time.perf_counter()
        plain = plain_way(model, extractor, codebook.centroids, data_dir, args.layer)
        times["plain"].append(time.perf_counter() - started)
        for dtype in ("float32", "bfloat16"):
            started = time.perf_counter()
            summary = ours(dtype, data_dir)
            times[dtype].append(time.perf_counter() - started)
            if dtype == "float32":
                alone += summary.alone
        seconds.append(summary.seconds)
        flops.append(
            common.hubert_flops(model.config, args.layer, [len(line) for line in plain.values()])
        )
        # The promise: float32 units are those of one utterance at a time.
        assigner = Assigner(codebook, device)
        lines = {
            dtype: dict(
                line.split(" ", 1)
                for line in (data_dir / f"units.{dtype}").read_text().splitlines()
            )
            for dtype in encoders
        }
        for key, source in utterance_sources(data_dir).items():
            one = assigner(encoders["float32"].alone(load_audio(source))).units
            fast, rough = (
                torch.tensor([int(unit) for unit in lines[dtype][key].split()])
                for dtype in ("float32", "bfloat16")
            )
            equal += bool(torch.equal(one, fast))
            differs += int((plain[key] != one).sum())
            agreed += int((rough == one).sum())
            frames += len(one)
            checked += 1
        print(
            f"round {number}: {seconds[-1]:.0f} s of audio, "
            + ", ".join(f"{way} {taken[-1]:.1f} s" for way, taken in times.items())
        )
    rows = []
    peaks = {
        "plain": common.matmul_peak(torch.float32),
        "bfloat16": common.matmul_peak(torch.bfloat16),
    }
    peaks["float32"] = peaks["plain"]
    ratios = {}
    for way, taken in times.items():
        ratios[way] = common.median_ratio(times["plain"], taken)
        rows.append(
            {
                "way": way,
                "s per 40 s of audio": f"{40 * sum(taken) / sum(seconds):.2f}",
                "real time": f"{sum(seconds) / sum(taken):.1f} x",
                "against the plain way": f"{ratios[way]:.2f} x",
                "of the matrix product peak": f"{sum(flops) / sum(taken) / peaks[way]:.0%}",
                "peak measured": f"{peaks[way] / 1e9:.0f} GFLOP/s",
            }
        )
    print(common.table(rows))
    print(
        f"float32: {equal} of {checked} utterances have the units of one at a time"
        f" ({alone} were done again alone); the plain way's padded batches differ from it on"
        f" {differs} of {frames} frames\n"
        f"bfloat16: {agreed / frames:.2%} of {frames} frames have the float32 unit"
    )
    (args.work / "extraction.json").write_text(
        json.dumps(
            {
                "ratios": ratios,
                "times": times,
                "seconds": seconds,
                "equal": equal,
                "checked": checked,
                "agreement": agreed / frames,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
