"""Bootstrap and tests of significance: time against sacreBLEU's own, and whether they agree.

    python benchmarks/scoring.py [--sentences 3000] [--rounds 5] [--ter]

Made-up sentences of 22 words on average in two systems with errors. Statistics of each sentence are
taken once, by sacreBLEU itself; what is measured is what comes then: 1000 resamples, or 10,000
trials. The two ways take turns in one process. sacreBLEU sums in float32, ours in float64.
"""

import argparse
import time
from functools import partial
from typing import Callable, List

import numpy as np
from bench_common import machine, median_ratio, table
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import (
    Result,
    _bootstrap_resample,
    _paired_ar_test,
    _paired_bs_test,
    estimate_ci,
)

from espnet_spire.score.error_rates import error_rate
from espnet_spire.score.measured import Texts
from espnet_spire.score.resampling import approximate_randomisation, interval, paired_bootstrap
from espnet_spire.score.statistics import bleu_values, chrf_values, error_rates, ter_values


def sentences(count: int, seed: int) -> List[str]:
    """Made-up sentences; of words the first are frequent."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lnrstx"])
    weights = 1 / np.arange(1, len(words) + 1)
    weights /= weights.sum()
    return [" ".join(rng.choice(words, max(1, rng.poisson(22)), p=weights)) for _ in range(count)]


def with_errors(references: List[str], share: float, seed: int) -> List[str]:
    """Words replaced, left out or repeated."""
    rng = np.random.default_rng(seed)
    result = []
    for reference in references:
        words = []
        for word in reference.split():
            kind = rng.random() / share
            words += [word] if kind >= 1 else [[], [word, word], ["zzz"]][int(3 * kind)]
        result.append(" ".join(words))
    return result


def seconds(function: Callable[[], object]) -> float:
    """Time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def paired(metric, a: list, b: list, kind: str) -> float:
    """The p-value of sacreBLEU's test (``bs`` or ``ar``), of statistics that are there already."""
    baseline = Result(metric._aggregate_and_compute(a).score)
    test, samples = (_paired_bs_test, 1000) if kind == "bs" else (_paired_ar_test, 10000)
    metric._extract_corpus_statistics = lambda *_: b
    try:
        info = {"x": (a, baseline)}
        _, found = test(info, "b", [""] * len(b), None, {"x": metric}, samples, seed=12345)
    finally:
        del metric._extract_corpus_statistics
    return found["x"].p_value


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ter", action="store_true", help="too: minutes for its statistics")
    args = parser.parse_args()
    print(machine())
    references = sentences(args.sentences, 1)
    one, other = with_errors(references, 0.30, 2), with_errors(references, 0.305, 3)
    metrics = [("BLEU", BLEU(), bleu_values), ("chrF", CHRF(), chrf_values)]
    metrics += [("TER", TER(), ter_values)] if args.ter else []
    rows = []
    for name, metric, values in metrics:
        started = time.perf_counter()
        a = metric._extract_corpus_statistics(one, [references])
        print(f"{name}: statistics of {args.sentences} sentences {seconds_since(started):.2f} s")
        b = metric._extract_corpus_statistics(other, [references])
        first, second = np.array(a), np.array(b)
        ways = {
            "interval": (
                partial(_bootstrap_resample, a, metric, 1000),
                partial(interval, first, values),
            ),
            "paired bootstrap": (
                partial(paired, metric, a, b, "bs"),
                partial(paired_bootstrap, first, second, values),
            ),
            "randomisation": (
                partial(paired, metric, a, b, "ar"),
                partial(approximate_randomisation, first, second, values),
            ),
        }
        for what, (theirs, ours) in ways.items():
            times = [(seconds(theirs), seconds(ours)) for _ in range(args.rounds)]
            baseline, mine = (list(side) for side in zip(*times, strict=True))
            rows.append(
                {
                    "metric": name,
                    "what": what,
                    "sacreBLEU, s": f"{np.median(baseline):.2f}",
                    "ours, s": f"{np.median(mine):.3f}",
                    "ratio": f"{median_ratio(baseline, mine):.1f} x",
                    "both found": agreement(what, theirs(), ours()),
                }
            )
    keys = [str(i) for i in range(args.sentences)]
    wer = error_rate(Texts(keys, references, one, "de")).statistics
    taken = np.median([seconds(lambda: interval(wer, error_rates)) for _ in range(args.rounds)])
    print(f"WER: interval {taken:.3f} s")
    print(table(rows))


def seconds_since(started: float) -> float:
    """Time since then."""
    return time.perf_counter() - started


def agreement(what: str, theirs, ours) -> str:
    """Half the interval in both, or the p-values."""
    if what == "interval":
        _, half = estimate_ci(np.array([score.score for score in theirs[1]]))
        return f"± {half:.5f}, ± {(ours.high - ours.low) / 2:.5f}"
    return f"p {theirs:.5f}, {ours.p:.5f}"


if __name__ == "__main__":
    main()
