"""Units of HuBERT-large size against the plain way, on the same device in the same run.

The plain way: transformers' whole model in float32, its own feature extractor, batches of four in
file order, padded, audio read in between. On a GPU it also runs in bfloat16, since nobody would
leave that out there. Rounds of all ways take turns, so that a busy neighbour slows all of them; the
ratio is the median over rounds.

    python benchmarks/extraction.py --work DIR [--rounds 3] [--utterances 28] [--lengths test|train]
"""

import argparse
import json
import time
from pathlib import Path

import bench_common as common


def plain_way(model, extractor, centroids, data_dir, layer):
    """Units of a data directory, as a script of a dozen lines makes them; on the CPU.

    The model's device and type are those of the features; ``centroids`` are float32 on the device.
    """
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
            inputs = inputs.to(model.device)
            inputs["input_values"] = inputs["input_values"].to(model.dtype)
            hidden = model(**inputs, output_hidden_states=True).hidden_states[layer]
            for (key, _), wave, features in zip(batch, waves, hidden, strict=True):
                features = features[: (len(wave) - 400) // 320 + 1].float()
                units[key] = (features @ centroids.T - half_norms).argmax(dim=1).cpu()
    return units


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for audio and models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=28, help="of a round")
    parser.add_argument(
        "--lengths", default="test", choices=["test", "train"], help="as in LibriSpeech's sets"
    )
    parser.add_argument("--layer", type=int, default=22)
    parser.add_argument("--clusters", type=int, default=5000)
    parser.add_argument("--codebook_hours", type=float, default=0.7)
    parser.add_argument("--small", action="store_true", help="a small model, to try the script")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch_seconds", type=float, help="as of extract_units")
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
    from espnet_spire.units.options import batch_seconds
    from espnet_spire.utils.cli import default_device

    torch_tf32 = torch.backends.cudnn.allow_tf32
    device = default_device(args.device)
    on_gpu = device.startswith("cuda")
    size = "small" if args.small else "large"
    name = common.write_hubert_large(args.work / f"hubert_{size}", small=args.small)
    sets = [
        common.write_corpus(
            args.work / f"{args.lengths}{number}_{args.utterances}",
            args.utterances,
            number,
            args.lengths,
        )
        for number in range(1, args.rounds + 1)
    ]
    book = args.work / f"km{args.clusters}_{size}"
    if not book.exists():
        learning = common.write_corpus(
            args.work / "learning", int(args.codebook_hours * 3600 / 7.7), 0
        )
        learn_kmeans.main(
            ["--data_dir", str(learning), "--encoder", name, "--layer", str(args.layer)]
            + ["--num_clusters", str(args.clusters), "--out", str(book), "--dtype", "bfloat16"]
            + ["--hours", str(args.codebook_hours), "--device", device]
        )
    codebook = load_codebook(book)
    centroids = codebook.centroids.to(device)
    plain_types = {"plain": torch.float32}
    if on_gpu:
        plain_types["plain bfloat16"] = torch.bfloat16
    models = {
        way: AutoModel.from_pretrained(name, dtype=dtype).eval().to(device)
        for way, dtype in plain_types.items()
    }
    extractor = AutoFeatureExtractor.from_pretrained(name)
    encoders = {
        dtype: load_encoder(name, args.layer, dtype=dtype, device=device)
        for dtype in ("float32", "bfloat16")
    }
    assigner = Assigner(codebook, device)
    options = Options(keep_repeats=True, batch_seconds=batch_seconds(args))
    jobs = {dtype: Job(encoder, assigner, codebook, options) for dtype, encoder in encoders.items()}

    def plainly(way, data_dir):
        # Our encoders switch TensorFloat-32 off; a plain script leaves it as torch has it.
        ours_tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, torch_tf32
        try:
            return plain_way(models[way], extractor, centroids, data_dir, args.layer)
        finally:
            torch.backends.cudnn.allow_tf32 = ours_tf32

    def ours(dtype, data_dir):
        out = data_dir / f"units.{dtype}"
        job = jobs[dtype]
        job.run(data_dir, out)
        return join_jobs(data_dir, out, 1, max_rejected=0.0, settings=job.settings)

    print(common.machine())
    for data_dir in (*sets, args.work / "warm"):  # what is up to date would not be done again
        for path in (*data_dir.glob("units.*"), *data_dir.glob(".units.*")):
            path.unlink()
    warm = common.write_corpus(args.work / "warm", 2, 99)
    for way in models:
        plainly(way, warm)
    for dtype in encoders:
        ours(dtype, warm)

    times = {way: [] for way in (*models, *encoders)}
    flops, seconds = [], []
    equal = frames = checked = agreed = alone = differs = 0
    for number, data_dir in enumerate(sets, 1):
        for way in models:
            started = time.perf_counter()
            units = plainly(way, data_dir)  # on the CPU: the device has done its work
            times[way].append(time.perf_counter() - started)
            if way == "plain":
                plain = units
        for dtype in encoders:
            started = time.perf_counter()
            summary = ours(dtype, data_dir)
            times[dtype].append(time.perf_counter() - started)
            if dtype == "float32":
                alone += summary.alone
        seconds.append(summary.seconds)
        flops.append(
            common.hubert_flops(
                models["plain"].config, args.layer, [len(line) for line in plain.values()]
            )
        )
        # The promise: float32 units are those of one utterance at a time.
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
    measured = {
        dtype: common.matmul_peak(dtype, device) for dtype in (torch.float32, torch.bfloat16)
    }
    types = {**plain_types, "float32": torch.float32, "bfloat16": torch.bfloat16}
    peaks = {way: measured[dtype] for way, dtype in types.items()}
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
