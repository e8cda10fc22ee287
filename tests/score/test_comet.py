"""The caller of COMET, against a small worker that speaks the same protocol.

The real worker with the real COMET: ``make test-comet``.
"""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import espnet_spire
from espnet_spire.corpus.scorers import cometkiwi, find_scorers
from espnet_spire.score.comet import (
    WORKER,
    Comet,
    checkpoint_identity,
    find_checkpoint,
    find_python,
)
from espnet_spire.utils.errors import SpireError

# Scores a pair by the lengths of its two sides; what a source says makes it fail in many ways.
FAKE = """
import argparse, json, os, sys, time
parser = argparse.ArgumentParser()
for name in ("--checkpoint", "--device", "--batch_size"):
    parser.add_argument(name)
args = parser.parse_args()
def say(value):
    print(json.dumps(value), flush=True)
if args.checkpoint == "missing":
    say({"error": "No module named 'comet'", "missing": True})
    sys.exit(1)
if args.checkpoint == "broken":
    say({"error": "RuntimeError: bad weights"})
    sys.exit(1)
print("loading", file=sys.stderr)
say({"ready": {"comet": "0", "device": args.device, "batch_size": args.batch_size,
               "path": sys.path[0], "pid": os.getpid()}})
for line in sys.stdin:
    samples = json.loads(line)["samples"]
    said = [sample["src"] for sample in samples]
    if "die" in said:
        print("Segmentation fault", file=sys.stderr)
        os._exit(9)
    if "fail" in said:
        say({"error": "OutOfMemoryError: 3 GiB"})
        sys.exit(1)
    if "chat" in said:
        print("hello", flush=True)
        continue
    if "short" in said:
        samples = samples[1:]
    answer = {"scores": [len(s["mt"]) / (len(s["src"]) + len(s.get("ref", ""))) for s in samples]}
    if "ref" in samples[0]:
        answer["metadata"] = {"spans": [[] for _ in samples]}
    say(answer)
"""


@pytest.fixture
def fake(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(FAKE)

    def start(checkpoint="model.ckpt", **given):
        return Comet(checkpoint, python=sys.executable, worker=worker, **given)

    return start


def test_scores_come_in_order_from_one_process(fake):
    model = fake(device="cuda:1", batch_size=5)
    assert model.about["device"] == "cuda:1" and model.about["batch_size"] == "5"
    assert model([{"src": "ab", "mt": "a"}, {"src": "ü\n文", "mt": "xyz"}]) == [0.5, 1.0]
    many = [{"src": "x" * 1000, "mt": "y" * number} for number in range(1, 3000)]
    assert model(many) == [number / 1000 for number in range(1, 3000)]
    said = model.predict([{"src": "a", "mt": "b", "ref": "c"}])
    assert said == {"scores": [0.5], "metadata": {"spans": [[]]}}
    model.close()
    assert model._process.returncode == 0
    model.close()  # a second time does no harm


@pytest.mark.parametrize(
    "source, message",
    [
        ("die", "COMET ended with status 9: Segmentation fault"),
        ("fail", "COMET with model.ckpt: OutOfMemoryError: 3 GiB"),
        ("chat", "COMET said what is no JSON: b'hello"),
        ("short", "COMET gave 1 scores for 2 pairs"),
    ],
)
def test_failures_at_work(fake, source, message):
    model = fake()
    with pytest.raises(SpireError, match=message):
        model([{"src": source, "mt": "x"}, {"src": "a", "mt": "x"}])
    model.close()


def test_failures_at_the_start(fake, tmp_path):
    with pytest.raises(
        SpireError, match="has no COMET .No module named 'comet'.: run 'make comet-"
    ):
        fake("missing")
    with pytest.raises(SpireError, match="COMET with broken: RuntimeError: bad weights"):
        fake("broken")
    with pytest.raises(SpireError, match="COMET ended with status 2: .*No such file or directory"):
        Comet("x", python=sys.executable, worker=tmp_path / "none.py")


def test_the_process_ends_with_the_one_that_started_it(fake, tmp_path):
    script = f"""
import sys, time
from espnet_spire.score.comet import Comet
model = Comet("model.ckpt", python=sys.executable, worker={str(tmp_path / "worker.py")!r})
print(model.about["pid"], flush=True)
time.sleep(60)
"""
    fake().close()
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlives its caller")


def test_the_real_worker_where_comet_is_not_installed(tmp_path):
    """It says so in the protocol, and takes neither our modules nor our comet.py for COMET."""
    with pytest.raises(SpireError, match="has no COMET .*No module named 'comet'.*make comet-env"):
        Comet(tmp_path / "model.ckpt", python=sys.executable)
    source = WORKER.read_text(encoding="utf-8")
    assert "espnet_spire" not in source.replace(":mod:`espnet_spire.score.comet`", "")


# Where COMET and checkpoints are ---------------------------------------------------------------


def test_which_python(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(espnet_spire, "__file__", str(tmp_path / "repo/espnet_spire/__init__.py"))
    monkeypatch.delenv("SPIRE_COMET_PYTHON", raising=False)
    with pytest.raises(SpireError, match="run 'make comet-env', or name a Python"):
        find_python()
    made = tmp_path / "repo/.venv-comet/bin/python"
    made.parent.mkdir(parents=True)
    made.symlink_to(program)
    assert find_python() == str(made)
    monkeypatch.setenv("SPIRE_COMET_PYTHON", "/no/python")
    with pytest.raises(SpireError, match=r"^\$SPIRE_COMET_PYTHON /no/python: no such program"):
        find_python()
    assert find_python(str(program)) == str(program)
    with pytest.raises(SpireError, match="--comet_python /none: no such program"):
        find_python("/none")


def make_checkpoint(out, encoder):
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints/model.ckpt").write_bytes(b"weights")
    (out / "hparams.yaml").write_text(f"pretrained_model: {encoder}\nclass_identifier: x\n")
    return out


def test_a_checkpoint_that_is_here(tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    model = make_checkpoint(tmp_path / "kiwi", encoder)
    file = model / "checkpoints/model.ckpt"
    assert find_checkpoint(str(model)) == find_checkpoint(str(file)) == file
    # A copy is the same model, one with other weights or parameters is not.
    copy = find_checkpoint(str(make_checkpoint(tmp_path / "copy", encoder)))
    assert checkpoint_identity(copy) == checkpoint_identity(file)
    copy.write_bytes(b"Weights")
    assert checkpoint_identity(copy) != checkpoint_identity(file)
    copy.write_bytes(b"weights")
    (tmp_path / "copy/hparams.yaml").write_text("pretrained_model: other\n")
    assert checkpoint_identity(copy) != checkpoint_identity(file)


def test_a_checkpoint_that_is_not_whole(tmp_path):
    model = make_checkpoint(tmp_path / "kiwi", tmp_path)
    (model / "hparams.yaml").write_text("[1, 2")
    with pytest.raises(SpireError, match="hparams.yaml: no YAML of COMET"):
        find_checkpoint(str(model))
    (model / "hparams.yaml").unlink()
    with pytest.raises(SpireError, match="hparams.yaml is missing; COMET's layout is"):
        find_checkpoint(str(model))
    for name in ("/no/such", "x.ckpt", "just-a-name"):
        with pytest.raises(SpireError, match=f"{name}: no such checkpoint, and not the name"):
            find_checkpoint(name)


class Hub:
    """``snapshot_download`` with a few repositories."""

    def __init__(self, **repositories):
        self.repositories, self.asked = repositories, []

    def __call__(self, name, allow_patterns):
        self.asked.append((name, allow_patterns))
        found = self.repositories[name.replace("/", "_")]
        if isinstance(found, Exception):
            raise found
        return str(found)


def hub_error(kind):
    from huggingface_hub import errors

    response = types.SimpleNamespace(headers={}, request=None, status_code=403)
    return getattr(errors, kind)("Access to it is restricted", response=response)


def test_a_checkpoint_of_the_hub(tmp_path, monkeypatch):
    made = make_checkpoint(tmp_path / "kiwi", "microsoft/infoxlm-large")
    hub = Hub(Unbabel_kiwi=made, microsoft_infoxlm_large=tmp_path)
    hub.repositories["microsoft_infoxlm-large"] = tmp_path
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert find_checkpoint("Unbabel/kiwi") == made / "checkpoints/model.ckpt"
    assert hub.asked == [
        ("Unbabel/kiwi", ["hparams.yaml", "checkpoints/model.ckpt"]),
        ("microsoft/infoxlm-large", ["*.json", "*.model", "*.txt"]),
    ]


@pytest.mark.parametrize(
    "error, message",
    [
        ("GatedRepoError", "COMET model Unbabel/kiwi: the hub wants its licence accepted; accept"),
        ("RepositoryNotFoundError", "COMET model Unbabel/kiwi: the hub shows none of that name; "),
        (None, r"COMET model Unbabel/kiwi: not here and not from the hub \(offline\); "),
    ],
)
def test_a_checkpoint_that_the_hub_does_not_give(monkeypatch, error, message):
    error = hub_error(error) if error else OSError("offline")
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(Unbabel_kiwi=error))
    with pytest.raises(SpireError, match=message) as caught:
        find_checkpoint("Unbabel/kiwi")
    said = str(caught.value)
    for advice in ("https://huggingface.co/Unbabel/kiwi", "huggingface-cli login", "path of"):
        assert advice in said
    assert "\n" not in said


def test_offline_with_nothing_in_the_cache(tmp_path):
    """The hub's own client, in a process that may not use the network."""
    script = (
        "from espnet_spire.score.comet import find_checkpoint as f; f('Unbabel/wmt22-cometkiwi-da')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    said = done.stderr.splitlines()[-1]
    assert "COMET model Unbabel/wmt22-cometkiwi-da: not here and not from the hub" in said
    assert "accept its licence on https://huggingface.co/Unbabel/wmt22-cometkiwi-da" in said


# As a scorer -----------------------------------------------------------------------------------


def test_cometkiwi_is_found_by_name_and_scores(fake, tmp_path, monkeypatch):
    module = find_scorers(["espnet_spire.corpus.scorers"])["cometkiwi"]
    assert module is cometkiwi
    monkeypatch.setattr(module, "Comet", lambda checkpoint, python, **given: fake(**given))
    model = make_checkpoint(tmp_path / "kiwi", tmp_path)
    args = types.SimpleNamespace(
        comet_model=str(model), comet_python=sys.executable, comet_batch_size=3
    )
    assert json.dumps(module.identity(args)) == json.dumps(
        {"comet": checkpoint_identity(model / "checkpoints/model.ckpt")}
    )
    scorer = module.make(args, "cpu", None)
    assert scorer(["ab", "abcd"], ["a", "b"], "en", "de") == [0.5, 0.25]
    scorer.close()
    assert scorer.comet._process.returncode == 0
