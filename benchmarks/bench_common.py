"""What the benchmarks share: the machine, speech of natural lengths, a HuBERT-large, tables."""

import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Sequence

import numpy as np

# Quantiles of utterance length in seconds, near those of LibriSpeech's test sets (2 to 35 s, mean
# 7.7) and of its training sets (most between 12 and 16.5, mean 12.3).
LENGTH_QUANTILES = {
    "test": {
        0: 2.0,
        0.1: 2.8,
        0.25: 3.9,
        0.5: 5.9,
        0.75: 9.4,
        0.9: 14.6,
        0.95: 18.0,
        0.99: 27.0,
        1: 35.0,
    },
    "train": {0: 2.0, 0.05: 4.0, 0.15: 7.5, 0.25: 10.9, 0.5: 13.8, 0.75: 15.3, 0.95: 16.4, 1: 24.5},
}
VOICES = ["en-us", "en", "en-gb-scotland", "en-us+f3", "en-gb-x-rp+m2", "en-029+f2"]
WORDS = (
    "the of and a in to it is was that for on you he be with as by at have are this not but had his"
    " they from she which or we an there her were one do been all their has would will what if can"
    " when so no said who more about up them some could him into its then two out time like only my"
    " did other me your now over just may these new also people any know very see first well after"
    " should than where back how get most way down our made got much think work between go years"
    " many being those before right because through yes good three make us such still year must"
    " even take own too off here come both does say used under day same long might different small"
    " large next early young important few public bad able speech unit winter garden river mountain"
    " engineer morning yellow wander capture forget thousand breath horizon quiet journey kitchen"
).split()
RATE = 16000


def machine() -> str:
    """One line: processor, cores in use, library versions."""
    import torch
    import transformers

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    said = cpuinfo.read_text() if cpuinfo.exists() else ""
    for line in said.splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    flags = " with AVX-512 bfloat16" if "avx512_bf16" in said else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{name}{flags}, {torch.get_num_threads()} threads, {device}, torch {torch.__version__},"
        f" transformers {transformers.__version__}, Python {platform.python_version()}"
    )


def speech_lengths(count: int, seed: int, like: str) -> List[float]:
    """Seconds of ``count`` utterances, as in LibriSpeech's ``test`` or ``train`` sets."""
    chosen = np.random.default_rng(seed).uniform(size=count)
    return np.interp(
        chosen, list(LENGTH_QUANTILES[like]), list(LENGTH_QUANTILES[like].values())
    ).tolist()


def speech(seconds: float, number: int) -> np.ndarray:
    """So much of one voice reading random words, with a little noise; int16 at 16 kHz."""
    import torch
    import torchaudio

    from espnet_spire.mini.espeak import synthesize

    rng = np.random.default_rng(number)
    pieces: List[np.ndarray] = []
    while sum(map(len, pieces)) < seconds * RATE:
        spoken = synthesize(
            " ".join(rng.choice(WORDS, 40)),
            VOICES[number % len(VOICES)],
            rate=int(rng.integers(130, 210)),
            pitch=int(rng.integers(30, 70)),
        )
        sound = torch.from_numpy(spoken.astype(np.float32))
        pieces.append(torchaudio.functional.resample(sound, 22050, RATE).numpy())
    sound = np.concatenate(pieces)[: int(seconds * RATE)]
    sound = sound + rng.normal(scale=40, size=len(sound))
    return sound.clip(-32768, 32767).astype(np.int16)


def write_corpus(directory: Path, count: int, seed: int, like: str = "test") -> Path:
    """A Kaldi data directory of FLAC files; what is there already stays."""
    import soundfile

    if (directory / "wav.scp").exists():
        return directory
    audio = directory / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, seconds in enumerate(speech_lengths(count, seed, like)):
        path = audio / f"u{number:06d}.flac"
        soundfile.write(path, speech(seconds, 1000 * seed + number), RATE)
        lines.append(f"u{number:06d} {path}\n")
    speakers = [f"{line.split()[0]} s{number % 7}\n" for number, line in enumerate(lines)]
    (directory / "utt2spk").write_text("".join(speakers))
    (directory / "wav.scp").write_text("".join(lines))
    return directory


def write_hubert_large(directory: Path, *, small: bool = False) -> str:
    """A HuBERT of the size of facebook/hubert-large-ll60k with random weights."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    if not (directory / "preprocessor_config.json").exists():
        size = (
            {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
            if small
            else {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
        )
        torch.manual_seed(0)
        config = HubertConfig(
            **size,
            num_hidden_layers=24,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            conv_bias=True,
        )
        HubertModel(config).save_pretrained(directory)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(directory)
    return str(directory)


def hubert_flops(config, layer: int, frames: Sequence[int]) -> float:
    """Multiplications and additions of blocks 1 … layer for utterances of so many frames.

    As the model is defined (the positional convolution as a sum, attention in full), whatever way
    it is computed; norms and activations are not counted.
    """
    total = sum(frames)
    width, wide = config.hidden_size, config.intermediate_size
    flops = 0.0
    channels, rate = 1, 1
    for stride in config.conv_stride:
        rate *= stride
    for dim, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        rate //= stride
        flops += 2.0 * total * rate * dim * channels * kernel
        channels = dim
    flops += 2.0 * total * channels * width
    groups = config.num_conv_pos_embedding_groups
    flops += 2.0 * total * width * (width // groups) * config.num_conv_pos_embeddings
    flops += layer * 2.0 * total * (4 * width * width + 2 * width * wide)
    flops += layer * 4.0 * width * sum(float(count) ** 2 for count in frames)
    return flops


def matmul_peak(dtype, device: str = "cpu") -> float:
    """Best floating point operations a second of a matrix product on a device, measured."""
    import torch

    from espnet_spire.units.matmul import linear, packed

    if torch.device(device).type == "cuda":  # it needs more to be busy, and to wake up
        sizes, repeats = ((16384, 1024, 4096), (16384, 4096, 1024), (8192, 8192, 8192)), 20
    else:
        sizes, repeats = ((2048, 1024, 4096), (4096, 4096, 1024), (4096, 4096, 4096)), 6
    best = 0.0
    with torch.inference_mode():
        for rows, inner, outer in sizes:
            x = torch.randn(rows, inner).to(device, dtype)
            weight = packed(torch.randn(outer, inner).to(device, dtype))
            for _ in range(repeats):
                taken = timed(lambda x=x, weight=weight: linear(x, weight), device)
                best = max(best, 2.0 * rows * inner * outer / taken)
    return best


def timed(function: Callable[[], object], device: str = "cpu") -> float:
    """Seconds that a call takes until the device has done its work."""
    import torch

    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started


def median_ratio(baseline: Sequence[float], ours: Sequence[float]) -> float:
    """Median over rounds of how many times faster ours was in the same round."""
    return statistics.median(b / o for b, o in zip(baseline, ours, strict=True))


def table(rows: List[Dict[str, str]]) -> str:
    """Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]
    return "\n".join(lines)


def quiet() -> None:
    """No progress bars and model loading messages between the figures."""
    import transformers

    os.environ["SPIRE_LOG_LEVEL"] = "WARNING"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    sys.stdout.reconfigure(line_buffering=True)
