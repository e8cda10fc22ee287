import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_spire.bin import score as bin_score
from espnet_spire.score.files import Job, jobs_of, render, score_job
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


def test_asr_directory(tmp_path, caplog):
    scores = score_job(asr_job(tmp_path))
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["score_cer", "score_wer"]
    wer = json.loads((out / "score_wer/score.json").read_text(encoding="utf-8"))
    # sat +1, there->their, my deleted, x and y deleted; 9 reference words
    assert wer["scores"][0]["value"] == pytest.approx(100 * 5 / 9)
    assert wer["scores"][0]["value"] == scores[0].value
    assert wer["missing_hypotheses"] == {"count": 1, "first": ["d"]}
    assert wer["per_utterance"][3] == {
        "utterance": "d",
        "reference": "x y",
        "hypothesis": "",
        "hits": 0,
        "substitutions": 0,
        "deletions": 2,
        "insertions": 0,
    }
    assert (out / "score_wer/ref.trn").read_text() == (
        "the cat sat\t(a)\nhello there my friend\t(b)\n\t(c)\nx y\t(d)\n"
    )
    assert (out / "score_cer/ref.trn").read_text().splitlines()[3] == "x <space> y\t(d)"
    assert "1 of 4 hypotheses are missing and count as empty (d)" in caplog.text
    text = (out / "score_wer/result.txt").read_text(encoding="utf-8")
    assert text == render(wer)
    assert "WER 55.56 over 4 utterances" in text
    assert "REF: hello there my friend\nHYP: hello their ** friend" in text
    assert "CER" in (out / "score_cer/result.txt").read_text(encoding="utf-8")


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
        "result.txt",
        "score.json",
    ]
    result = json.loads((out / "score.json").read_text(encoding="utf-8"))
    assert [s["metric"] for s in result["scores"]] == ["bleu", "chrf"]
    assert [s["value"] for s in result["scores"]] == [s.value for s in scores]
    # 7 tokens of which 6; 5 bigrams of which 4; 3 trigrams of which 2; 1 four-gram, wrong
    assert result["scores"][0]["counts"]["ngrams_correct"] == [6, 4, 2, 0]
    assert (out / "ref.trn").read_text(encoding="utf-8").startswith("die Katze saß\t(a)\n")
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
