"""The full recipe in a directory of its own, over all corpora in miniature, with small models."""

import importlib
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from corpora import commonvoice
from corpora.europarl_st import with_ffmpeg
from corpora.material import say

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "egs2/spire/full"
LANGS = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
VARIANTS = ("spirefull", "towerfull", "spirenoblocks", "spirenopseudo")
# Builder of tests/corpora → variable of db.sh; two build into one directory.
BUILDERS = {
    "spgispeech": "SPGISPEECH",
    "gigaspeech": "GIGASPEECH",
    "mls": "MLS",
    "voxpopuli": "VOXPOPULI",
    "commonvoice": "COMMONVOICE",
    "europarl_st": "EUROPARL_ST",
    "fleurs": "FLEURS",
    "covost2": "COVOST2",
    "librispeech": "LIBRISPEECH",
    "mc4": "MC4",
    "moses": "PARALLEL",
    "towerblocks": "TOWERBLOCKS",
    "flores200": "FLORES200",
    "wmt23": "TOWER_EVAL",
    "ape_ner": "TOWER_EVAL",
}
# Six languages of Europarl-ST; clips of CommonVoice that the rule of three seconds leaves.
SETTINGS = {
    "europarl_st": {"langs": ("de", "es", "fr", "it", "nl", "pt")},
    "commonvoice": {"splits": commonvoice.LONG_CLIPS},
}
# In place of downloads: as local/mini_models.sh, on text in ten languages.
MODELS = """#!/usr/bin/env bash
set -euo pipefail
. ./path.sh
while [ $# -gt 0 ]; do
    case "$1" in
    --*) declare "${1#--}=$2"; shift 2 ;;
    esac
done
if [ ! -d "${base_model}" ]; then
    "${python}" -m espnet_spire.bin.mini_tower --mono_dir texts --parallel_dir texts \\
        --langs en %(langs)s --config small/mini_tower.yaml --out "${base_model}"
fi
if [ ! -d "${encoder}" ]; then
    dirs=()
    for set in ${train_set}; do dirs+=("${dumpdir}/raw/${set}"); done
    "${python}" -m espnet_spire.bin.mini_hubert --data_dir "${dirs[@]}" \\
        --config small/mini_hubert.yaml --out "${encoder}"
fi
"""
SMALL = {
    "mini_hubert": {
        "passes": 0.5,
        "front_end_passes": 0.5,
        "kmeans_frames": 4000,
        "num_clusters": 30,
    },
    "mini_tower": {"passes": 8.0},
    "mini_train_cpt": {"num_epochs": 1, "save_interval_steps": 20, "eval_interval_steps": 20},
    "mini_train_it": {"num_epochs": 1, "save_interval_steps": 20, "eval_interval_steps": 20},
}
OPTIONS = {
    "ngpu": 0,
    "nj": 2,
    "inference_nj": 1,
    "gpu_inference": "false",
    "encoder": "exp/small_hubert",
    "encoder_layer": 2,
    "num_clusters": 20,
    "base_model": "exp/small_tower",
    "pseudo_model": "exp/small_tower",
    "pseudo_prompt_style": "plain",
    "pseudo_scorer": "standin_dual_xent",
    "pseudo_threshold": 0.0,
    "pseudo_args": "--max_new_tokens 100",
    "cpt_config": "small/mini_train_cpt.yaml",
    "it_config": "small/mini_train_it.yaml",
    "export_dtype": "float32",
    "inference_args": "--max_new_tokens 16",
}


class FullRecipe:
    """A recipe directory and its corpora."""

    def __init__(self, path: Path) -> None:
        self.path = path / "recipe"
        self.corpora = path / "corpora"
        self.variables = {}
        self.path.mkdir(parents=True)
        for name in ("run.sh", "spire.sh", "path.sh", "cmd.sh", "db.sh", "conf"):
            (self.path / name).symlink_to(FULL / name)
        (self.path / "local").mkdir()
        (self.path / "local/data.sh").symlink_to(FULL / "local/data.sh")
        models = self.path / "local/models.sh"
        models.write_text(MODELS % {"langs": " ".join(LANGS)})
        models.chmod(0o755)
        (self.path / "small").mkdir()
        for name, changes in SMALL.items():
            values = yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())
            (self.path / f"small/{name}.yaml").write_text(yaml.safe_dump({**values, **changes}))
        texts = self.path / "texts"
        texts.mkdir()
        for lang in ("en", *LANGS):
            lines = "".join(f"{n:04d} {say(n)[lang]}\n" for n in range(300))
            (texts / f"text.{lang}").write_text(lines, encoding="utf-8")
            (texts / f"text.tc.{lang}").write_text(lines, encoding="utf-8")

    def build_corpora(self) -> None:
        for name, variable in BUILDERS.items():
            module = importlib.import_module(f"corpora.{name}")
            folder = "tower_eval" if variable == "TOWER_EVAL" else name
            settings = SETTINGS.get(name, {})
            self.variables[variable] = str(module.build(self.corpora / folder, **settings))

    def command(self, **changes) -> list:
        words = ["./run.sh"]
        for name, value in {**OPTIONS, **changes}.items():
            words += [f"--{name}", str(value)]
        return words

    def run(self, *, variables=None, timeout: int = 1500, **changes) -> subprocess.CompletedProcess:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **self.variables}
        environment.update(variables or {})
        return subprocess.run(
            self.command(**changes),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
        )


@pytest.fixture(scope="session")
def ffmpeg(tmp_path_factory):
    """``ffmpeg`` on the path: Europarl-ST's recordings are M4A."""
    before = os.environ["PATH"]
    os.environ["PATH"] = with_ffmpeg(tmp_path_factory.mktemp("bin"))
    yield
    os.environ["PATH"] = before


@pytest.fixture(scope="session")
def full(tmp_path_factory, ffmpeg) -> FullRecipe:
    """The recipe after all stages of SpireFull, and the ablations up to their export."""
    recipe = FullRecipe(tmp_path_factory.mktemp("full"))
    recipe.build_corpora()
    recipe.output = {}
    for variant in VARIANTS:
        stages = {} if variant == "spirefull" else {"stage": 7, "stop_stage": 11}
        done = recipe.run(variant=variant, **stages)
        said = done.stdout[-4000:] + done.stderr[-4000:]
        assert done.returncode == 0, f"{variant}: {said}"
        recipe.output[variant] = done.stdout + done.stderr
    return recipe
