"""Decoding: utterances a second of our generator against ``generate`` one utterance at a time.

Both run the same model in this process on the same cores or GPU, in turns; the baseline is
transformers' ``generate`` with its own cache. Prompts are those of a test set that was decoded by
the mini recipe (``--model --data_dir --units --jobs``), with answers as long as they are; or, with
``--size 1b``, random units for a Llama of that size with random weights, which never ends: each
answer then has ``--max_new_tokens``. In float32 the tokens of both are compared.

    python benchmarks/decoding.py --model exp/spire_it_spirefull_mini/hf --data_dir dump/raw/test \
        --units dump/raw/test/text.rm.… --jobs asr.en-en st.en-de mt.en-de
    python benchmarks/decoding.py --work DIR --size 1b --dtype bfloat16 --prompt_tokens 400 \
        --max_new_tokens 48 --prompts 16 --baseline_prompts 2
"""

import argparse
import random
import resource
import statistics
from pathlib import Path
from typing import List

from bench_common import machine, median_ratio, quiet, table, timed
from training import write_model

from espnet_spire.decode.generate import Generator


def test_set_prompts(args, generator: Generator) -> List[List[int]]:
    """What the jobs ask of the test set."""
    from espnet_spire.decode.jobs import SPEECH_PROMPTS, encode_turns, job_keys, job_turns
    from espnet_spire.decode.run import read_units
    from espnet_spire.text.jobs import parse_job
    from espnet_spire.utils.datadir import utterance_keys

    data_dir, found = Path(args.data_dir), []
    for job in map(parse_job, args.jobs):
        keys = job_keys(job, data_dir, utterance_keys(data_dir), args.speech_lang)
        lines = read_units(data_dir, args.units).lines if job.task in SPEECH_PROMPTS else {}
        turns = job_turns(job, data_dir, lines, dict, args.speech_lang)
        turns = {key: turns[key] for key in keys if key in turns}
        found += encode_turns(generator.tokenizer, turns, job).values()
    return found


def random_prompts(args, generator: Generator) -> List[List[int]]:
    """About ``--prompt_tokens`` random tokens each."""
    rng, rows = random.Random(args.seed), len(generator.tokenizer)
    spread = args.prompt_tokens // 8
    lengths = [args.prompt_tokens + rng.randint(-spread, spread) for _ in range(args.prompts)]
    return [[1] + [rng.randrange(4, rows) for _ in range(n - 1)] for n in lengths]


def peak_mib() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="work", help="where models of a size are kept")
    parser.add_argument("--model")
    parser.add_argument("--data_dir")
    parser.add_argument("--units")
    parser.add_argument("--jobs", nargs="+", default=["asr.en-en"])
    parser.add_argument("--speech_lang", default="en")
    parser.add_argument("--size", choices=["small", "1b"], default="small")
    parser.add_argument("--prompt_tokens", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=16, help="random ones")
    parser.add_argument("--baseline_prompts", type=int, default=24, help="a round")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--batch_tokens", type=int, default=16384)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    quiet()
    model = args.model
    if model is None:
        model = str(Path(args.work) / f"llama-{args.size}")
        if not (Path(model) / "tokenizer.json").exists():
            write_model(Path(model), args.size)
    generator = Generator(
        model,
        device=args.device,
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
        max_new_tokens=args.max_new_tokens,
    )
    if args.model is None:
        generator.eos_ids = [-1]  # random weights end by chance alone
        generator.pad_id = 0
    make = test_set_prompts if args.model else random_prompts
    prompts = make(args, generator)
    rng = random.Random(args.seed)
    loaded = peak_mib()
    base, ours, same, compared = [], [], 0, 0
    answers, memory = {}, {}

    def answer_all() -> None:
        for part in generator.stream(prompts):
            answers.update(part)

    def answer_alone(some: List[int]) -> None:
        alone.update((i, generator._generate([prompts[i]])[0]) for i in some)

    generator._generate([prompts[0]])
    for number in range(args.rounds):
        some = rng.sample(range(len(prompts)), min(args.baseline_prompts, len(prompts)))
        alone = {}
        base.append(timed(lambda some=some: answer_alone(some), args.device) / len(some))
        memory["generate"] = memory.get("generate", peak_mib() - loaded)
        generator.alone = 0
        ours.append(timed(answer_all, args.device) / len(prompts))
        memory["ours"] = peak_mib() - loaded
        same += sum(alone[i] == answers[i] for i in some)
        compared += len(some)
        print(f"round {number + 1}: generate {base[-1]:.3f} s, ours {ours[-1]:.4f} s an utterance")
    new = statistics.mean(len(answer.ids) for answer in answers.values())
    asked = statistics.mean(map(len, prompts))
    print(machine())
    print(
        f"{model}, {args.dtype}: {len(prompts)} prompts of {asked:.0f} tokens, answers of {new:.0f}"
        f" (at most {args.max_new_tokens}); {generator.alone} of them done again alone"
    )
    rows = [
        {
            "way": way,
            "s an utterance": f"{statistics.median(taken):.4f}",
            "utterances a second": f"{1 / statistics.median(taken):.2f}",
            "MiB above the model": f"{memory[way]:.0f}",
        }
        for way, taken in (("generate", base), ("ours", ours))
    ]
    print(table(rows))
    print(f"ratio (median of rounds): {median_ratio(base, ours):.2f} x")
    print(f"the same tokens: {same} of {compared} answers")


if __name__ == "__main__":
    main()
