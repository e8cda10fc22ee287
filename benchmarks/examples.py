"""Making examples: tokens a second a core against the plain way, and memory against their number.

    python benchmarks/examples.py [--rounds 3] [--tokens 4e6] [--memory 1e6 1e7 1e8] [--nj 2]

The data are made up: utterances of 10 s on average at 35 units a second (K = 5000), transcripts of
about 25 words of a made-up language with Zipf's frequencies, a SentencePiece tokenizer of 16,000
pieces learned from it and extended by the units. CPT (plain) and IT (ChatML) prompts.

The plain way is what a script of a dozen lines does: the tokenizer on the whole string, one example
at a time, `datasets.Dataset.from_generator`, `save_to_disk`. Both ways read the same files in one
process and take turns, the plain way on half of the utterances.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np
from bench_common import machine, median_ratio, quiet, table

UNITS, UNITS_NAME = 5000, "text.rm.made_up_km5000"
TOKENS_EACH = 395  # of an example, about


def words(count: int = 30000) -> Tuple[np.ndarray, np.ndarray]:
    """A made-up language and how often its words are."""
    rng = np.random.default_rng(7)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"] + ["st", "ng", "er", "an"]
    made = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(count)]
    weights = 1 / np.arange(1, count + 1)
    return np.array(made), weights / weights.sum()


def sentences(count: int, seed: int) -> Iterator[str]:
    """About 25 words each."""
    made, weights = words()
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield " ".join(made[rng.choice(len(made), max(3, rng.poisson(25)), p=weights)])


def write_data(directory: Path, count: int) -> str:
    """``text`` and units of ``count`` utterances; transcripts repeat after 20,000."""
    directory.mkdir(parents=True)
    texts = list(sentences(min(count, 20000), 1))
    names = np.array([str(unit) for unit in range(UNITS)])
    rng = np.random.default_rng(2)
    with open(directory / "text", "w") as text, open(directory / UNITS_NAME, "w") as units:
        for number in range(count):
            key = f"utt{number:09d}"
            text.write(f"{key} {texts[number % len(texts)]}\n")
            row = rng.integers(UNITS, size=max(20, int(rng.normal(350, 120))))
            units.write(f"{key} {' '.join(names[row])}\n")
    return str(directory)


def write_model(directory: Path) -> str:
    """An extended model directory; of the model the tokenizer alone matters."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from espnet_spire.mini.small_tower import train_tokenizer
    from espnet_spire.text.vocabulary import extend_vocabulary

    train_tokenizer(list(sentences(30000, 3)), 16000, directory / "base")
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(directory / "base")),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(directory / "base")
    extend_vocabulary(str(directory / "base"), UNITS, directory / "extended")
    return str(directory / "extended")


def plain_way(data: str, tokenizer, form: str, out: str) -> int:
    """The baseline; returns its tokens."""
    from datasets import Dataset

    from espnet_spire.text import prompts

    def examples() -> Iterator[Dict[str, object]]:
        with open(f"{data}/text") as texts, open(f"{data}/{UNITS_NAME}") as lines:
            for text, line in zip(texts, lines, strict=True):
                key, transcript = text.rstrip("\n").split(" ", 1)
                units = [int(word) for word in line.split()[1:]]
                if form == "plain":
                    ids = tokenizer(prompts.asr_plain(units, transcript)).input_ids
                    ids.append(tokenizer.eos_token_id)
                    yield {"input_ids": ids, "length": len(ids), "key": key}
                    continue
                pieces = prompts.chatml_pieces(prompts.asr_conversation(units, transcript))
                ids, labels = [tokenizer.bos_token_id], [-100]
                for piece in pieces:  # tokenised apart, as most scripts find their labels
                    some = tokenizer(piece.text, add_special_tokens=False).input_ids
                    ids += some
                    labels += some if piece.is_target else [-100] * len(some)
                yield {"input_ids": ids, "labels": labels, "length": len(ids), "key": key}

    dataset = Dataset.from_generator(examples, cache_dir=f"{out}.cache")
    dataset.save_to_disk(out)
    return sum(dataset["length"])


def ours(data: str, tokenizer, form: str, out: str, nj: int = 1) -> int:
    from espnet_spire.train.build import build_examples

    source = {"name": "asr", "task": "asr", "data_dir": data}
    mixture = {"format": form, "max_length": 2048, "seed": 0, "sources": [source]}
    report = build_examples(mixture, tokenizer, out, units_name=UNITS_NAME, nj=nj)
    return report["sources"][0]["tokens"]


def speed(folder: Path, model: str, tokens: float, rounds: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = write_data(folder / "speed", int(tokens / TOKENS_EACH))
    few = write_data(folder / "few", max(1, int(tokens / TOKENS_EACH / 2)))
    rows = []
    for form in ("plain", "chatml"):
        rates: Dict[str, list] = {"plain way": [], "ours": []}
        for number in range(rounds):
            for name, way, where in (("plain way", plain_way, few), ("ours", ours, data)):
                out = str(folder / f"{form}-{name}-{number}".replace(" ", "-"))
                with contextlib.redirect_stderr(io.StringIO()):
                    started = time.process_time(), time.perf_counter()
                    made = way(where, tokenizer, form, out)
                    taken = time.process_time() - started[0], time.perf_counter() - started[1]
                # a process that waits for a shared core has not used it
                rates[name].append((made / taken[0], made / taken[1]))
        for name, pairs in rates.items():
            cpu, wall = (statistics.median(rate) for rate in zip(*pairs, strict=True))
            seconds = [[1 / pair[0] for pair in rates[way]] for way in ("plain way", name)]
            rows.append(
                {
                    "prompts": {"plain": "CPT", "chatml": "IT"}[form],
                    "way": name,
                    "tokens a second of a core": f"{cpu / 1e6:.2f}M",
                    "of wall time": f"{wall / 1e6:.2f}M",
                    "against the plain way": f"{median_ratio(*seconds):.1f} x",
                }
            )
    print(table(rows) + "\n")


def memory(folder: Path, model: str, sizes: list, nj: int) -> None:
    rows, points = [], []
    for size in sizes:
        name = folder / f"memory-{size:.0f}"
        data = write_data(name / "data", int(size / TOKENS_EACH))
        command = [sys.executable, __file__, "--child", data, model, str(name / "out"), str(nj)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        facts = json.loads(done.stdout.splitlines()[-1])
        points.append((facts["tokens"], facts["main"] / 1024, facts["worker"] / 1024))
        rows.append(
            {
                "tokens": f"{facts['tokens'] / 1e6:.1f}M",
                "seconds": f"{facts['seconds']:.1f}",
                "main process before, MiB": f"{facts['before'] / 1024:.0f}",
                "its peak, MiB": f"{points[-1][1]:.0f}",
                f"peak of a worker (--nj {nj}), MiB": f"{points[-1][2]:.0f}",
            }
        )
    print(table(rows))
    if len(points) > 1:
        (start, *before), (end, *after) = points[-2:]
        slopes = [(b - a) / (end - start) * 1e9 for a, b in zip(before, after, strict=True)]
        print(
            f"\nslope from the last but one: {slopes[0]:.0f} MiB (main), {slopes[1]:.0f} (worker)"
            " for each billion tokens"
        )


def child(data: str, model: str, out: str, nj: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    peaks: Dict[int, int] = {}
    threading.Thread(target=watch_workers, args=(peaks,), daemon=True).start()
    started, before = time.perf_counter(), peak_memory(os.getpid())
    tokens = ours(data, tokenizer, "plain", out, int(nj))
    facts = {
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
        "before": before,
        "main": peak_memory(os.getpid()),
        "worker": max(peaks.values(), default=0),
    }
    print(json.dumps(facts))


def peak_memory(pid: int) -> int:
    """KiB, from its own program's start on (getrusage counts what it was forked from too)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return 0


def watch_workers(peaks: Dict[int, int]) -> None:
    while True:
        for process in multiprocessing.active_children():
            peaks[process.pid] = max(peaks.get(process.pid, 0), peak_memory(process.pid))
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=float, default=4e6, help="of a round of ours")
    parser.add_argument("--memory", type=float, nargs="*", default=[1e6, 1e7, 1e8])
    parser.add_argument("--nj", type=int, default=2, help="processes where memory is measured")
    parser.add_argument("--model", help="extended model directory, instead of a made-up one")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    quiet()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print(machine() + "\n")
    with tempfile.TemporaryDirectory() as name:
        model = args.model or write_model(Path(name) / "model")
        if args.rounds:
            speed(Path(name), model, args.tokens, args.rounds)
        if args.memory:
            memory(Path(name), model, args.memory, args.nj)


if __name__ == "__main__":
    main()
