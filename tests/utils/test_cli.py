import argparse
import subprocess
import sys

import pytest

from espnet_spire.utils import cli
from espnet_spire.utils.cli import (
    ArgumentParser,
    add_mixture_options,
    add_shard_options,
    check_shard,
    default_device,
    split_command,
    str2bool,
    underscored,
)
from espnet_spire.utils.errors import SpireError


def parser():
    result = ArgumentParser(prog="tool")
    result.add_argument("--num_units", type=int, default=7)
    result.add_argument("--out_dir", default="exp")
    result.add_argument("rest", nargs="*")
    return result


def test_underscored_by_hand():
    words = ["--num-units=5", "--out-dir", "a-b", "--x=y-z", "-n", "--", "--as-it-is"]
    assert underscored(words) == [
        "--num_units=5", "--out_dir", "a-b", "--x=y-z", "-n", "--", "--as-it-is",
    ]  # fmt: skip
    assert underscored([]) == []
    # options in one word, for another program
    assert underscored(["--local-opts", "--nj-x 4 --a-b c"]) == ["--local_opts", "--nj-x 4 --a-b c"]


def test_both_spellings_are_one_option():
    for words in (["--num-units", "5", "--out-dir=a-b"], ["--num_units", "5", "--out_dir", "a-b"]):
        args = parser().parse_args(words)
        assert (args.num_units, args.out_dir) == (5, "a-b")
    assert parser().parse_args(["--", "--num-units"]).rest == ["--num-units"]


@pytest.mark.parametrize("words", [["--nonsense", "1"], ["--num", "5"], ["--num_units", "many"]])
def test_one_line_on_a_bad_option(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: tool: ") and message.endswith("(--help lists all options)\n")
    assert message.count("\n") == 1
    assert words[0] in message


def test_words_of_a_mixture(capsys):
    result = ArgumentParser(prog="tool")
    add_mixture_options(result)
    needed = ["--mixture", "m", "--units-name", "u"]
    assert result.parse_args(needed).words == []
    words = result.parse_args([*needed, "--words", "speech_lang=bem", "a=b=c", "x="]).words
    assert words == [("speech_lang", "bem"), ("a", "b=c"), ("x", "")]
    for wrong in ("bem", "=bem", "a b=c"):
        with pytest.raises(SystemExit):
            result.parse_args([*needed, "--words", wrong])
        assert f"{wrong!r} is not NAME=VALUE" in capsys.readouterr().err


def test_help_shows_defaults(capsys):
    result = ArgumentParser(prog="tool")
    result.add_argument("--num_units", type=int, default=7, help="how many")
    with pytest.raises(SystemExit) as caught:
        result.parse_args(["--help"])
    assert caught.value.code == 0
    assert "how many (default: 7)" in capsys.readouterr().out


def test_str2bool():
    assert [str2bool(word) for word in ("true", "True", "1", "yes")] == [True] * 4
    assert [str2bool(word) for word in ("false", "FALSE", "0", "no")] == [False] * 4
    with pytest.raises(argparse.ArgumentTypeError, match="'maybe'"):
        str2bool("maybe")


def test_shards():
    result = ArgumentParser()
    add_shard_options(result)
    args = result.parse_args([])
    assert (args.num_shards, args.shard, args.merge) == (1, 1, False)
    check_shard(3, 3)
    for num_shards, shard in ((3, 0), (3, 4), (0, 1)):
        with pytest.raises(SpireError, match=f"--shard {shard} .*--num_shards {num_shards}"):
            check_shard(num_shards, shard)


def test_devices(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device("auto") == default_device("cpu") == "cpu"
    with pytest.raises(SpireError, match="--device cuda:1: torch sees no GPU here"):
        default_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert default_device("auto", shard=2) == "cuda"
    assert default_device("cuda:1") == "cuda:1"
    # jobs share what GPUs there are
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [default_device("cuda", shard) for shard in (1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert default_device("cuda:1", shard=1) == "cuda:1"
    assert default_device("cpu", shard=2) == "cpu"


def raising(error):
    def main(cmd=None):
        raise error

    return main


def test_run_ends_with_zero():
    seen = []
    with pytest.raises(SystemExit) as caught:
        cli.run(seen.append)
    assert caught.value.code == 0
    assert seen == [None]


def test_run_turns_a_user_error_into_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(raising(SpireError("data/text, line 3: key x is there twice")))
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: data/text, line 3: key x is there twice\n"


def test_run_on_interrupt_and_bug(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(raising(KeyboardInterrupt()))
    assert caught.value.code == 130
    assert "start the same command again" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a bug of ours keeps its traceback
        cli.run(raising(ZeroDivisionError()))


def test_closed_pipe_is_quiet():
    script = (
        "from espnet_spire.utils.cli import run\n"
        "def main(cmd=None):\n"
        "    for number in range(100000): print(number)\n"
        "run(main)\n"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -n 1; echo ${PIPESTATUS[0]}', sys.executable, script],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n141\n"
    assert done.stderr == ""


def test_a_real_command_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "espnet_spire.bin.extend_vocabulary", "--base"]
    command += [str(tmp_path), "--num-units", "0", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --num_units 0: must be at least 1"
    assert "Traceback" not in done.stderr


def test_a_command_behind_two_dashes():
    assert split_command(["--nj", "2", "--", "python", "--", "-x"]) == (
        ["--nj", "2"],
        ["python", "--", "-x"],
    )
    assert split_command(["--nj", "2"]) == (["--nj", "2"], [])
