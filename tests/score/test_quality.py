import json
import sys
from pathlib import Path

import pytest

from espnet_spire.bin import score as bin_score
from espnet_spire.score.files import read_entries
from espnet_spire.score.measured import Texts
from espnet_spire.score.quality import QualityModels
from espnet_spire.utils.errors import SpireError

# Speaks as comet_worker.py does; a score is the share of letters that source (or reference) and
# translation have in common.
WORKER = """
import json, sys
checkpoint = sys.argv[sys.argv.index("--checkpoint") + 1]
kiwi = "kiwi" in checkpoint
print(json.dumps({"ready": {"comet": "9.9", "needs_reference": not kiwi}}), flush=True)
for line in sys.stdin:
    answer = {"scores": [], "metadata": {"error_spans": []}}
    for sample in json.loads(line)["samples"]:
        assert ("ref" in sample) == (not kiwi), sample
        one, other = set(sample["mt"]), set(sample["src" if kiwi else "ref"])
        answer["scores"].append(len(one & other) / max(1, len(one | other)))
        answer["metadata"]["error_spans"].append([{"text": sample["mt"][:1]}])
    if "xcomet" not in checkpoint:
        del answer["metadata"]
    print(json.dumps(answer), flush=True)
"""


def checkpoint(directory):
    """COMET's layout, with an encoder that is here."""
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints/model.ckpt").write_text(directory.name)
    (directory / "hparams.yaml").write_text(f"pretrained_model: {directory}\n")
    return str(directory)


@pytest.fixture
def python(tmp_path):
    """A Python that has COMET, to those who start the worker with it."""
    worker, program = tmp_path / "worker.py", tmp_path / "python"
    worker.write_text(WORKER)
    program.write_text(f'#!/bin/sh\necho started >> {tmp_path}/starts\nshift 2\n'
                       f'exec {sys.executable} {worker} "$@"\n')  # fmt: skip
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def models(tmp_path):
    names = ("comet22", "xcomet", "cometkiwi")
    return {name: checkpoint(tmp_path / "models" / name) for name in names}


TEXTS = Texts(["a", "b"], ["abcd", "xy"], ["abc", ""], "de", ["ab", "xy"])


def test_scores_and_signature(python, models, tmp_path):
    with QualityModels(models, python=python) as quality:
        found = quality.measure("comet22", TEXTS)
        again = quality.measure("comet22", TEXTS)
        kiwi = quality.measure("cometkiwi", TEXTS)
        spans = quality.measure("xcomet", TEXTS).details
    assert found.statistics.tolist() == again.statistics.tolist() == [[0.75, 1], [0, 1]]
    assert found.value == 37.5 and found.counts["mean"] == 0.375
    assert found.signature.startswith("nrefs:1|model:comet22|checkpoint:")
    assert found.signature.endswith("|tool:unbabel-comet|version:9.9")
    assert kiwi.signature.startswith("nrefs:0|model:cometkiwi|")
    assert kiwi.value == pytest.approx(100 * (2 / 3) / 2)
    assert spans == [{"error_spans": [{"text": "a"}]}, {"error_spans": [{"text": ""}]}]
    assert found.details == []
    assert (tmp_path / "starts").read_text().count("started") == 3, "one process a model"


def test_sources_are_needed(python, models):
    quality = QualityModels(models, python=python)
    with pytest.raises(SpireError, match="comet22 looks at the source text, and there is none"):
        quality.measure("comet22", Texts(["a"], ["x"], ["y"], "de"))
    with quality, pytest.raises(SpireError, match="comet22 looks at the source text, and b has no"):
        quality.measure("comet22", Texts(["a", "b"], ["x"] * 2, ["y"] * 2, "de", ["z", None]))


def test_a_model_that_needs_references_is_no_kiwi(python, models):
    models["cometkiwi"] = models["comet22"]
    with QualityModels(models, python=python) as quality:
        with pytest.raises(SpireError, match="needs references: it is no model for cometkiwi"):
            quality.measure("cometkiwi", TEXTS)


def test_what_is_missing_is_an_error_before_anything_is_scored(
    tmp_path, python, models, monkeypatch
):
    data, decode = tmp_path / "data", tmp_path / "decode"
    for path, text in (
        (data / "text", "a ab\n"),
        (data / "text.tc.de", "a abcd\n"),
        (decode / "mt.en-de/text", "a abc\n"),
        (decode / "asr.en-en/text", "a ab\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    options = ["--decode_dir", str(decode), "--data_dir", str(data)]
    options += ["--metrics", "bleu", "comet22", "wer"]
    named = ["--comet_models", *(f"{name}={path}" for name, path in models.items())]
    with pytest.raises(SpireError, match="--comet_python /nowhere: no such program"):
        bin_score.main([*options, *named, "--comet_python", "/nowhere"])
    gone = ["--comet_models", "comet22=/gone/model.ckpt", "--comet_python", python]
    with pytest.raises(SpireError, match="/gone/model.ckpt: no such checkpoint"):
        bin_score.main([*options, *gone])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(SpireError, match="Unbabel/wmt22-comet-da: not here and not from the hub"):
        bin_score.main([*options, "--comet_python", python])
    with pytest.raises(SpireError, match="blue is none of COMET's metrics"):
        bin_score.main([*options, "--comet_models", "blue=x"])
    assert not list(decode.glob("*/score_*"))
    bin_score.main([*options, *named, "--comet_python", python])
    assert sorted(path.parent.name + "/" + path.name for path in decode.glob("*/score_*")) == [
        *("asr.en-en/score_wer", "mt.en-de/score_bleu", "mt.en-de/score_comet")
    ]
    out = decode / "mt.en-de/score_comet"
    (score,) = json.loads((out / "score.json").read_text())["scores"]
    assert (score["value"], score["counts"]["mean"]) == (75, 0.75)
    assert read_entries(out / "utterances.jsonl")[0]["scores"] == {"comet22": 75.0}
    assert "COMET-22 75.00 [75.00, 75.00] over 1 utterances" in (out / "result.txt").read_text()
    assert not (Path(out) / "alignment.txt").exists()
