"""The low-resource recipe in miniature at a small size: another language, with distillation."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from datasets import load_from_disk

from espnet_spire.train.store import ExampleStore
from espnet_spire.utils.datadir import read_table

ROOT = Path(__file__).resolve().parents[2]
LOWRES = ROOT / "egs2/spire/lowres_st"
CORPUS = (
    "--mini true --speech_lang de --num_train 120 --cpt_percent 50 --it_percent 10 --st_percent 40"
    " --num_dev 6 --num_test 8 --num_mono 80 --num_parallel 120 --num_blocks 10"
)
MODELS = (
    "--mini true --tower_langs en,fr,zh --hubert_config small/mini_hubert.yaml"
    " --tower_config small/mini_tower.yaml"
)
CONFIGS = {
    "mini_hubert": {"passes": 0.3, "front_end_passes": 0.2, "kmeans_frames": 8000},
    "mini_tower": {"passes": 1.0},
    "lowres_mini_train_it": {"num_epochs": 1, "save_interval_steps": 5, "eval_interval_steps": 5},
}
JOBS = {("asr", "de", "de"), *((task, "de", "en") for task in ("mt", "st", "st_cascade"))}


def run(path, *options):
    return subprocess.run(
        [
            *("./run_mini.sh", "--cpt_first", "false", "--kmeans_hours", "0.03"),
            *("--local_data_opts", CORPUS, "--local_models_opts", MODELS),
            *("--it_config", "small/lowres_mini_train_it.yaml", *options),
        ],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )


@pytest.fixture(scope="module")
def lowres(tmp_path_factory):
    """A recipe directory after IT from the extended model, with distillation."""
    path = tmp_path_factory.mktemp("lowres") / "recipe"
    path.mkdir()
    for entry in LOWRES.iterdir():
        if entry.name not in ("data", "dump", "exp", "downloads"):
            (path / entry.name).symlink_to(entry.resolve())
    (path / "small").mkdir()
    for name, changes in CONFIGS.items():
        values = yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())
        (path / f"small/{name}.yaml").write_text(yaml.safe_dump({**values, **changes}))
    done = run(path, "--distill", "true")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return path, done.stdout


def test_scores_of_all_four_tasks(lowres):
    path, output = lowres
    results = json.loads((path / "exp/results.json").read_text())["results"]
    assert {(r["task"], r["src"], r["tgt"]) for r in results} == JOBS
    assert {r["variant"] for r in results} == {"towerfull_kd"}
    assert "TowerFull, distilled" in (path / "RESULTS.md").read_text()
    assert "8 CPT" not in output and not (path / "exp/spire_cpt_mini").exists()


def test_the_speech_is_german_and_the_base_has_not_read_any(lowres):
    path, _ = lowres
    test = read_table(path / "dump/raw/test/text")
    assert set(read_table(path / "dump/raw/test/text.tc.en")) == set(test)
    assert any("ß" in text or "ü" in text for text in test.values())
    report = json.loads((path / "dump/it_towerfull_kd/report.json").read_text())
    assert {(g["task"], g["lang"]) for g in report["groups"]} == {
        ("asr", "de"),
        ("st_kd", "de-en"),
    }


def test_it_trained_on_pairs_with_gmus_weights(lowres):
    path, _ = lowres
    store = ExampleStore(path / "dump/it_towerfull_kd")
    rows = load_from_disk(str(path / "dump/it_towerfull_kd/dataset"))
    pairs = [n for n, task in enumerate(rows["task"]) if task == "st_kd"]
    assert len(pairs) == 48 and all(len(store.documents(n)) == 2 for n in pairs)
    run = path / "exp/spire_it_towerfull_kd_mini"
    entry = json.loads((run / "history.jsonl").read_text().splitlines()[0])
    assert {"loss_asr.de", "loss_st.de-en", "loss_mt.de-en", "loss_kd.de-en"} <= entry.keys()
    manifest = json.loads(next(run.glob("step_*/manifest.json")).read_text())
    assert manifest["settings"]["kd_weights"] == [1, 1, 2]


def test_without_distillation_all_before_it_is_shared(lowres):
    path, _ = lowres
    done = run(path, "--distill", "false", "--stop_stage", "9")
    assert done.returncode == 0, done.stderr[-2000:]
    for step in ("1 data", "2 format", "3 k-means", "4 units", "5 vocabulary"):
        assert f"{step}: up to date" in done.stdout
    report = json.loads((path / "dump/it_towerfull/report.json").read_text())
    counts = {g["task"]: g["examples"] for g in report["groups"]}
    assert counts == {"asr": 60, "mt": 48, "st": 48}


def test_data_that_is_not_there(tmp_path):
    (tmp_path / "recipe").mkdir()
    for name in ("run.sh", "spire.sh", "path.sh", "cmd.sh", "db.sh", "local", "conf"):
        (tmp_path / "recipe" / name).symlink_to((LOWRES / name).resolve())

    def stage_1(*options):
        command = ["./run.sh", "--stop_stage", "1", "--ngpu", "0", *options]
        return subprocess.run(command, cwd=tmp_path / "recipe", capture_output=True, text=True)

    done = stage_1()
    assert done.returncode != 0
    assert "data/train/wav.scp is missing: put or link your data directories there" in done.stderr
    done = stage_1("--local_data_opts", f"--source {tmp_path}/nowhere")
    assert f"{tmp_path}/nowhere/train: no such data directory" in done.stderr
    for name in ("train", "dev", "test"):
        folder = tmp_path / "corpus" / name
        folder.mkdir(parents=True)
        for table in ("wav.scp", "text", "utt2spk", "text.tc.en"):
            (folder / table).write_text("a b\n")
    done = stage_1("--local_data_opts", f"--source {tmp_path}/corpus")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "recipe/data/dev/text.tc.en").read_text() == "a b\n"
