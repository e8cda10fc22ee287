"""Training: target tokens a second of spire_train against transformers' Trainer on the same data.

Both train the same Llama (random weights) from the same start on the same examples, on the same
cores or GPU, in turns. The baseline is what a script of a dozen lines does: examples drawn at
random, padded to the longest of the batch, loss by the model's own forward. Lengths are drawn as in
the paper's mixtures (simulated): units of utterances of 2 to 20 s at 35 a second and their
transcripts, all of it learned (cpt), or the answer alone (it).

    python benchmarks/training.py --work DIR [--mixture cpt it] [--rounds 3] [--steps 12]
    python benchmarks/training.py --work DIR --size 1b --device cuda --dtype bfloat16 \
        --sequence_length 4096 --batch_sequences 64 --micro_batch_tokens 16384 --zero 2
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import numpy as np
from bench_common import machine, matmul_peak, median_ratio, quiet, table

VOCABULARY = {"small": 6016, "1b": 37056}
SIZES = {
    # hidden, intermediate, layers, heads, key-value heads
    "small": (384, 1024, 6, 6, 6),
    "1b": (2048, 5632, 22, 32, 4),
}
PAD = 3


def write_model(out: Path, size: str) -> None:
    """A Llama of this size with random weights, and the tokenizer files that spire_train reads."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, wide, layers, heads, shared = SIZES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY[size],
        hidden_size=hidden,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(out)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "<PAD>": PAD}
    words |= {f"w{n}": n for n in range(len(words), VOCABULARY[size])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<PAD>"
    ).save_pretrained(out)
    rows = VOCABULARY[size]
    facts = {"base_vocab_size": rows - 5007, "first_unit_id": rows - 5002, "num_units": 5000}
    facts |= {"vocab_size": rows}
    (out / "spire.json").write_text(json.dumps(facts))


def draw_examples(mixture: str, count: int, vocabulary: int) -> List[Dict]:
    """Simulated examples: lengths as in the paper's corpora, tokens at random."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(count):
        seconds = min(20.0, max(2.0, draw.gamma(4.0, 2.6)))
        units, answer = int(35 * seconds), int(4 * seconds + draw.integers(1, 12))
        prompt = 3 if mixture == "cpt" else 14
        length = prompt + units + answer
        start = 1 if mixture == "cpt" else length - answer
        rows.append(
            {
                "input_ids": [1, *draw.integers(10, vocabulary, length - 1).tolist()],
                "target_spans": [start, length],
                "length": length,
                "num_targets": length - start,
                "task": "asr",
                "lang": "en",
                "key": f"asr:utt{number:06d}",
            }
        )
    return rows


def write_examples(out: Path, rows: List[Dict]) -> None:
    """In the form of make_examples."""
    from datasets import Dataset, Features, Value
    from datasets import List as Sequence_

    numbers = Sequence_(Value("int32"))
    features = Features(
        {
            "input_ids": numbers,
            "target_spans": numbers,
            "length": Value("int32"),
            "num_targets": Value("int32"),
            **{name: Value("string") for name in ("task", "lang", "key")},
        }
    )
    Dataset.from_list(rows, features=features).save_to_disk(out / "dataset")


def ours(options, model: Path, examples: Path, out: Path) -> List[Dict]:
    """Entries of the history of spire_train, one a step."""
    shutil.rmtree(out, ignore_errors=True)
    config = out.with_suffix(".json")
    config.write_text(json.dumps({"zero_optimization": {"stage": options.zero}}))
    command = [
        *(sys.executable, "-m", "espnet_spire.bin.spire_train", "--output_dir", str(out)),
        *("--ngpu", str(int(options.device == "cuda")), "--deepspeed_config", str(config)),
        *("--model", str(model), "--train_examples", str(examples)),
        *("--use_tensorboard", "false", "--dtype", options.dtype, "--attention", options.attention),
        *("--gradient_checkpointing", str(options.gradient_checkpointing)),
        *("--sequence_length", str(options.sequence_length)),
        *("--batch_sequences", str(options.batch_sequences)),
        *("--micro_batch_tokens", str(options.micro_batch_tokens)),
        *("--max_steps", str(options.steps), "--num_epochs", "100", "--log_level", "ERROR"),
        *("--save_interval_steps", "100000", "--eval_interval_steps", "100000"),
        *("--fused_loss", str(options.fused_loss)),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if options.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    lines = (out / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def baseline(options, model: Path, rows: List[Dict], out: Path) -> List[Dict]:
    """Seconds and target tokens of each step of transformers' Trainer with padded batches."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Examples(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, index):
            row = rows[index]
            labels = np.full(row["length"], -100)
            start, end = row["target_spans"]
            labels[start:end] = row["input_ids"][start:end]
            return {"input_ids": row["input_ids"], "labels": labels.tolist()}

    class Clock(TrainerCallback):
        def __init__(self):
            self.marks = []

        def on_step_end(self, *args, **kwargs):
            if options.device == "cuda":
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())

    class Counting(DataCollatorForSeq2Seq):
        counts = []

        def __call__(self, features, return_tensors=None):
            self.counts.append(sum(label != -100 for f in features for label in f["labels"]))
            return super().__call__(features, return_tensors)

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, options.dtype))
    mean = statistics.mean(row["length"] for row in rows)
    # As many tokens a step, and a forward pass, as ours has on average.
    per_step = max(1, round(options.batch_sequences * options.sequence_length / mean))
    accumulate = max(
        1, round(options.batch_sequences * options.sequence_length / options.micro_batch_tokens)
    )
    clock, collator = Clock(), Counting(tokenizer, label_pad_token_id=-100)
    collator.counts = []
    trainer = Trainer(
        model=lm,
        args=TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=max(1, per_step // accumulate),
            gradient_accumulation_steps=accumulate,
            max_steps=options.steps,
            bf16=options.dtype == "bfloat16",
            use_cpu=options.device == "cpu",
            gradient_checkpointing=options.gradient_checkpointing,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Examples(),
        data_collator=collator,
        callbacks=[clock],
    )
    trainer.train()
    counts = np.array(collator.counts[: options.steps * accumulate])
    targets = counts.reshape(-1, accumulate).sum(axis=1)
    return [
        {"target_tokens_per_second": float(tokens / seconds)}
        for tokens, seconds in zip(targets[1:], np.diff(clock.marks), strict=False)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="directory for models and runs")
    parser.add_argument("--mixture", nargs="+", default=["cpt", "it"], choices=["cpt", "it"])
    parser.add_argument("--size", default="small", choices=list(SIZES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--zero", type=int, default=1)
    parser.add_argument("--sequence_length", type=int, default=1024)
    parser.add_argument("--batch_sequences", type=int, default=4)
    parser.add_argument("--micro_batch_tokens", type=int, default=4096)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--fused_loss", action="store_true")
    parser.add_argument("--examples", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=12, help="the first two are not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no_baseline", action="store_true")
    options = parser.parse_args()
    quiet()
    import torch

    print(machine())
    model = options.work / f"llama_{options.size}"
    if not (model / "spire.json").exists():
        write_model(model, options.size)
    lines = []
    for mixture in options.mixture:
        rows = draw_examples(mixture, options.examples, VOCABULARY[options.size])
        examples = options.work / f"examples_{mixture}_{options.size}"
        shutil.rmtree(examples, ignore_errors=True)
        write_examples(examples, rows)
        fast, slow, shares = [], [], []
        for _ in range(options.rounds):
            entries = ours(options, model, examples, options.work / "ours")[2:]
            fast.append(statistics.median(e["target_tokens_per_second"] for e in entries))
            shares.append(statistics.median(e["share_of_peak"] or 0.0 for e in entries))
            if not options.no_baseline:
                theirs = baseline(options, model, rows, options.work / "theirs")[1:]
                slow.append(statistics.median(e["target_tokens_per_second"] for e in theirs))
                print(f"{mixture}: ours {fast[-1]:,.0f}, theirs {slow[-1]:,.0f} tokens a second")
        line = {
            "mixture": mixture,
            "target tokens / s": f"{statistics.median(fast):,.0f}",
            "of peak": f"{statistics.median(shares):.0%}",
            "memory": f"{max(e['memory_gib'] for e in entries):.2f} GiB",
        }
        if slow:
            line["transformers' Trainer"] = f"{statistics.median(slow):,.0f}"
            inverse = [[1 / value for value in values] for values in (slow, fast)]
            line["ratio"] = f"{median_ratio(*inverse):.2f} x"
        lines.append(line)
    print(table(lines))
    peak = matmul_peak(getattr(torch, options.dtype), options.device)
    print(f"matrix product peak measured: {peak / 1e9:,.0f} GFLOP/s")


if __name__ == "__main__":
    main()
