import json
import random
import re
import subprocess
import sys

import pytest

from espnet_spire.bin import compare as bin_compare
from espnet_spire.bin import score as bin_score
from espnet_spire.score.compare import compare_scores, find_scores
from espnet_spire.utils.errors import SpireError

WORDS = [one + other + "x" for one in "bcdfgklm" for other in "aeiou"]
HOW = {"test": "bootstrap", "seed": 12345, "resamples": 200, "trials": 200}


def put(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"u{i:03} {line}\n" for i, line in enumerate(lines)), encoding="utf-8")
    return path


def corrupted(lines, share, seed):
    rng = random.Random(seed)
    return [
        " ".join(w if rng.random() > share else rng.choice(WORDS) for w in line.split())
        for line in lines
    ]


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Two systems on one set: directories that were scored, and what the files say."""
    root = tmp_path_factory.mktemp("systems")
    rng = random.Random(0)
    refs = [" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) for _ in range(120)]
    sides = {"a": corrupted(refs, 0.31, 1), "b": corrupted(refs, 0.24, 2)}
    put(root / "data/text", refs)
    put(root / "data/text.tc.de", refs)
    for name, lines in sides.items():
        put(root / name / "test/asr.en-en/text", lines)
        put(root / name / "test/st.en-de/text", lines)
        options = ["--decode_dir", str(root / name / "test"), "--data_dir", str(root / "data")]
        bin_score.main([*options, "--metrics", "wer", "bleu", "chrf", "--resamples", "100"])
    for name, lines in {"ref": refs, **sides}.items():
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


@pytest.mark.parametrize("test, option", [("bootstrap", "bs"), ("randomisation", "ar")])
def test_the_command_agrees_with_sacrebleus(systems, tmp_path, capsys, test, option):
    # (its JSON cannot hold what it computes in float32)
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "ref.txt", "-i", "a.txt", "b.txt", "-m", "bleu", "chrf"]
        + [f"--paired-{option}", f"--paired-{option}-n", "400", "-f", "latex", "-w", "7"],
        cwd=systems,
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = (line for line in done.stdout.splitlines() if line.strip().startswith("b.txt"))
    expected = [re.findall(r"[0-9.]+[0-9]", cell) for cell in row.split("&")[1:]]
    found = tmp_path / "found.json"
    bin_compare.main(
        [str(systems / "a"), str(systems / "b"), "--test", test, "--resamples", "400"]
        + ["--trials", "400", "--json", str(found), "--metrics", "bleu", "chrf"]
    )
    written = json.loads(found.read_text())
    bleu, chrf = written["comparisons"]
    for ours, (score, *_, p) in zip((bleu, chrf), expected, strict=True):
        assert (f"{ours['b']:.7f}", f"{ours['p']:.4f}") == (score, p)
        assert 1 / 401 < ours["p"] < 0.05
        assert ours["job"] == "test/st.en-de" and ours["better"] == "B"
        assert ours["utterances"] == 120
        assert ours["low"] < ours["delta"] < ours["high"]
    assert written["test"] == test
    table = capsys.readouterr().out
    assert f"{bleu['p']:.4f}" in table and f"{bleu['delta']:+.2f}" in table
    assert "|seed:12345|case:mixed|" in table


def test_all_that_both_have(systems, capsys):
    a, b = systems / "a", systems / "b"
    found = compare_scores(find_scores(a), find_scores(b), **HOW)
    assert [(c.job, c.metric) for c in found] == [
        ("test/asr.en-en", "wer"),
        ("test/st.en-de", "bleu"),
        ("test/st.en-de", "chrf"),
    ]
    wer = found[0].difference
    assert wer.delta < 0 and found[0].better == "B"
    (job,) = compare_scores(
        find_scores(a / "test/asr.en-en"), find_scores(b / "test/asr.en-en"), **HOW
    )
    assert (job.job, job.difference) == (".", wer)
    (same,) = compare_scores(find_scores(a), find_scores(a), metrics=["wer"], **HOW)
    assert (same.difference.p, same.better) == (1, "-")


def test_files_of_hypotheses(systems, tmp_path, capsys):
    words = [str(systems / name / "test/st.en-de/text") for name in ("a", "b")]
    options = ["--task", "st", "--lang", "de", "--metrics", "bleu", "--json", str(tmp_path / "j")]
    bin_compare.main([*words, *options, "--ref", str(systems / "data/text.tc.de")])
    (files,) = json.loads((tmp_path / "j").read_text())["comparisons"]
    directories = [str(systems / name) for name in ("a", "b")]
    bin_compare.main([*directories, "--metrics", "bleu", "--json", str(tmp_path / "k")])
    (scored,) = json.loads((tmp_path / "k").read_text())["comparisons"]
    assert files == {**scored, "job": "st"}
    with pytest.raises(SpireError, match="--ref is missing: A and B are files"):
        bin_compare.main([*words, *options])
    with pytest.raises(SpireError, match="--task is for two files"):
        bin_compare.main([*directories, *options])
    with pytest.raises(SpireError, match="--metrics wer: none is one of st"):
        ref = str(systems / "data/text.tc.de")
        bin_compare.main([*words, "--task", "st", "--lang", "de", "--ref", ref, "--metrics", "wer"])


def test_what_cannot_be_compared(systems, tmp_path, caplog):
    a = systems / "a/test/st.en-de"

    def scored(name, refs, hyps, *options):
        ref, hyp = put(tmp_path / name / "ref", refs), put(tmp_path / name / "text", hyps)
        bin_score.main(
            ["--task", "st", "--lang", "de", "--ref", str(ref), "--hyp", str(hyp)]
            + ["--out", str(tmp_path / name), "--metrics", *(options or ["bleu"])]
        )
        return find_scores(tmp_path / name)

    lines = (systems / "ref.txt").read_text().splitlines()
    first = find_scores(a)
    with pytest.raises(
        SpireError, match="bleu: A and B are not of the same utterances .120 and 9;"
    ):
        compare_scores(first, scored("few", lines[:9], lines[:9]), **HOW)
    with pytest.raises(SpireError, match="bleu: the references of u000 differ in .*st.en-de"):
        compare_scores(first, scored("other", ["x", *lines[1:]], lines), **HOW)
    caplog.clear()
    with pytest.raises(SpireError, match="A and B have no score in common; score both"):
        compare_scores(first, scored("ter", lines[:9], lines[:9], "ter"), **HOW)
    assert ".: only B has ter; left out" in caplog.text
    second = scored("same", lines, lines)
    changed = {".": {"bleu": second["."]["bleu"]._replace(signature="nrefs:1|tok:intl")}}
    with pytest.raises(SpireError, match="A was scored with nrefs:1|.*B with nrefs:1|tok:intl"):
        compare_scores(first, changed, **HOW)
    with pytest.raises(SpireError, match="metric 'blue' is unknown"):
        compare_scores(first, second, metrics=["blue"], **HOW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpireError, match="empty: no score_.*beneath it; score first"):
        find_scores(tmp_path / "empty")
    with pytest.raises(SpireError, match="gone: no such directory"):
        find_scores(tmp_path / "gone")
    (tmp_path / "same/score_bleu/score.json").write_text('{"scores": [{"metric": "wer"}]}')
    with pytest.raises(SpireError, match="same/score_bleu/score.json: not a score file"):
        find_scores(tmp_path / "same")
