"""Entry points around mixtures, and the plot of units."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers_lm import SENTENCES, UNITS_NAME, process_environment

from espnet_spire.bin import export_mixture, make_examples, mixture_inputs, plot_units
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def mixture(tmp_path, lm_data):
    path = tmp_path / "mix.yaml"
    sources = [
        {"name": "asr", "task": "asr", "data_dir": str(lm_data)},
        {
            **{"name": "st", "task": "st", "data_dir": str(lm_data), "targets": ["de"]},
            "not_in": ["noblocks"],
        },
    ]
    path.write_text(yaml.safe_dump({"format": "chatml", "sources": sources}))
    return str(path)


def test_mixture_inputs(mixture, lm_data, capsys):
    mixture_inputs.main(["--mixture", mixture, "--units-name", "u"])
    assert capsys.readouterr().out.splitlines() == [
        *(f"{lm_data}/text", f"{lm_data}/text.tc.de", f"{lm_data}/u")
    ]
    mixture_inputs.main(["--mixture", mixture, "--units_name", "u", "--variant", "noblocks"])
    assert capsys.readouterr().out.splitlines() == [f"{lm_data}/text", f"{lm_data}/u"]


def test_make_examples(mixture, lm_dir, lm_base, tmp_path, capsys):
    command = ["--mixture", mixture, "--units_name", UNITS_NAME, "--out", str(tmp_path / "o")]
    make_examples.main([*command, "--model", str(lm_dir)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["asr", "asr", "24"] and lines[3].split()[:2] == ["total", "48"]
    assert lines[-1].split()[:3] == ["st", "en-de", "24"]
    with pytest.raises(SpireError, match="spire.json: no such file; make the model with"):
        make_examples.main([*command, "--model", str(lm_base)])


def test_dumpdir_moves_a_mixture(lm_data, lm_dir, tmp_path, capsys):
    mixture = tmp_path / "mix.yaml"
    source = {"name": "asr", "task": "asr", "data_dir": f"{{dumpdir}}/{lm_data.name}"}
    mixture.write_text(yaml.safe_dump({"format": "plain", "sources": [source]}))
    common = ["--mixture", str(mixture), "--units_name", UNITS_NAME]
    common += ["--dumpdir", str(lm_data.parent)]
    mixture_inputs.main(common)
    assert capsys.readouterr().out.splitlines() == [f"{lm_data}/text", f"{lm_data}/{UNITS_NAME}"]
    out = str(tmp_path / "out")
    make_examples.main([*common, "--model", str(lm_dir), "--out", out, "--nj", "2"])
    export_mixture.main([*common, "--examples", out, "--out", str(tmp_path / "o.jsonl")])
    assert capsys.readouterr().out.splitlines()[-1] == f"24 examples in {tmp_path}/o.jsonl"
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert first["text"].endswith(f"\nEnglish: {SENTENCES[0]}") and first["key"] == "asr:utt000"


def test_a_tokenizer_and_its_spire_json_that_disagree(mixture, lm_dir, tmp_path):
    model = shutil.copytree(lm_dir, tmp_path / "model")
    known = json.loads((model / "spire.json").read_text())
    (model / "spire.json").write_text(json.dumps({**known, "num_units": 21}))
    command = ["--mixture", mixture, "--units_name", UNITS_NAME, "--out", str(tmp_path / "o")]
    with pytest.raises(SpireError, match="the tokenizer has 20 units, spire.json says 21"):
        make_examples.main([*command, "--model", str(model)])


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_broken_tokenizer(mixture, lm_dir, tmp_path, content):
    model = shutil.copytree(lm_dir, tmp_path / "model")
    (model / "tokenizer.json").write_text(content)
    command = ["--mixture", mixture, "--units_name", UNITS_NAME, "--out", str(tmp_path / "o")]
    with pytest.raises(SpireError, match="model: its tokenizer cannot be loaded") as caught:
        make_examples.main([*command, "--model", str(model)])
    assert "\n" not in str(caught.value)


def test_a_mistyped_variant(lm_data, tmp_path):
    mixture = tmp_path / "mix.yaml"
    source = {"name": "asr", "task": "asr", "data_dir": str(lm_data)}
    values = {"format": "plain", "variants": ["full", "small"], "sources": [source]}
    mixture.write_text(yaml.safe_dump(values))
    command = ["--mixture", str(mixture), "--units_name", "u", "--variant"]
    mixture_inputs.main([*command, "small"])
    with pytest.raises(SpireError, match="--variant: 'smal' is none of the mixture's variants"):
        mixture_inputs.main([*command, "smal"])


def test_plot_units(tmp_path, capsys):
    (tmp_path / "cb").mkdir()
    (tmp_path / "cb" / "codebook.json").write_text(json.dumps({"num_clusters": 4}))
    (tmp_path / "u1").write_text("a 0 1 0 1\n")
    (tmp_path / "u2").write_text("b 0 1\nc 0 1\n")
    command = ["--codebook", str(tmp_path / "cb"), "--out", str(tmp_path / "p.png"), "--units"]
    plot_units.main([*command, str(tmp_path / "u1"), str(tmp_path / "u2")])
    # Two of four never used; the other two equally often: two units' worth of entropy.
    assert capsys.readouterr().out == "units: 50.0 % never used, perplexity 2.0\n"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "u1").write_text("a 4\n")
    with pytest.raises(SpireError, match="u1: a: unit 4, but K is 4"):
        plot_units.main([*command, str(tmp_path / "u1")])


def test_parsers_import_nothing_heavy():
    code = """
import sys
from espnet_spire.bin import export, export_mixture, make_examples, mixture_inputs, plot_units
from espnet_spire.bin import pseudo_label, spire_inference, spire_train
modules = (export, export_mixture, make_examples, mixture_inputs, plot_units, pseudo_label)
for module in (*modules, spire_inference):
    module.get_parser()
print([name for name in ("torch", "transformers", "espnet2", "datasets") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=process_environment()
    )
    assert done.stdout == "[]\n", done.stderr
