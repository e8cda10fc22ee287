import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_spire.bin import score as bin_score
from espnet_spire.score.files import Job, jobs_of, read_entries, score_job
from espnet_spire.score.metrics import METRICS, TASK_METRICS, Settings, metrics_of
from espnet_spire.text.jobs import TASKS
from espnet_spire.utils.errors import SpireError

REF = "a The cat sat.\nb hello there my friend\nc [noise]\nd x y\n"
HYP = "a the cat sat down\nb hello their friend\nc\n"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def asr_job(tmp_path, ref=REF, hyp=HYP, **more):
    return Job(
        "asr",
        put(tmp_path / "ref", ref),
        put(tmp_path / "hyp", hyp),
        "en",
        tmp_path / "out",
        **more,
    )


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def no_spm(tmp_path, monkeypatch):
    """Whatever lies in the home directory."""
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path / "sacrebleu"))


def test_asr_directory(tmp_path, caplog):
    scores = score_job(asr_job(tmp_path))
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["score_cer", "score_wer"]
    assert sorted(p.name for p in (out / "score_wer").iterdir()) == [
        "alignment.txt",
        "hyp.trn",
        "ref.trn",
        "result.txt",
        "score.json",
        "utterances.jsonl",
    ]
    wer = read(out / "score_wer/score.json")
    # sat +1, there->their, my deleted, x and y deleted; 9 reference words
    assert wer["scores"][0]["value"] == pytest.approx(100 * 5 / 9)
    assert wer["scores"][0]["value"] == scores[0].value
    assert wer["missing_hypotheses"] == {"count": 1, "first": ["d"]}
    bounds = wer["scores"][0]["interval"]
    assert (bounds["level"], bounds["resamples"], bounds["seed"]) == (0.95, 1000, 12345)
    assert bounds["signature"].startswith("nrefs:1|bs:1000|seed:12345|norm:whisper-english@")
    assert bounds["low"] < scores[0].value < bounds["high"]
    entries = read_entries(out / "score_wer/utterances.jsonl")
    assert entries[1] == {
        "utterance": "b",
        "reference": "hello there my friend",
        "hypothesis": "hello their friend",
        "scores": {"wer": 50.0},
        "statistics": {"wer": [2, 1, 1, 0]},
        "compared": {"reference": "hello there my friend", "hypothesis": "hello their friend"},
        "alignment": [["=", 0, 1, 0, 1], ["S", 1, 2, 1, 2], ["D", 2, 3, 2, 2], ["=", 3, 4, 2, 3]],
    }
    assert [e["scores"]["wer"] for e in entries] == [pytest.approx(100 / 3), 50, None, 100]
    assert entries[0]["reference"] == "The cat sat."
    assert entries[0]["compared"]["reference"] == "the cat sat"
    assert (out / "score_wer/ref.trn").read_text() == (
        "the cat sat\t(a)\nhello there my friend\t(b)\n\t(c)\nx y\t(d)\n"
    )
    assert (out / "score_cer/ref.trn").read_text().splitlines()[3] == "x <space> y\t(d)"
    assert "1 of 4 hypotheses are missing and count as empty (d)" in caplog.text
    text = (out / "score_wer/result.txt").read_text(encoding="utf-8")
    assert f"WER 55.56 [{bounds['low']:.2f}, {bounds['high']:.2f}] over 4 utterances" in text
    assert "REF: hello there my friend\nHYP: hello their ** friend" in text
    assert "CER" in (out / "score_cer/result.txt").read_text(encoding="utf-8")


def test_every_utterance_is_aligned_worst_first(tmp_path):
    score_job(asr_job(tmp_path))
    text = (tmp_path / "out/score_wer/alignment.txt").read_text(encoding="utf-8")
    assert [line.split(":")[0] for line in text.splitlines()[1:] if ": " in line][::1] == [
        *("b", "REF", "HYP", "d", "REF", "HYP", "a", "REF", "HYP", "c"),
    ]
    assert "a: 0 S, 0 D, 1 I\nREF: the cat sat ****\nHYP: the cat sat down\n" in text


def test_perfect_recognition_shows_no_worst(tmp_path):
    score_job(asr_job(tmp_path, hyp=REF))
    text = (tmp_path / "out/score_wer/result.txt").read_text()
    assert "WER 0.00" in text
    assert "worst" not in text


def test_translation_directory(tmp_path):
    job = Job(
        "st_cascade",
        put(tmp_path / "ref", "a die Katze saß\nb hallo du mein Freund\n"),
        put(tmp_path / "hyp", "a die Katze saß\nb hallo du mein Feind\n"),
        "de",
        tmp_path / "out",
        src=put(tmp_path / "src", "a the cat sat\nb hello you my friend\n"),
    )
    scores = score_job(job)
    out = tmp_path / "out/score_bleu"
    assert sorted(p.name for p in out.iterdir()) == [
        "hyp.trn",
        "ref.trn",
        "result.tc.txt",
        "result.txt",
        "score.json",
        "utterances.jsonl",
    ]
    result = read(out / "score.json")
    assert [s["metric"] for s in result["scores"]] == ["bleu", "chrf"]
    assert [s["value"] for s in result["scores"]] == [s.value for s in scores]
    # 7 tokens of which 6; 5 bigrams of which 4; 3 trigrams of which 2; 1 four-gram, wrong
    assert result["scores"][0]["counts"]["ngrams_correct"] == [6, 4, 2, 0]
    assert (out / "ref.trn").read_text(encoding="utf-8").startswith("die Katze saß\t(a)\n")
    entries = read_entries(out / "utterances.jsonl")
    assert entries[0]["source"] == "the cat sat"
    assert entries[0]["scores"] == {"bleu": 100.0, "chrf": 100.0}
    assert [sum(e["statistics"]["bleu"][i] for e in entries) for i in (0, 2, 9)] == [7, 6, 1]
    text = (out / "result.txt").read_text(encoding="utf-8")
    assert "SRC: hello you my friend\nREF: hallo du mein Freund\nHYP: hallo du mein Feind" in text
    assert "die Katze" not in text


@pytest.mark.parametrize(
    "ref, hyp, message",
    [
        (REF, "a x\nz y\n", r"hyp: 1 of 2 keys are not in .*ref \(z\)"),
        (REF, "", "hyp: there is no hypothesis"),
        ("", HYP, "ref: there is no reference"),
        ("a uh\n", "a b\n", "ref: all 1 references are empty"),
        ("b x\na y\n", HYP, "ref, line 2: key a comes after b"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, ref, hyp, message):
    with pytest.raises(SpireError, match=message) as caught:
        score_job(asr_job(tmp_path, ref, hyp))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_earlier_scores_survive_an_error(tmp_path):
    score_job(asr_job(tmp_path))
    before = (tmp_path / "out/score_wer/score.json").read_bytes()
    with pytest.raises(SpireError):
        score_job(asr_job(tmp_path, hyp="z y\n"))
    assert (tmp_path / "out/score_wer/score.json").read_bytes() == before
    score_job(asr_job(tmp_path, hyp=REF))
    assert (tmp_path / "out/score_wer/score.json").read_bytes() != before
    assert sorted(os.listdir(tmp_path / "out")) == ["score_cer", "score_wer"]


def test_many_missing_are_cut_short(tmp_path, caplog):
    ref = "".join(f"u{i:02} w\n" for i in range(20))
    score_job(asr_job(tmp_path, ref, "u00 w\n"))
    assert "19 of 20 hypotheses are missing" in caplog.text
    assert "(u01, u02, u03, u04, u05, …)" in caplog.text


@pytest.mark.parametrize("lang", ["zh", "zho"])
def test_chinese_recognition_points_to_cer(tmp_path, caplog, lang):
    job = Job(
        "asr",
        put(tmp_path / "r", "a 你好\n"),
        put(tmp_path / "h", "a 你们\n"),
        lang,
        tmp_path / "o",
    )
    wer, cer = score_job(job)
    assert (wer.value, cer.value) == (100, 50)
    assert "read CER" in caplog.text


def test_unknown_task_and_language(tmp_path):
    job = asr_job(tmp_path)
    with pytest.raises(SpireError, match="task 'tts' is unknown"):
        score_job(Job("tts", job.ref, job.hyp, "en", job.out))
    with pytest.raises(SpireError, match="'English' is not an ISO 639 code"):
        score_job(Job("asr", job.ref, job.hyp, "English", job.out))


@pytest.fixture
def decoded(tmp_path):
    data, decode = tmp_path / "data", tmp_path / "greedy/test"
    put(data / "text", "a the cat sat there now\n")
    put(data / "text.tc.de", "a die Katze saß nun da\n")
    for pair in ("asr.en-en", "mt.de-en"):
        put(decode / pair / "text", (data / "text").read_text(encoding="utf-8"))
    for pair in ("mt.en-de", "st.en-de", "st_cascade.en-de"):
        put(decode / pair / "text", (data / "text.tc.de").read_text(encoding="utf-8"))
    (decode / "logs").mkdir()
    return decode, data


def test_jobs_of_a_decoded_set(decoded):
    decode, data = decoded
    found = {
        job.out.name: (job.task, job.ref.name, job.lang, job.src and job.src.name)
        for job in jobs_of(decode, data)
    }
    assert found == {
        "asr.en-en": ("asr", "text", "en", None),
        "mt.de-en": ("mt", "text", "en", "text.tc.de"),
        "mt.en-de": ("mt", "text.tc.de", "de", "text"),
        "st.en-de": ("st", "text.tc.de", "de", "text"),
        "st_cascade.en-de": ("st_cascade", "text.tc.de", "de", "text"),
    }


def test_speech_of_another_language(tmp_path):
    put(tmp_path / "d/asr.de-de/text", "a x\n")
    put(tmp_path / "d/st.de-en/text", "a x\n")
    (tmp_path / "data").mkdir()
    jobs = jobs_of(tmp_path / "d", tmp_path / "data", speech_lang="de")
    assert [job.ref.name for job in jobs] == ["text", "text.tc.en"]


def test_nothing_decoded(tmp_path, caplog):
    (tmp_path / "d/asr.en-en").mkdir(parents=True)
    with pytest.raises(SpireError, match="decode first"):
        jobs_of(tmp_path / "d", tmp_path)
    assert "decoding not finished" in caplog.text
    with pytest.raises(SpireError, match="no such directory"):
        jobs_of(tmp_path / "nowhere", tmp_path)


def test_command_scores_a_whole_set(decoded, capsys):
    decode, data = decoded
    bin_score.main(["--decode-dir", str(decode), "--data_dir", str(data)])
    assert len(list(decode.glob("*/score_*/score.json"))) == 6
    printed = capsys.readouterr().out
    assert "asr.en-en: WER 0.00" in printed
    assert "st_cascade.en-de: BLEU 100.00" in printed


def test_command_single_file_and_missing_options(tmp_path):
    job = asr_job(tmp_path)
    options = ["--ref", str(job.ref), "--hyp", str(job.hyp), "--lang", "en"]
    with pytest.raises(SpireError, match="--out is missing"):
        bin_score.main(["--task", "asr", *options])
    with pytest.raises(SpireError, match="--data_dir is missing"):
        bin_score.main(["--decode_dir", str(tmp_path)])
    with pytest.raises(SpireError, match="--task does not go with --decode_dir"):
        both = ["--decode_dir", str(tmp_path), "--data_dir", str(tmp_path)]
        bin_score.main([*both, "--task", "asr"])
    bin_score.main(["--task", "asr", *options, "--out", str(job.out)])
    assert (job.out / "score_wer/result.txt").exists()


def test_command_line_error_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "espnet_spire.bin.score", "--task", "asr", "--ref", "nowhere"]
        + ["--hyp", "nothing", "--lang", "en", "--out", str(tmp_path / "o")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nowhere: no such file\n"


def test_entry_points_import_nothing_heavy():
    code = (
        "import sys, espnet_spire.bin.score, espnet_spire.bin.report; "
        "print([m for m in ('torch', 'transformers', 'espnet2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home()
    )
    assert done.stdout.strip() == "[]"


def mt_job(tmp_path, ref, hyp, src=None, task="mt", lang="de"):
    paths = [put(tmp_path / name, text) for name, text in (("ref", ref), ("hyp", hyp)) if text]
    return Job(task, *paths, lang, tmp_path / "out", put(tmp_path / "src", src) if src else None)


def test_what_has_no_reference_is_left_out_and_said(tmp_path, caplog):
    """Speech that is translated in part: text.tc.de has not all utterances."""
    ref = "a eins zwei drei vier\nc fünf sechs sieben acht\n"
    hyp = "a eins zwei drei vier\nb weg\nc fünf sechs sieben acht\nd fort\n"
    scores = score_job(mt_job(tmp_path, ref, hyp, task="st"))
    assert [score.value for score in scores] == [100, 100]
    result = read(tmp_path / "out/score_bleu/score.json")
    assert result["left_out"] == {
        "no_reference": {"count": 2, "first": ["b", "d"]},
        "no_source": {"count": 0, "first": []},
    }
    assert result["scores"][0]["utterances"] == 2
    assert "2 of 4 hypotheses have no reference in" in caplog.text
    assert "2 utterances left out, no reference: b, d" in (
        tmp_path / "out/score_bleu/result.txt"
    ).read_text(encoding="utf-8")
    with pytest.raises(SpireError, match="2 of 2 keys are not in .*ref"):
        score_job(mt_job(tmp_path, ref, "x a\ny b\n", task="st"))


def test_what_has_no_source_is_left_out_and_said(tmp_path, caplog):
    ref, src = "a eins zwei\nb drei vier\nc fünf\n", "b three four\n"
    score_job(mt_job(tmp_path, ref, "b drei vier\n", src))
    result = read(tmp_path / "out/score_bleu/score.json")
    assert result["left_out"]["no_source"] == {"count": 2, "first": ["a", "c"]}
    assert result["missing_hypotheses"]["count"] == 0
    assert "2 of 3 references have no text in" in caplog.text


def test_windows_lines_and_odd_characters(tmp_path):
    ref = "a\u0301 stra\u00dfe\u200b \u3000 x\r\nb\r\nc \u2028 y \uff15\r\n"
    score_job(mt_job(tmp_path, ref, "a\u0301 stra\u00dfe\u200b \u3000 x\nb\nc \u2028 y \uff15\n"))
    entries = read_entries(tmp_path / "out/score_bleu/utterances.jsonl")
    assert [e["utterance"] for e in entries] == ["a\u0301", "b", "c"]
    assert [e["reference"] for e in entries] == [e["hypothesis"] for e in entries]
    assert entries[0]["reference"] == "stra\u00dfe\u200b \u3000 x"
    assert entries[1]["scores"] == {"bleu": 0.0, "chrf": 0.0}
    # one line an utterance, for whatever splits lines at "\n"
    lines = (tmp_path / "out/score_bleu/utterances.jsonl").read_text("utf-8").split("\n")
    assert len(lines) == 4 and lines[3] == ""


def test_asked_for_later_and_the_rest_stays(tmp_path):
    job = mt_job(tmp_path, "a eins zwei\nb drei vier\n", "a eins zwo\nb drei vier\n")
    score_job(job)
    before = read(tmp_path / "out/score_bleu/score.json")
    (new,) = score_job(job, Settings(metrics=["ter"]))
    after = read(tmp_path / "out/score_bleu/score.json")
    assert [score["metric"] for score in after["scores"]] == ["bleu", "chrf", "ter"]
    assert after["scores"][:2] == before["scores"]
    assert after["scores"][2]["value"] == new.value == 25
    (entry, _) = read_entries(tmp_path / "out/score_bleu/utterances.jsonl")
    assert list(entry["scores"]) == list(entry["statistics"]) == ["bleu", "chrf", "ter"]
    # but not when the texts have changed
    put(job.hyp, "a eins zwei\nb drei vier\n")
    score_job(job, Settings(metrics=["ter"]))
    after = read(tmp_path / "out/score_bleu/score.json")
    assert [score["metric"] for score in after["scores"]] == ["ter"]
    # nor from a file that is none
    put(tmp_path / "out/score_bleu/utterances.jsonl", "{}\n")
    score_job(job)
    after = read(tmp_path / "out/score_bleu/score.json")
    assert [score["metric"] for score in after["scores"]] == ["bleu", "chrf"]


def test_broken_utterances_are_named(tmp_path):
    score_job(mt_job(tmp_path, "a b\n", "a b\n"))
    path = tmp_path / "out/score_bleu/utterances.jsonl"
    path.write_text(path.read_text() + '{"utterance": 1}\n')
    with pytest.raises(SpireError, match="utterances.jsonl, line 2: no line of a score"):
        read_entries(path)
    with pytest.raises(SpireError, match="none.jsonl: no such file"):
        read_entries(tmp_path / "none.jsonl")


def test_metrics_of_tasks():
    assert set(TASKS) <= set(TASK_METRICS)
    for task, (possible, usual) in TASK_METRICS.items():
        assert set(usual) <= set(possible) <= set(METRICS), task
    names, left_out = metrics_of("st", Settings())
    assert names == ["bleu", "chrf"]
    assert len(left_out) == 1 and left_out[0].startswith("left out: spBLEU needs")
    assert metrics_of("ape", Settings()) == (["bleu", "ter"], [])
    assert metrics_of("ner", Settings()) == (["f1"], [])
    asked = Settings(metrics=["wer", "comet22", "chrf++", "spbleu"])
    assert metrics_of("mt", asked) == (["spbleu", "chrf++", "comet22"], [])
    assert metrics_of("asr", asked) == (["wer"], [])
    both = metrics_of("mt", Settings(metrics=["default", "ter"]))
    assert both == (["bleu", "chrf", "ter"], left_out)
    with pytest.raises(SpireError, match="metric 'blue' is unknown"):
        metrics_of("mt", Settings(metrics=["blue"]))


def test_what_was_asked_for_is_never_left_out(decoded, capsys, caplog):
    decode, data = decoded
    options = ["--decode_dir", str(decode), "--data_dir", str(data)]
    with pytest.raises(SpireError, match="spBLEU needs FLORES-200's SentencePiece model"):
        bin_score.main([*options, "--metrics", "default", "spbleu"])
    assert not list(decode.glob("*/score_*")), "before anything is scored"
    bin_score.main([*options, "--metrics", "ter"])
    assert len(list(decode.glob("*/score_bleu/score.json"))) == 4
    assert "asr.en-en: no metric of those asked for is one of asr" in caplog.text
    with pytest.raises(SpireError, match="--metrics f1: nothing is scored by these"):
        bin_score.main([*options, "--metrics", "f1"])
    with pytest.raises(SpireError, match="--resamples 0: at least 1"):
        bin_score.main([*options, "--resamples", "0"])
    caplog.clear()
    capsys.readouterr()
    bin_score.main([*options, "--resamples", "50", "--seed", "1"])
    assert caplog.text.count("left out: spBLEU needs") == 1
    score = read(decode / "mt.en-de/score_bleu/score.json")["scores"][0]
    assert score["interval"]["signature"].startswith("nrefs:1|bs:50|seed:1|case:mixed|")
    assert "mt.en-de: BLEU 100.00 [100.00, 100.00]\n" in capsys.readouterr().out


def test_named_entities_and_post_editing(tmp_path, capsys):
    data, decode = tmp_path / "data", tmp_path / "d"
    put(data / "text.tags.de", "a B-Person O\nb O B-Location\n")
    put(data / "text.tokens.de", 'a ["Anna", "lebt"]\nb ["in", "Bonn"]\n')
    put(data / "text.tc.en", "a Anna lives\nb in Bonn\n")
    put(data / "text.tc.de", "a Anna lebt\nb in Bonn\n")
    answers = 'a [("Anna", "B-Person"), ("lebt", "O")]\nb [("in", "O"), ("Bonn", "B-Group")]\n'
    put(decode / "ner.de-de/text", answers)
    put(decode / "ape.en-de/text", "a Anna lebte\nb in Bonn\n")
    bin_score.main(["--decode_dir", str(decode), "--data_dir", str(data)])
    printed = capsys.readouterr().out
    assert "ner.de-de: F1 50.00 [0.00, 100.00]" in printed
    assert "ape.en-de: TER 25.00 [0.00, 50.00]" in printed
    f1 = read(decode / "ner.de-de/score_f1/score.json")["scores"][0]
    assert f1["counts"]["f1_by_type"]["Person"] == 100
    (first, second) = read_entries(decode / "ner.de-de/score_f1/utterances.jsonl")
    assert (first["source"], first["scores"]) == ('["Anna", "lebt"]', {"f1": 100.0})
    text = (decode / "ner.de-de/score_f1/result.txt").read_text(encoding="utf-8")
    assert "The worst 1 of 2 utterances\n\nb: F1 0.0\nSRC:" in text
    (first, _) = read_entries(decode / "ape.en-de/score_bleu/utterances.jsonl")
    assert first["source"] == "Anna lives" and first["scores"]["ter"] == 50
