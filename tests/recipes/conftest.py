"""Recipe directories for tests: links to the mini recipe's files, sizes of their own."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "egs2/spire/mini"

# The same recipe at a size that takes about two minutes.
CORPUS = (
    "--num_train 160 --num_dev 10 --num_test 12 --num_mono 100 --num_parallel 200 --num_blocks 60"
)
CONFIGS = {
    "mini_hubert": {"passes": 0.3, "front_end_passes": 0.2, "kmeans_frames": 8000},
    "mini_tower": {"passes": 1.0},
    "mini_train_cpt": {"num_epochs": 1, "save_interval_steps": 5, "eval_interval_steps": 5},
    "mini_train_it": {"num_epochs": 1, "save_interval_steps": 5, "eval_interval_steps": 5},
}


class Recipe:
    """A recipe directory and how to run it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        for entry in MINI.iterdir():
            if entry.name in ("run.sh", "spire.sh", "path.sh", "cmd.sh", "db.sh", "local", "conf"):
                (path / entry.name).symlink_to(entry.resolve())
        small = path / "small"
        small.mkdir()
        for name, changes in CONFIGS.items():
            values = yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())
            (small / f"{name}.yaml").write_text(yaml.safe_dump({**values, **changes}))

    def run(self, *options: str, timeout: int = 900) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*options),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(),
        )

    def command(self, *options: str) -> list:
        models = "--hubert_config small/mini_hubert.yaml --tower_config small/mini_tower.yaml"
        return [
            "./run.sh",
            "--local_data_opts",
            CORPUS,
            "--local_models_opts",
            models,
            "--kmeans_hours",
            "0.05",
            # An LM this young finds nothing likely.
            "--pseudo_threshold",
            "0.0",
            "--cpt_config",
            "small/mini_train_cpt.yaml",
            "--it_config",
            "small/mini_train_it.yaml",
            *options,
        ]

    @staticmethod
    def environment() -> dict:
        # spBLEU's file may lie in the user's home directory, and then there is a score more.
        return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "SACREBLEU": os.devnull}


@pytest.fixture
def empty_recipe(tmp_path) -> Recipe:
    """A recipe directory in which nothing was run."""
    return Recipe(tmp_path / "recipe")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Recipe:
    """A recipe directory after a whole run, of spirefull."""
    recipe = Recipe(tmp_path_factory.mktemp("mini") / "recipe")
    done = recipe.run()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    recipe.output = done.stdout
    return recipe
