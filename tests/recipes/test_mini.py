"""The whole mini recipe at a small size, as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import time

import sacrebleu
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

from espnet_spire.units.subwords import load_unit_bpe
from espnet_spire.utils.datadir import read_table, validate_data_dir

UNITS = "text.rm.standin_hubert_small_2_km100"
JOBS = {
    ("asr", "en", "en"),
    *(("mt", "en", lang) for lang in ("de", "fr", "zh")),
    *(("mt", lang, "en") for lang in ("de", "fr", "zh")),
    *(("st", "en", lang) for lang in ("de", "fr", "zh")),
    *(("st_cascade", "en", lang) for lang in ("de", "fr", "zh")),
}
DECODED = "exp/spire_it_spirefull_mini/decode_greedy/test"


def test_every_job_has_its_scores(recipe):
    results = json.loads((recipe.path / "exp/results.json").read_text())
    found = {
        (r["variant"], r["set"], r["task"], r["src"], r["tgt"], r["metric"])
        for r in results["results"]
    }
    expected = {
        ("spirefull", "test", *job, metric)
        for job in JOBS
        for metric in (("wer", "cer") if job[0] == "asr" else ("bleu", "chrf"))
    }
    assert found == expected
    assert all(r["signature"] for r in results["results"])
    assert all(r["value"] >= 0 for r in results["results"])
    assert {"8 CPT", "10 IT spirefull", "4 units"} <= results["seconds"].keys()
    assert {"torch", "espnet", "deepspeed"} <= results["environment"].keys()


def test_a_score_agrees_with_sacrebleu(recipe):
    refs = read_table(recipe.path / "dump/raw/test/text.tc.fr")
    hyps = read_table(recipe.path / f"{DECODED}/st.en-fr/text", allow_empty_value=True)
    assert refs.keys() == hyps.keys() and len(refs) == 12
    bleu = sacrebleu.corpus_bleu([hyps[k] for k in refs], [list(refs.values())]).score
    score = json.loads((recipe.path / f"{DECODED}/st.en-fr/score_bleu/score.json").read_text())
    assert abs(score["scores"][0]["value"] - bleu) < 1e-9


def test_what_a_person_sees(recipe):
    page = (recipe.path / "RESULTS.md").read_text()
    assert "SpireFull" in page and "nrefs:1" in page and "seconds" in page.lower()
    assert "WER" in recipe.output and "Stage 13" in recipe.output
    for plot in (
        "exp/spire_cpt_mini/curves.png",
        "exp/spire_it_spirefull_mini/curves.png",
        "exp/kmeans/standin_hubert_small_2_100clusters.png",
    ):
        assert (recipe.path / plot).read_bytes().startswith(b"\x89PNG"), plot


def test_the_page_with_tables_and_examples(recipe):
    from helpers_chromium import console, look

    assert "RESULTS.html: " in recipe.output.splitlines()[-1]
    done = look(recipe.path / "RESULTS.html", "--dump-dom")
    assert console(done) == []
    results = json.loads((recipe.path / "exp/results.json").read_text())["results"]
    wer = next(r["value"] for r in results if r["metric"] == "wer")
    for said in ("ASR on various test sets", "MT on test, xx→en", "ST on test, en→xx"):
        assert said in done.stdout, said
    assert f"<b>{wer:.1f}</b>" in done.stdout
    # The ten worst of twelve utterances of each of 13 jobs; twenty cards are shown at first.
    assert "130 of 130 examples, 20 shown" in done.stdout
    assert done.stdout.count("<article>") == 20 and done.stdout.count("data:audio/mpeg") >= 12
    assert "<del>" in done.stdout
    tables = (recipe.path / "exp/tables.md").read_text()
    assert f"| SpireFull | {wer:.1f} [" in tables
    assert r"\toprule" in (recipe.path / "exp/tables.tex").read_text()


def test_data_directories_are_valid_and_tests_unseen(recipe):
    sets = ("train_cpt", "train_it", "train_st", "dev", "test")
    texts, speakers = {}, {}
    for name in sets:
        validate_data_dir(recipe.path / "dump/raw" / name)
        texts[name] = set(read_table(recipe.path / f"data/{name}/text").values())
        speakers[name] = set(read_table(recipe.path / f"data/{name}/utt2spk").values())
    training = texts["train_cpt"] | texts["train_it"] | texts["train_st"]
    assert not training & texts["test"] and not training & texts["dev"]
    trained = speakers["train_cpt"] | speakers["train_it"] | speakers["train_st"]
    assert len(trained) >= 10 and len(speakers["test"]) == 2 and not trained & speakers["test"]
    rows = load_from_disk(str(recipe.path / "dump/it_spirefull/dataset"))
    tokenizer = AutoTokenizer.from_pretrained(recipe.path / "exp/standin_tower_small_km100")
    for text in tokenizer.batch_decode([row["input_ids"] for row in rows]):
        assert not any(sentence in text for sentence in texts["test"])


def test_the_model_is_an_ordinary_directory(recipe):
    directory = recipe.path / "exp/spire_it_spirefull_mini/hf"
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    first = json.loads((directory / "spire.json").read_text())["first_unit_id"]
    key, line = next(iter(read_table(recipe.path / f"dump/raw/test/{UNITS}").items()))
    units = "".join(chr(0xF0000 + int(u)) for u in line.split())
    prompt = [{"role": "user", "content": f"Speech: {units}\nEnglish:"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")
    ids = ids["input_ids"] if not hasattr(ids, "shape") else ids
    assert [i - first for i in ids[0].tolist() if i >= first and i < first + 100] == [
        int(u) for u in line.split()
    ]
    answer = model.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(answer, skip_special_tokens=True)
    decoded = read_table(recipe.path / f"{DECODED}/asr.en-en/text", allow_empty_value=True)
    assert " ".join(text.split()) == decoded[key]


def test_finished_stages_do_nothing(recipe):
    watched = [path for path in (recipe.path / "dump").rglob("*") if path.is_file()] + list(
        (recipe.path / "exp").rglob("*.safetensors")
    )
    before = {path: path.stat().st_mtime_ns for path in watched}
    done = recipe.run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path: path.stat().st_mtime_ns for path in watched} == before
    steps = [line for line in done.stdout.splitlines() if line.startswith("  ") and ":" in line]
    ran = [s for s in steps if s[2:3].isdigit() and "up to date" not in s]
    assert not ran


def test_units_as_subwords(recipe):
    options = ("--stage", "4", "--stop_stage", "5", "--unit_bpe", "300")
    done = recipe.run(*options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 units: up to date" in done.stdout and "4 learn unit BPE" in done.stdout
    again = recipe.run(*options).stdout
    for step in ("4 learn unit BPE", "4 apply unit BPE", "5 vocabulary"):
        assert f"{step}: up to date" in again
    bpe = load_unit_bpe(recipe.path / "exp/kmeans/standin_hubert_small_2_100clusters_bpe300")
    extended = recipe.path / "exp/standin_tower_small_km100_bpe300"
    described = json.loads((extended / "spire.json").read_text())
    assert described["codebook"]["num_clusters"] == described["unit_bpe"]["num_units"] == 100
    assert described["unit_bpe"]["vocab_size"] == described["num_units"] == 300
    first = described["first_unit_id"]
    tokenizer = AutoTokenizer.from_pretrained(extended)
    for name in ("train_cpt", "dev", "test"):
        plain = read_table(recipe.path / f"dump/raw/{name}/{UNITS}")
        shorter = read_table(recipe.path / f"dump/raw/{name}/{UNITS}_bpe300")
        assert list(shorter) == list(plain)
        assert (recipe.path / f"dump/raw/{name}/{UNITS}_bpe300.rejected.tsv").read_text() == ""
        numbers = {key: [int(n) for n in line.split()] for key, line in shorter.items()}
        for key, line in plain.items():
            assert " ".join(map(str, bpe.decode(numbers[key]))) == line
        assert sum(map(len, numbers.values())) < sum(len(v.split()) for v in plain.values())
    # numbers of merged pieces are words of the model like any unit
    prompt = "".join(chr(0xF0000 + n) for n in numbers[key])
    ids = tokenizer(f"Speech: {prompt}\n", add_special_tokens=False).input_ids
    assert max(numbers[key]) >= 100
    assert [i - first for i in ids if i >= first] == numbers[key]


def test_a_killed_stage_goes_on_to_the_same_result(recipe):
    files = [
        recipe.path / f"dump/raw/{name}/{UNITS}"
        for name in ("train_cpt", "train_it", "train_st", "dev", "test")
    ]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    process = subprocess.Popen(
        recipe.command("--stage", "4", "--stop_stage", "4"),
        cwd=recipe.path,
        env=recipe.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # As soon as one shard of one set is there, everything is killed.
    deadline = time.monotonic() + 120
    while not list((recipe.path / "dump/raw").glob(f"*/.{UNITS}.*-of-2")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(path.exists() for path in files)
    done = recipe.run("--stage", "4", "--stop_stage", "4")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.read_bytes() for path in files] == before
    assert not list((recipe.path / "dump/raw").glob("*/.text*"))


def test_a_variant_shares_what_it_can(recipe):
    done = recipe.run("--variant", "spirenopseudo")
    assert done.returncode == 0, done.stderr[-2000:]
    shared = ("1 data", "2 format", "3 k-means", "4 units", "5 vocabulary", "8 CPT")
    for step in shared:
        assert f"{step}: up to date" in done.stdout
    report = json.loads((recipe.path / "dump/it_spirenopseudo/report.json").read_text())
    names = {source["source"] for source in report["sources"]}
    assert "gold_st" in names and not any("pseudo" in n or "multi" in n for n in names)
    page = (recipe.path / "RESULTS.md").read_text()
    assert "SpireNoPseudo" in page and "SpireFull" in page
    shutil.rmtree(recipe.path / "exp/spire_it_spirenopseudo_mini")
