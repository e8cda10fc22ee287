"""Packing: share of a batch that is tokens, the time it takes, the memory.

    python benchmarks/packing.py [--examples DIR …] [--num_examples 1000000]

Against three other ways to make rows, on the same lengths in the same random order: batches padded
to their longest example (`padded`), the same after sorting stretches of 50 batches by length (what
transformers' `group_by_length` does; `sorted`), and whole examples one after another until the
next does not fit (`in turn`). Lengths come from examples that make_examples wrote, and from
SIMULATED corpora: hours as in the paper's Table 1, durations roughly as the corpora are known to
have them, not their data.
"""

import argparse
import time
import tracemalloc
from typing import Dict, List

import numpy as np
from bench_common import table

from espnet_spire.train.packing import pack_best_fit
from espnet_spire.train.plan import Plan, PlanSettings
from espnet_spire.train.shuffle import permuted

BATCH = 16
# Units after merging repeats, and tokens of transcript, a second of speech: the paper's 4.4B units
# and 0.6B tokens of transcript for 35K hours.
UNITS_A_SECOND = 35.0
TOKENS_A_SECOND = 4.8


def seconds_of(draw, shortest: float, usual: float, longest: float, count: int) -> np.ndarray:
    """Utterance durations."""
    return draw.triangular(shortest, usual, longest, count)


def spoken(draw, seconds: np.ndarray, *, texts: int, frame: int) -> np.ndarray:
    """Tokens of units, of ``texts`` transcripts or translations, and of the prompt around them."""
    units = seconds * draw.normal(UNITS_A_SECOND, 3.0, len(seconds)).clip(20)
    words = seconds * texts * draw.normal(TOKENS_A_SECOND, 1.0, len(seconds)).clip(1)
    return (units + words + frame).astype(np.int64)


def written(draw, median: float, spread: float, longest: int, count: int) -> np.ndarray:
    """Tokens of texts, log-normal; what is longer is cut (monolingual) or as long as may be."""
    return np.clip(draw.lognormal(np.log(median), spread, count), 8, longest).astype(np.int64)


def simulated(longest: int, count: int) -> Dict[str, np.ndarray]:
    """Lengths of about ``count`` examples each: the paper's mixtures, and single corpora."""
    draw = np.random.default_rng(0)
    # (hours, shortest, usual, longest duration) of Table 1.
    speech = {
        "SPGISpeech": (5100, 5, 9, 15),
        "GigaSpeech": (9900, 1, 3, 20),
        "MLS": (19200, 10, 15, 20),
        "VoxPopuli": (500, 2, 8, 25),
    }
    utterances = {name: hours * 3600 / np.mean(spec) for name, (hours, *spec) in speech.items()}
    # Half a billion tokens each: documents of mC4, and sentence pairs.
    utterances.update(mono=5e8 / 550, parallel=5e8 / 85)
    share = count / sum(utterances.values())
    corpora = {
        name: spoken(
            draw, seconds_of(draw, *spec, int(share * utterances[name])), texts=1, frame=10
        )
        for name, (_, *spec) in speech.items()
    }
    corpora["mono"] = written(draw, 400, 1.0, longest, int(share * utterances["mono"]))
    corpora["parallel"] = written(draw, 75, 0.5, 400, int(share * utterances["parallel"]))
    asr = np.concatenate([corpora[name] for name in speech])

    # 60K direct and 60K multi-turn prompts for each of 9 pairs from CommonVoice, SPGISpeech and
    # GigaSpeech; 1M CommonVoice ASR, 0.3M Europarl-ST; TowerBlocks has 637K records.
    scale = count / (6 * 540_000 + 1_000_000 + 300_000 + 637_000)

    def pseudo(texts: int, frame: int) -> List[np.ndarray]:
        each = int(540_000 * scale)
        specs = [(3, 5, 10), speech["SPGISpeech"][1:], speech["GigaSpeech"][1:]]
        return [
            spoken(draw, seconds_of(draw, *spec, each), texts=texts, frame=frame) for spec in specs
        ]

    instruction = np.concatenate(
        [
            *pseudo(1, 24),
            *pseudo(2, 42),
            spoken(draw, seconds_of(draw, 3, 5, 10, int(1e6 * scale)), texts=1, frame=24),
            spoken(draw, seconds_of(draw, 2, 9, 20, int(3e5 * scale)), texts=1, frame=24),
            written(draw, 250, 0.8, min(2048, longest), int(6.37e5 * scale)),
        ]
    )
    return {
        "CPT mixture": np.concatenate([asr, corpora["mono"], corpora["parallel"]]),
        "CPT speech alone": asr,
        "CPT text alone": np.concatenate([corpora["mono"], corpora["parallel"]]),
        "IT mixture": instruction,
        "SPGISpeech alone": corpora["SPGISpeech"],
        "GigaSpeech alone": corpora["GigaSpeech"],
        "MLS alone": corpora["MLS"],
    }


def padded(lengths: np.ndarray) -> float:
    """Efficiency of rows in the given order, ``BATCH`` at a time, padded to the longest."""
    batches = lengths[: len(lengths) // BATCH * BATCH].reshape(-1, BATCH)
    return batches.sum() / (batches.max(axis=1).sum() * BATCH)


def sorted_in_stretches(lengths: np.ndarray) -> np.ndarray:
    """Each stretch of 50 batches by length."""
    stretch = 50 * BATCH
    parts = [np.sort(lengths[at : at + stretch]) for at in range(0, len(lengths), stretch)]
    return np.concatenate(parts)


def in_turn(lengths: np.ndarray, capacity: int) -> float:
    """Efficiency of sequences that are closed when the next example does not fit."""
    sequences, used = 1, 0
    for length in lengths.tolist():
        used += length
        if used > capacity:
            sequences, used = sequences + 1, length
    return lengths.sum() / (sequences * capacity)


def measure(name: str, lengths: np.ndarray, capacity: int) -> Dict[str, str]:
    """A row of the table."""
    batch = 576 if name.startswith("IT") else 2304
    settings = PlanSettings(capacity, batch, True, seed=0, num_epochs=1.0)
    started = time.perf_counter()
    plan = Plan.build(lengths.__getitem__, len(lengths), settings)
    seconds = time.perf_counter() - started
    shuffled = lengths[permuted(np.arange(len(lengths)), len(lengths), (0, 0))]
    others = [padded(shuffled), padded(sorted_in_stretches(shuffled)), in_turn(shuffled, capacity)]
    return {
        "lengths": name,
        "examples": f"{len(lengths):,}",
        "tokens each": f"{lengths.mean():.0f}",
        "sequence": str(capacity),
        "padded": f"{others[0]:.1%}",
        "sorted": f"{others[1]:.1%}",
        "in turn": f"{others[2]:.1%}",
        "packed": f"{plan.efficiency:.2%}",
        "against in turn": f"{plan.efficiency / others[2]:.3f} x",
        "s a million": f"{seconds / len(lengths) * 1e6:.2f}",
    }


def memory(lengths: np.ndarray, times: int) -> Dict[str, str]:
    """Peak of what planning allocates for ``times`` as many examples as there are lengths."""
    settings = PlanSettings(int(lengths.max()), 2304, True, seed=0, num_epochs=1.0)
    count = times * len(lengths)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    plan = Plan.build(lambda indices: lengths[indices % len(lengths)], count, settings)
    for _ in plan.batches(plan.total_steps - 50):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"examples": f"{count:,}", "peak MiB": f"{(peak - before) / 2**20:.1f}"}


def window_time(lengths: np.ndarray, capacity: int) -> float:
    """Seconds that a window of 65,536 examples takes, the best of five."""
    lengths = np.random.default_rng(1).permutation(lengths)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        pack_best_fit(lengths[:65536], capacity)
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", nargs="+", default=[], help="from make_examples")
    parser.add_argument("--num_examples", type=int, default=1_000_000, help="of a simulated set")
    parser.add_argument("--sequence_length", type=int, nargs="+", default=[2048, 4096])
    args = parser.parse_args()

    rows = []
    for capacity in args.sequence_length:
        lengths = simulated(capacity, args.num_examples)
        rows += [measure(name, found, capacity) for name, found in lengths.items()]
        for name, found in lengths.items():
            print(f"a window of {name}, {capacity}: {window_time(found, capacity) * 1e3:.0f} ms")
    for path in args.examples:
        from espnet_spire.train.store import ExampleStore

        store = ExampleStore(path)
        found = store.lengths(np.arange(len(store)))
        for capacity in [c for c in (512, 1024, *args.sequence_length) if c >= found.max()]:
            rows.append(measure(path, found, capacity))
    print(table(rows))
    base = simulated(2048, 100_000)["CPT mixture"]
    print(table([memory(base, times) for times in (1, 10, 100)]))


if __name__ == "__main__":
    main()
