"""Translation by a server: many requests in flight against one at a time, and against this process.

The server is Hugging Face's ``transformers serve`` with continuous batching, the model a Llama with
random weights (every answer has all its tokens), the prompts those of stage 6. Each round has all
ways, one after the other; what is printed are medians over rounds, and whether the answers agree.

    python benchmarks/pseudo_labels.py --work DIR [--concurrency 4 16] [--rounds 3]
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from bench_common import WORDS, machine, median_ratio, quiet, table


def write_llama(directory: Path, width: int) -> str:
    """A Llama of six blocks with ChatML, and a vocabulary for the words of the prompts."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from espnet_spire.mini.small_tower import train_tokenizer
    from espnet_spire.text.vocabulary import extend_vocabulary

    base, out = directory / f"base{width}", directory / f"llama{width}"
    if (out / "config.json").exists():
        return str(out)
    text = [" ".join(WORDS), "Translate the following text from English to German.\nGerman:"]
    train_tokenizer(text * 4, 500, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
        max_position_embeddings=1024,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(base)
    extend_vocabulary(base, 20, out, seed=0)
    return str(out)


@contextmanager
def serving(model: str, log: Path):
    """``transformers serve`` as a process of its own; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    command += ["--continuous-batching", "--cb-num-blocks", "256", "--port", str(port)]
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the server ended, see {log}")
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="model and log are kept here")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--max_new_tokens", type=int, default=16)
    parser.add_argument("--width", type=int, default=256, help="of the Llama")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    quiet()
    from espnet_spire.decode.generate import Generator
    from espnet_spire.decode.server import ServerGenerator, ServerSettings
    from espnet_spire.text.prompts import Turn, mt_instruction

    args.work.mkdir(parents=True, exist_ok=True)
    model = write_llama(args.work, args.width)
    texts = [" ".join(WORDS[start : start + 12]) for start in range(args.prompts)]
    prompts = [[Turn("user", mt_instruction("en", "de", text))] for text in texts]
    here = Generator(model, max_new_tokens=args.max_new_tokens)
    size = sum(weight.numel() for weight in here.model.parameters())
    print(machine())
    print(f"Llama of {size / 1e6:.1f} M parameters, {args.prompts} prompts\n")
    with serving(model, args.work / "server.log") as url:
        ways = {"this process, in batches": here}
        for count in (1, *args.concurrency):
            settings = ServerSettings([url], model, concurrency=count)
            ways[f"server, {count} in flight"] = ServerGenerator.of_model(
                model, settings, max_new_tokens=args.max_new_tokens
            )
        seconds = {name: [] for name in ways}
        said = {}
        ways["server, 1 in flight"](prompts[:2])  # it loads the model at the first request
        for _ in range(args.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                answers = way(prompts)
                seconds[name].append(time.perf_counter() - started)
                said[name] = [way.text(answer) for answer in answers]
    one = "server, 1 in flight"
    rows = []
    for name, taken in seconds.items():
        same = sum(a == b for a, b in zip(said[name], said[one], strict=True))
        rows.append(
            {
                "way": name,
                "prompts / s": f"{args.prompts / statistics.median(taken):.1f}",
                "ratio": f"{median_ratio(seconds[one], taken):.1f} x",
                "answers as one at a time": f"{same} of {args.prompts}",
            }
        )
    print(table(rows))


if __name__ == "__main__":
    main()
