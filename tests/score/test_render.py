"""What ESPnet's own scripts see in our directories.

``show_asr_result.sh`` and ``show_translation_result.sh`` (egs2/TEMPLATE/asr1/scripts/utils) print
tables by grep, sed, tr and cut. The pipelines here do what theirs do, step by step.
"""

import json
import subprocess
import sys

import pytest

from espnet_spire.score.files import Job, score_job
from espnet_spire.score.metrics import Settings

# grep "Avg" with names of files, take the path apart, columns of one kind of separator.
ASR = r"""
set -euo pipefail
ls "${expdir}"/*/*/score_*/result.txt > /dev/null
grep -H -e Avg "${expdir}"/*/*/score_${type}/result.txt \
    | sed -e "s#${expdir}/\([^/]*/[^/]*\)/score_${type}/result.txt:#|\1#g" \
    | sed -e 's#Sum/Avg##g' | tr '|' ' ' | tr -s ' ' '|'
"""
# the fourth part of the path, the third word of line 5, line 7 from its third word on
TRANSLATION = r"""
set -euo pipefail
data=$(echo "${expdir}"/*/*/score_*/result.${case}.txt | cut -d '/' -f4)
bleu=$(sed -n '5p' "${expdir}"/*/*/score_*/result.${case}.txt | cut -d ' ' -f 3 | tr -d ',')
verbose=$(sed -n '7p' "${expdir}"/*/*/score_*/result.${case}.txt | cut -d ' ' -f 3- | tr -d '",')
echo "${data}|${bleu}|${verbose}"
"""


def shell(script, cwd, **variables):
    done = subprocess.run(
        ["bash", "-c", script], cwd=cwd, env={**variables, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def scored(tmp_path):
    """``exp/spire_it/greedy/test/<job>``, scored: the depth at which ESPnet's scripts look."""
    decoded = tmp_path / "exp/spire_it/greedy/test"
    texts = {
        "asr": ("a The cat sat.\nb hello there my friend\nc Average!\nd x y\n",
                "a the cat sat down\nb hello their friend\nc average\n"),
        "st": ("a die Katze saß nun da\nb hallo du mein Freund\n",
               "a die Katze saß nun hier\nb hallo du mein Feind\n"),
    }  # fmt: skip
    for task, (ref, hyp) in texts.items():
        out = decoded / f"{task}.en-{'en' if task == 'asr' else 'de'}"
        out.mkdir(parents=True)
        (out / "ref").write_text(ref, encoding="utf-8")
        (out / "text").write_text(hyp, encoding="utf-8")
        metrics = ["default", "bleu_lc", "ter"]
        job = Job(task, out / "ref", out / "text", out.name[-2:], out)
        score_job(job, Settings(metrics=metrics))
    return tmp_path


def test_show_asr_result(scored):
    # 10 words: 6 right, 1 substituted, 3 deleted; 1 inserted; 3 of 4 sentences have errors
    shown = shell(ASR, scored, expdir="exp/spire_it/greedy", type="wer")
    assert shown.splitlines() == ["|test/asr.en-en|4|10|60.0|10.0|30.0|10.0|50.0|75.0|"]
    shown = shell(ASR, scored, expdir="exp/spire_it/greedy", type="cer")
    (row,) = shown.splitlines()
    # dataset, sentences, characters, corr, sub, del, ins, err, s.err
    assert row.split("|")[:3] == ["", "test/asr.en-en", "4"] and len(row.split("|")) == 11


def test_show_translation_result(scored):
    shown = shell(TRANSLATION, scored, expdir="exp/spire_it/greedy", case="tc")
    out = scored / "exp/spire_it/greedy/test/st.en-de/score_bleu"
    bleu = json.loads((out / "score.json").read_text())["scores"][0]
    assert shown == (
        f"test|{bleu['value']:.1f}|77.8/71.4/60.0/33.3 (BP = 1.000 ratio = 1.000 hyp_len = 9"
        " ref_len = 9)\n"
    )
    shown = shell(TRANSLATION, scored, expdir="exp/spire_it/greedy", case="lc")
    assert shown.startswith(f"test|{bleu['value']:.1f}|77.8/")


def test_result_tc_is_a_heading_and_what_sacrebleu_prints(scored):
    out = scored / "exp/spire_it/greedy/test/st.en-de/score_bleu"
    heading, *lines = (out / "result.tc.txt").read_text().splitlines()
    assert heading == "Case sensitive BLEU (single reference)"
    for name in ("ref", "hyp"):
        text = (out / f"{name}.trn").read_text(encoding="utf-8")
        plain = "".join(line.split("\t")[0] + "\n" for line in text.splitlines())
        (scored / name).write_text(plain, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "ter"],
        cwd=scored, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, theirs = json.loads("\n".join(lines)), json.loads(done.stdout)
    assert [entry["name"] for entry in ours] == ["BLEU", "chrF2", "TER"]
    for our, their in zip(ours, theirs, strict=True):
        assert our.items() <= their.items()
    assert lines[:5] == done.stdout.splitlines()[:5]
