"""Pseudo-labels that are killed at random moments end in the same files, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time

from helpers_lm import make_data_dir, process_environment

# Translates with a pause before each two, and notes on a file of its own what it has begun.
JOB = """
import hashlib, sys, time
from espnet_spire.corpus.pseudo import Settings, label, read_texts, select
from espnet_spire.decode.answers import Answer, Answerer

data, out, noted, shards = sys.argv[1:4] + [int(sys.argv[4])]

def digest(*words):
    return hashlib.sha256(" ".join(words).encode()).hexdigest()

class Slow(Answerer):
    def stream(self, prompts):
        for start in range(0, len(prompts), 2):
            with open(noted, "a") as stream:
                for prompt in prompts[start:start + 2]:
                    stream.write(prompt.replace(chr(10), "|") + chr(10))
            time.sleep(0.01)
            batch = range(start, min(start + 2, len(prompts)))
            yield [(index, Answer([3], False, digest(prompts[index])[:20])) for index in batch]
    def encode(self, prompt):
        return []

class Scorer:
    def __call__(self, sources, translations, src, tgt):
        time.sleep(0.05)
        pairs = zip(sources, translations)
        return [int(digest(tgt, *pair)[:8], 16) / 2**32 for pair in pairs]

settings = Settings("en", "plain", "m", "s", 9, ())
texts, total = read_texts(data, settings, None, 0)
for shard in range(1, shards + 1):
    label(settings, texts.values(), out, ["de", "fr"], lambda: Slow(None, 9), Scorer,
          num_shards=shards, shard=shard)
for tgt in ("de", "fr"):
    select(settings, data, texts, out, tgt, threshold=0.5, utterances=total)
"""


def files(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command],
        env=process_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_random_kills(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"utt{number:03d} sentence {number % 170}\n" for number in range(200)]
    (data / "text").write_text("".join(lines))

    def job(name, shards):
        return start(
            "-c", JOB, str(data), str(tmp_path / name), str(tmp_path / f"{name}.said"), str(shards)
        )

    began = time.monotonic()
    undisturbed = job("one", 1)
    assert undisturbed.wait() == 0, undisturbed.stderr.read().decode()
    whole = time.monotonic() - began
    draw, kills = random.Random(3), 0
    while True:
        # With another number of jobs each time.
        process = job("two", 1 + kills % 3)
        try:
            assert process.wait(draw.uniform(0.2, 0.5) * whole) == 0, process.stderr.read().decode()
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 3
    expected = files(tmp_path / "one")
    assert len(expected) == 6 and files(tmp_path / "two") == expected
    begun = (tmp_path / "two.said").read_text().splitlines()
    assert len(set(begun)) == 340
    # A kill costs the two that were being translated, and no more.
    assert len(begun) <= 340 + 2 * kills


def test_kills_of_the_real_command(tmp_path, lm_dir):
    """Jobs that translate in batches; each is killed when it has written so much."""
    data = make_data_dir(tmp_path / "train", 40)
    texts = [f"utt{number:03d} bread {number} {'cook ' * (number % 9)}\n" for number in range(40)]
    (data / "text").write_text("".join(texts))
    options = ["-m", "espnet_spire.bin.pseudo_label", "--model", str(lm_dir), "--device", "cpu"]
    options += ["--data_dir", str(data), "--tgt_langs", "de", "--scorer", "standin_dual_xent"]
    options += ["--prompt_style", "plain", "--max_new_tokens", "60", "--batch_tokens", "200"]

    def run(name):
        return start(*options, "--threshold", "0", "--out", str(tmp_path / name))

    undisturbed = run("one")
    said = undisturbed.communicate()[1].decode()
    kept = (tmp_path / "one" / "train.de" / "rejected.tsv").read_text().splitlines()
    assert len(kept) == 40 or undisturbed.returncode == 0, said
    journal = tmp_path / "two/.cache/translations/en-de/1-of-1.jsonl"
    for lines in (2, 3):
        process = run("two")
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait() == -signal.SIGKILL, process.communicate()[1].decode()[-2000:]
        assert not (tmp_path / "two" / "train.de").exists()
    process = run("two")
    process.communicate()
    assert process.returncode == undisturbed.returncode
    expected = files(tmp_path / "one")
    assert len(expected) == 6 and files(tmp_path / "two") == expected
