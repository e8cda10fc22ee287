"""COMET's models, called as a process in COMET's own environment (``make comet-env``).

CometKiwi scores pseudo-labels; COMET-22 and xCOMET score translations against references: a sample
is ``{"src": …, "mt": …}`` and, for those, ``"ref"``.
"""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import yaml

import espnet_spire
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.digest import file_sha256, sampled_sha256
from espnet_spire.utils.errors import SpireError

WORKER = Path(__file__).with_name("comet_worker.py")
PYTHON_VARIABLE = "SPIRE_COMET_PYTHON"
_HOW_TO_GET = (
    "accept its licence on https://huggingface.co/{name}, log in with 'hf auth login' (older"
    " versions: 'huggingface-cli login') and start again with HF_HUB_OFFLINE=0, or give the path of"
    " a checkpoint that is here"
)
# Of an encoder: COMET's checkpoint has its weights.
_ENCODER_FILES = ("*.json", "*.model", "*.txt")


def find_python(given: Optional[str] = None) -> str:
    """The Python that has COMET: the one given, ``SPIRE_COMET_PYTHON``, or ``make comet-env``'s.

    Raises:
        SpireError: there is none; it says what to do.
    """
    chosen = given or os.environ.get(PYTHON_VARIABLE)
    python = chosen or str(Path(espnet_spire.__file__).parents[1] / ".venv-comet/bin/python")
    if os.access(python, os.X_OK):
        return python
    if chosen:
        where = "--comet_python" if given else f"${PYTHON_VARIABLE}"
        raise SpireError(f"{where} {python}: no such program")
    raise SpireError(
        "COMET needs an environment of its own: run 'make comet-env', or name a Python that has"
        f" unbabel-comet with --comet_python or {PYTHON_VARIABLE}"
    )


def find_checkpoint(model: str) -> Path:
    """The checkpoint file of a COMET model; one of the hub is fetched, or found in its cache.

    COMET's checkpoints are pickles, which can run code when they are read: name none that you do
    not trust.

    Args:
        model: a ``.ckpt`` file or the directory above it in COMET's layout
            (``hparams.yaml``, ``checkpoints/model.ckpt``), or a hub name.

    Raises:
        SpireError: it is not there, its licence was not accepted, or its encoder's tokenizer is
            missing; it says what to do.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "checkpoints" / "model.ckpt"
    elif not path.is_file():
        if path.suffix == ".ckpt" or path.is_absolute() or model.count("/") != 1:
            raise SpireError(f"{model}: no such checkpoint, and not the name of a model of the hub")
        path = _fetch(model, ["hparams.yaml", "checkpoints/model.ckpt"], "COMET model", model)
        path = path / "checkpoints" / "model.ckpt"
    # By its own name, not that of a blob in the hub's cache.
    hparams = path.parent.parent / "hparams.yaml"
    for needed in (path, hparams):
        if not needed.is_file():
            raise SpireError(
                f"{model}: {needed} is missing; COMET's layout is hparams.yaml and"
                f" checkpoints/model.ckpt"
            )
    encoder = _pretrained_model(hparams)
    if not Path(encoder).is_dir():
        _fetch(encoder, _ENCODER_FILES, f"tokenizer of {model}'s encoder", encoder)
    return path


def _pretrained_model(hparams: Path) -> str:
    try:
        with open(hparams, encoding="utf-8") as stream:
            return yaml.safe_load(stream)["pretrained_model"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise SpireError(f"{hparams}: no YAML of COMET: pretrained_model is not in it") from None


def _fetch(name: str, files: Sequence[str], what: str, repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    how = _HOW_TO_GET.format(name=repository)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except GatedRepoError:
        raise SpireError(f"{what} {name}: the hub wants its licence accepted; {how}") from None
    except RepositoryNotFoundError:
        raise SpireError(f"{what} {name}: the hub shows none of that name; {how}") from None
    except (OSError, ValueError) as error:
        raise SpireError(
            f"{what} {name}: not here and not from the hub ({str(error).splitlines()[0]}); {how}"
        ) from None


def checkpoint_identity(checkpoint: PathLike) -> str:
    """What tells a checkpoint from others: its weights (sampled) and its hyper-parameters."""
    hparams = Path(checkpoint).parent.parent / "hparams.yaml"
    return f"{sampled_sha256(checkpoint)} {file_sha256(hparams)}"


class Comet:
    """A COMET model in a process that lives until :meth:`close`.

    Args:
        checkpoint: see :func:`find_checkpoint`.
        python: see :func:`find_python`.
        device: torch device.
        batch_size: samples of a batch.
        worker: the program, for tests.

    Raises:
        SpireError: COMET is not installed there, or cannot load the checkpoint.
    """

    def __init__(
        self,
        checkpoint: PathLike,
        *,
        python: str,
        device: str = "cpu",
        batch_size: int = 16,
        worker: PathLike = WORKER,
    ) -> None:
        self._python = python
        self._checkpoint = checkpoint
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process
        # -I: neither $PYTHONPATH, which is of this environment, nor the modules beside the worker,
        # of which one is named comet.
        command = [python, "-I", str(worker), "--checkpoint", str(checkpoint)]
        command += ["--device", device, "--batch_size", str(batch_size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        try:
            # Versions of COMET and torch, class of the model, whether it needs references.
            self.about: Dict[str, Any] = self._read()["ready"]
        except BaseException:
            self.close()
            raise

    def __call__(self, samples: Sequence[Mapping[str, str]]) -> List[float]:
        """Scores of samples, in their order."""
        return self.predict(samples)["scores"]

    def predict(self, samples: Sequence[Mapping[str, str]]) -> Dict[str, Any]:
        """``scores``, and ``metadata`` (of xCOMET: error spans), lists in the samples' order.

        Raises:
            SpireError: COMET failed; it says how.
        """
        request = json.dumps({"samples": [dict(sample) for sample in samples]})
        # A process that has died says why when it is read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        answer = self._read()
        if len(answer["scores"]) != len(samples):
            raise SpireError(f"COMET gave {len(answer['scores'])} scores for {len(samples)} pairs")
        return answer

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def _read(self) -> Dict[str, Any]:
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            status = self._process.wait()
            raise SpireError(f"COMET ended with status {status}: {self._last_words()}")
        try:
            answer = json.loads(line)
        except ValueError:
            raise SpireError(f"COMET said what is no JSON: {line[:80]!r}") from None
        if answer.get("missing"):
            raise SpireError(
                f"{self._python} has no COMET ({answer['error']}): run 'make comet-env', or name"
                f" another with --comet_python or {PYTHON_VARIABLE}"
            )
        if "error" in answer:
            raise SpireError(f"COMET with {self._checkpoint}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it printed nothing")
