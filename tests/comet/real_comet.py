"""The real COMET in its own environment, with a CometKiwi of 20 thousand parameters.

Not collected by ``make test``, which has no such environment: ``make test-comet`` makes it and
runs this file.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_lm import GERMAN, SENTENCES, make_data_dir
from helpers_server import StubServer

from espnet_spire.bin import pseudo_label
from espnet_spire.score.comet import Comet, find_checkpoint, find_python
from espnet_spire.utils.datadir import read_table
from espnet_spire.utils.errors import SpireError

TINY = Path(__file__).with_name("tiny_kiwi.py")
PAIRS = [
    {"src": source[: 5 + 3 * number], "mt": target[: 40 - 5 * number] or "文 ü"}
    for number in range(10)
    for source, target in zip(SENTENCES, GERMAN, strict=True)
]


def comets_own(*arguments, said=""):
    """Run ``tiny_kiwi.py`` in COMET's environment."""
    done = subprocess.run(
        [find_python(), str(TINY), *map(str, arguments)], input=said, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def kiwi(tmp_path_factory):
    out = tmp_path_factory.mktemp("kiwi")
    comets_own("make", out)
    return out


@pytest.fixture(scope="module")
def model(kiwi):
    model = Comet(find_checkpoint(str(kiwi)), python=find_python(), batch_size=7)
    yield model
    model.close()


def test_the_scores_are_comets_own(kiwi, model):
    expected = json.loads(comets_own("score", kiwi, said=json.dumps(PAIRS)))
    assert max(expected) - min(expected) > 0.01  # it does tell them apart
    assert model(PAIRS) == pytest.approx(expected, abs=1e-5)
    # The same process again, other company, another order.
    assert model(PAIRS[30:][::-1]) == pytest.approx(expected[30:][::-1], abs=1e-5)
    assert model([]) == []


def test_what_it_says_of_itself(model):
    assert model.about["class"] == "UnifiedMetric" and not model.about["needs_reference"]
    assert model.about["comet"] == "2.2.7"


def test_checkpoints_that_are_none(kiwi, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model.ckpt").write_bytes(b"no weights")
    (tmp_path / "hparams.yaml").write_text((kiwi / "hparams.yaml").read_text())
    with pytest.raises(SpireError, match="COMET with .*model.ckpt: UnpicklingError: "):
        Comet(find_checkpoint(str(tmp_path)), python=find_python())


LOOK = """
from espnet_spire.score.comet import Comet, find_checkpoint, find_python
model = Comet(find_checkpoint("Unbabel/wmt22-cometkiwi-da"), python=find_python())
print(model([{"src": "the cook cuts bread", "mt": "der Koch schneidet Brot"}]))
model.close()
"""


def test_a_model_in_the_hubs_cache(kiwi, model, tmp_path, monkeypatch):
    """By its name, offline: our hub client finds the checkpoint, COMET reads it."""
    repository = tmp_path / "hub/models--Unbabel--wmt22-cometkiwi-da"
    snapshot = repository / "snapshots/0123456789abcdef0123456789abcdef01234567"
    (snapshot / "checkpoints").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(snapshot.name)
    for name in ("hparams.yaml", "checkpoints/model.ckpt"):
        # The hub's cache has links into a store of blobs.
        blob = repository / "blobs" / name.replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes((kiwi / name).read_bytes())
        (snapshot / name).symlink_to(blob)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = model([{"src": "the cook cuts bread", "mt": "der Koch schneidet Brot"}])
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)


def test_pseudo_labels(kiwi, model, lm_dir, lm_tokenizer, tmp_path):
    """The whole stage: translated by a server, scored by CometKiwi."""
    data = make_data_dir(tmp_path / "train", 12)
    brot = lm_tokenizer("das Brot", add_special_tokens=False).input_ids
    scores = model([{"src": source, "mt": "das Brot"} for source in SENTENCES])
    threshold = sorted(scores)[3] - 1e-4
    with StubServer(lambda prompt: ([*brot, 2], "stop")) as server:
        pseudo_label.main(
            [
                *("--model", str(lm_dir), "--data_dir", str(data), "--tgt_langs", "de"),
                *("--out", str(tmp_path / "o"), "--threshold", f"{threshold:.6f}"),
                *("--comet_model", str(kiwi), "--device", "cpu", "--prompt_style", "plain"),
                *("--server", server.url, "--scorer", "cometkiwi"),
            ]
        )
    found = read_table(tmp_path / "o/train.de/scores")
    for number in range(12):
        assert float(found[f"utt{number:03d}"]) == pytest.approx(scores[number % 6], abs=2e-4)
    kept = {f"utt{number:03d}" for number in range(12) if scores[number % 6] >= threshold}
    assert set(read_table(tmp_path / "o/train.de/text.tc.de")) == kept and 0 < len(kept) < 12
