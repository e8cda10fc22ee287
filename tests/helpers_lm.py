"""A tiny Llama with an extended vocabulary and a toy data directory, for tests of the LM side.

Weights are random under a seed. Imported by the conftest of each directory that needs it (pytest's
importlib mode does not make ``tests`` importable by itself); what is slow to make is made once.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

NUM_UNITS = 20
UNITS_NAME = "text.rm.test_km20"

SENTENCES = [
    "the old farmer feeds a brown horse",
    "my sister paints the red door today",
    "a child reads the blue book",
    "the teacher opens a green window in the morning",
    "one student carries two heavy boxes",
    "the cook cuts bread",
]
GERMAN = [
    "der alte Bauer füttert ein braunes Pferd",
    "meine Schwester streicht heute die rote Tür",
    "ein Kind liest das blaue Buch",
    "die Lehrerin öffnet am Morgen ein grünes Fenster",
    "ein Student trägt zwei schwere Kisten",
    "der Koch schneidet Brot",
]


def make_base(out: Path, *, seed: int = 0) -> Path:
    """A Llama base directory: SentencePiece BPE with byte fallback, random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from espnet_spire.mini.small_tower import train_tokenizer

    names = ["English: a\nGerman: b", "Speech: a\nEnglish: b", "user assistant system"]
    translate = ["Translate the following text from English to German."]
    train_tokenizer(SENTENCES + GERMAN + names + translate, 360, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return out


def make_extended(base: Path, out: Path) -> Path:
    """The base with 20 units, made by ``extend_vocabulary``."""
    from espnet_spire.text.vocabulary import extend_vocabulary

    extend_vocabulary(base, NUM_UNITS, out, seed=1)
    return out


def make_data_dir(out: Path, count: int = 24, *, seed: int = 0) -> Path:
    """``wav.scp text text.tc.de <units>`` of ``count`` utterances ``utt000 …``; no audio."""
    draw = random.Random(seed)
    out.mkdir(parents=True)
    tables = {"wav.scp": [], "text": [], "text.tc.de": [], UNITS_NAME: []}
    for number in range(count):
        key, which = f"utt{number:03d}", number % len(SENTENCES)
        units = [draw.randrange(NUM_UNITS) for _ in range(draw.randrange(3, 15))]
        tables["wav.scp"].append(f"{key} {key}.wav")
        tables["text"].append(f"{key} {SENTENCES[which]}")
        tables["text.tc.de"].append(f"{key} {GERMAN[which]}")
        tables[UNITS_NAME].append(f"{key} {' '.join(map(str, units))}")
    for name, lines in tables.items():
        (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return out


def write_blocks(path: Path, conversations) -> Path:
    """ShareGPT lines from lists of ``(from, value)``."""
    with open(path, "w", encoding="utf-8") as stream:
        for turns in conversations:
            value = {"conversations": [{"from": who, "value": text} for who, text in turns]}
            stream.write(json.dumps(value) + "\n")
    return path


# Fixtures -----------------------------------------------------------------------------------

_MADE = {}


def _once(name, factory, build):
    """One object for the whole session, although each directory's conftest has the fixture."""
    if name not in _MADE:
        _MADE[name] = build(factory.mktemp(name))
    return _MADE[name]


@pytest.fixture(scope="session")
def lm_base(tmp_path_factory):
    """A Llama base directory."""
    return _once("lm_base", tmp_path_factory, make_base)


@pytest.fixture(scope="session")
def lm_dir(lm_base, tmp_path_factory):
    """The base, extended by 20 units."""
    return _once("lm", tmp_path_factory, lambda tmp: make_extended(lm_base, tmp / "model"))


@pytest.fixture(scope="session")
def lm_tokenizer(lm_dir):
    """Its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(lm_dir)


@pytest.fixture
def lm_data(tmp_path):
    """24 utterances with transcripts, German and units."""
    return make_data_dir(tmp_path / "data")


# Training -----------------------------------------------------------------------------------


def process_environment():
    """One thread, idle threads asleep: results do not depend on the machine's cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def make_training(lm_dir: Path, out: Path) -> list:
    """Examples and DeepSpeed files in ``out``; returns the options that all test runs share.

    52 examples of two tasks plus 4 of a third, so that most steps lack it; sequences of several
    documents, several micro-batches a step, an odd number of them for two ranks; 24 steps.
    """
    from transformers import AutoTokenizer

    from espnet_spire.train.build import build_examples

    data = str(make_data_dir(out / "data"))
    blocks = write_blocks(out / "blocks.jsonl", [[("human", "Hi"), ("gpt", "Ho")]] * 4)
    sources = [
        {"name": "asr", "task": "asr", "data_dir": data},
        {"name": "st", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
        {"name": "blocks", "task": "chat", "file": str(blocks)},
    ]
    mixture = {"format": "chatml", "max_length": 256, "seed": 0, "sources": sources}
    tokenizer = AutoTokenizer.from_pretrained(lm_dir)
    build_examples(mixture, tokenizer, out / "train", units_name=UNITS_NAME)
    mixture = {**mixture, "sources": [{**sources[0], "max_examples": 5}]}
    build_examples(mixture, tokenizer, out / "valid", units_name=UNITS_NAME)
    for stage in range(4):
        config = {"zero_optimization": {"stage": stage}}
        (out / f"zero{stage}.json").write_text(json.dumps(config))
    return [
        *("--ngpu", "0", "--model", str(lm_dir), "--use_tensorboard", "false"),
        *("--train_examples", str(out / "train"), "--valid_examples", str(out / "valid")),
        *("--sequence_length", "256", "--batch_sequences", "3", "--micro_batch_tokens", "256"),
        *("--num_epochs", "4.8", "--learning_rate", "4e-3", "--warmup_steps", "2", "--seed", "3"),
        *("--save_interval_steps", "5", "--eval_interval_steps", "10"),
    ]


def train_command(options, out: Path, config: Path, *, ranks: int = 1) -> list:
    """argv of a training; several ranks talk over gloo."""
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", "--nproc_per_node", str(ranks)]
        launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m"]
    files = ["--deepspeed_config", str(config), "--output_dir", str(out)]
    return [*launcher, "espnet_spire.bin.spire_train", *options, *files]


def run_training(options, out: Path, config: Path, *, ranks: int = 1) -> str:
    """Train to the end and return what was said."""
    done = subprocess.run(
        train_command(options, out, config, ranks=ranks),
        env=process_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


_SEVERAL = """
import sys
from espnet_spire.bin import spire_train
folder, *options = sys.argv[1:]
for name in ("zero1", "zero0", "zero2", "zero3", "zero1"):
    config = f"{folder}/{name}.json"
    spire_train.main([*options, "--output_dir", f"{folder}/{name}", "--deepspeed_config", config])
"""


@pytest.fixture(scope="session")
def trained(lm_dir, tmp_path_factory):
    """``(folder, options, log)`` of undisturbed runs in one process: zero1, zero0, zero2, zero3 …

    … and zero1 again, which is finished already.
    """

    def build(tmp):
        options = make_training(lm_dir, tmp)
        done = subprocess.run(
            [sys.executable, "-c", _SEVERAL, str(tmp), *options],
            env=process_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp, options, done.stderr

    return _once("trained", tmp_path_factory, build)


@pytest.fixture(scope="session")
def trained_two_ranks(trained, tmp_path_factory):
    """The same training under ZeRO 3 by two processes over gloo; ``(run directory, log)``."""

    def build(tmp):
        folder, options, _ = trained
        log = run_training(options, tmp / "r", folder / "zero3.json", ranks=2)
        return tmp / "r", log

    return _once("two_ranks", tmp_path_factory, build)


def read_history_lines(run: Path) -> list:
    """Entries of ``history.jsonl`` without what is measured, which differs from run to run."""
    from espnet_spire.train.records import MEASURED

    entries = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in MEASURED} for entry in entries]
