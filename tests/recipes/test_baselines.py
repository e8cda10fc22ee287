"""The script of baselines: three systems trained, decoded and scored, and the report has them."""

import json

import numpy as np
import pytest
import yaml

from espnet_spire.bin import report
from espnet_spire.utils.datadir import write_table

TEXTS = ["a red house", "the old man", "we see it", "they all sing", "no one is here"]
SYSTEMS = "HuBERT+CTC=ctc W=whisper:{} S=seamless_m4t:{}"


@pytest.fixture
def here(empty_recipe, make_data_dir, make_audio):
    """A recipe directory with formatted sets, and a set of text."""
    raw = empty_recipe.path / "dump/raw"
    for name, count in (("train", 5), ("dev", 2), ("test", 3)):
        said = {f"{name}{i}": TEXTS[i] for i in range(count)}
        audio = {key: make_audio(1.2, len(key) + i) for i, key in enumerate(said)}
        make_data_dir(raw / name, audio, texts=said)
    write_table(raw / "test/text.tc.de", {f"test{i}": f"Satz {i}" for i in range(3)})
    for lang in ("en", "de"):
        table = {f"f{i}": f"{lang} the cat {i}" for i in range(2)}
        write_table(empty_recipe.path / f"data/flores/text.tc.{lang}", table)
    settings = {"num_epochs": 2, "batch_utterances": 2, "micro_batch_utterances": 2}
    settings |= {"min_char_count": 1, "num_workers": 0, "eval_interval_steps": 2}
    (empty_recipe.path / "ctc.yaml").write_text(yaml.safe_dump(settings))
    return empty_recipe


def test_baselines(here, stable_hubert, whisper_dir, seamless_dir):
    def run(*more):
        words = ["local/baselines.sh", "--ngpu", "0", "--encoder", stable_hubert]
        words += ["--config", "ctc.yaml", "--text_test_sets", "flores", "--inference_nj", "2"]
        words += ["--speech_jobs", "asr.en-en st.en-de st_cascade.en-de st.en-fr ner.en-en"]
        words += ["--text_jobs", "mt.en-de mt.de-en mt.en-fr"]
        words += ["--systems", SYSTEMS.format(whisper_dir, seamless_dir)]
        here.command = lambda *options: [*words, "--inference-args", "--max_new_tokens 8", *options]
        return here.run(*more)

    done = run()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    exp = here.path / "exp"
    assert (exp / "ctc_ctc/hf/model.safetensors").is_file()
    report.main(
        ["--expdir", str(exp), "--out", str(here.path / "R.md")]
        + ["--results_json", str(exp / "results.json")]
    )
    results = json.loads((exp / "results.json").read_text())["results"]
    assert all(np.isfinite(result["value"]) for result in results)
    found = {
        (result["variant"], result["set"], result["task"], result["src"], result["tgt"])
        for result in results
    }
    speech = {(name, "test", "asr", "en", "en") for name in ("HuBERT+CTC", "W", "S")}
    # There are no French references, and named entities are not for SeamlessM4T.
    assert found == speech | {
        *(("S", "test", task, "en", "de") for task in ("st", "st_cascade")),
        *(("S", "flores", "mt", src, tgt) for src, tgt in (("en", "de"), ("de", "en"))),
    }
    page = (here.path / "R.md").read_text()
    assert all(f"### {name}\n" in page for name in ("HuBERT+CTC", "W", "S"))
    again = run().stdout
    assert again.count("up to date") == 1 + 4 + 4 and "going on" not in again
    moved = run("--stage", "2", "--stop_stage", "2", "--dtype", "bfloat16").stdout
    assert moved.count("moved to") == 4


def test_refused(empty_recipe):
    def run(*options):
        empty_recipe.command = lambda *words: ["local/baselines.sh", *words]
        done = empty_recipe.run(*options)
        assert done.returncode == 1
        return done.stderr

    assert "unknown option --no_such" in run("--no_such", "1")
    assert "--stage x: not a whole number" in run("--stage", "x")
    assert "W=whisper lacks its model" in run("--systems", "W=whisper", "--stage", "2")
    assert "is not NAME=KIND[:MODEL]" in run("--systems", "W=kaldi:x", "--stage", "2")
    said = run("--ngpu", "0")
    assert "step 'baseline CTC' needs dump/raw/train/wav.scp, which is not there; run" in said
