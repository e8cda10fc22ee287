"""Command lines in ESPnet's manner: ``--num_units`` and ``--num-units`` are the same option."""

import argparse
import logging
import os
import sys
from typing import Callable, List, NoReturn, Optional, Sequence, Tuple

from espnet_spire.utils.errors import SpireError

# Of an answer: where the paper stops decoding.
MAX_NEW_TOKENS = 256


def underscored(argv: Sequence[str]) -> List[str]:
    """Spell every long option with underscores; values and what follows ``--`` stay as they are.

    >>> underscored(["--num-units=5", "--out-dir", "a-b", "--", "--x-y"])
    ['--num_units=5', '--out_dir', 'a-b', '--', '--x-y']
    """
    result = []
    for position, word in enumerate(argv):
        if word == "--":
            return result + list(argv[position:])
        name, equals, value = word[2:].partition("=")
        # What has spaces is a value: options that are passed on, in one word.
        if word.startswith("--") and " " not in name:
            word = "--" + name.replace("-", "_") + equals + value
        result.append(word)
    return result


class ArgumentParser(argparse.ArgumentParser):
    """argparse with ESPnet's spelling, defaults shown, no abbreviations, one-line errors."""

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(**kwargs)

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(underscored(words), namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {self.prog}: {message} (--help lists all options)\n")


def str2bool(value: str) -> bool:
    """``true``/``false`` as ESPnet's shell scripts pass them."""
    if value.lower() in ("true", "1", "yes"):
        return True
    if value.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")


def assignment(word: str) -> Tuple[str, str]:
    """``name=value``, for options that take several of them."""
    name, equals, value = word.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=VALUE")
    return name, value


def add_mixture_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that reads a mixture file."""
    parser.add_argument("--mixture", required=True, help="YAML, see espnet_spire/train/mixture.py")
    parser.add_argument("--units_name", required=True, help="unit file's name in a data dir")
    parser.add_argument("--dumpdir", default="dump", help="what {dumpdir} in a mixture stands for")
    parser.add_argument(
        "--words",
        nargs="+",
        type=assignment,
        default=[],
        metavar="NAME=VALUE",
        help="what other {NAME} in a mixture stand for, e.g. speech_lang=bem",
    )


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """The options of every stage that can be spread over processes and machines."""
    parser.add_argument("--num_shards", type=int, default=1, help="into how many jobs it is split")
    parser.add_argument("--shard", type=int, default=1, help="which of them this is, from 1")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="do no work: join the output of all shards, after checking that none is missing",
    )


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that runs a model."""
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that lets an LLM answer."""
    parser.add_argument("--max_new_tokens", type=int, default=MAX_NEW_TOKENS, help="of an answer")
    parser.add_argument("--batch_tokens", type=int, default=16384, help="of a batch, padded")
    add_compute_options(parser)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """The options of how an answer is looked for; greedy by default."""
    parser.add_argument("--num_beams", type=int, default=1, help="above 1: beam search")
    parser.add_argument("--do_sample", action="store_true", help="draw each token")
    parser.add_argument("--temperature", type=float, default=1.0, help="with --do_sample")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="draw from what has so much of the probability"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")


def add_listening_options(parser: argparse.ArgumentParser) -> None:
    """The options of what turns audio into the units of a model."""
    parser.add_argument(
        "--codebook", help="for audio without units; by default the one in the model's directory"
    )
    parser.add_argument("--encoder", help="for audio, by default what the codebook says")
    parser.add_argument("--layer", type=int, help="its block, by default what the codebook says")
    parser.add_argument(
        "--encoder_dtype", default="float32", choices=["float32", "bfloat16"], help="for audio"
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that can let a server answer instead of a model of its own."""
    parser.add_argument(
        "--server",
        nargs="+",
        default=[],
        metavar="URL",
        help="servers of OpenAI's protocol that run the model, such as http://localhost:8000/v1"
        " (vLLM, transformers serve …); OPENAI_API_KEY is sent if it is set",
    )
    parser.add_argument("--server_model", help="its name there (--model if not given)")
    parser.add_argument(
        "--server_concurrency", type=int, default=64, help="requests in flight at each server"
    )
    parser.add_argument(
        "--server_api",
        default="auto",
        choices=["auto", "ids", "chat", "text"],
        help="ids: token ids to /v1/completions; chat: messages; text: plain prompts; auto: the"
        " first of them that the server takes",
    )
    parser.add_argument("--server_timeout", type=float, default=600, help="seconds for an answer")
    parser.add_argument(
        "--server_retries", type=int, default=5, help="of a request, with growing pauses"
    )


def check_shard(num_shards: int, shard: int) -> None:
    """Raise unless ``1 <= shard <= num_shards``."""
    if not 1 <= shard <= num_shards:
        raise SpireError(f"--shard {shard} is not between 1 and --num_shards {num_shards}")


def default_device(device: str, shard: int = 1) -> str:
    """Resolve ``auto`` to a GPU where there is one, else ``cpu``.

    Jobs of a sharded stage share the GPUs that they see: one each, as far as they go.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SpireError(f"--device {device}: torch sees no GPU here; use --device cpu")
    if device == "cuda" and torch.cuda.device_count() > 1:
        return f"cuda:{(shard - 1) % torch.cuda.device_count()}"
    return device


def split_command(cmd: Optional[Sequence[str]]) -> Tuple[List[str], List[str]]:
    """Words of a command line before and after ``--``: our options, and a command to run.

    argparse would read the command's own options.
    """
    words = list(sys.argv[1:] if cmd is None else cmd)
    split = words.index("--") if "--" in words else len(words)
    return words[:split], words[split + 1 :]


def setup_logging() -> None:
    """ESPnet's log format, on stderr: stdout belongs to data."""
    logging.basicConfig(
        level=os.environ.get("SPIRE_LOG_LEVEL", "INFO"),
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "filelock", "matplotlib", "numexpr", "fsspec", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run(main: Callable[[Optional[Sequence[str]]], None]) -> NoReturn:
    """Call an entry point; turn a :class:`SpireError` into one line and its exit status."""
    try:
        setup_logging()
        main(None)
    except SpireError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted; start the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(0)
