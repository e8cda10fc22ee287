"""COMET-22 and CometKiwi as metrics of ``score``, by the real COMET in its own environment.

Not collected by ``make test``, which has no such environment; the models are tiny and random.
"""

import json
import subprocess
from pathlib import Path

import pytest

from espnet_spire.bin import compare, score
from espnet_spire.score.comet import find_python
from espnet_spire.score.files import read_entries

HERE = Path(__file__).parent
SOURCE = ["the old farmer", "the red door", "my sister paints", "a brown horse"]
REFERENCE = ["der alte Bauer", "die rote Tür", "meine Schwester streicht", "ein braunes Pferd"]
SYSTEMS = {
    "a": ["der alte Bauer", "die rote", "", "老农夫 ein Pferd"],
    "b": ["der Bauer", "die rote Tür", "Schwester", "ein braunes Pferd"],
}


def comets_own(program, *arguments, said=""):
    """Run a program beside this file in COMET's environment."""
    words = [find_python(), str(HERE / program), *map(str, arguments)]
    done = subprocess.run(words, input=said, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    comets_own("tiny_comet22.py", "make", root / "comet22")
    comets_own("tiny_kiwi.py", "make", root / "cometkiwi")
    return root


def put(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"u{i} {line}\n" for i, line in enumerate(lines)), encoding="utf-8")
    return str(path)


def test_scores_are_comets_own(models, tmp_path, capsys):
    ref, src = put(tmp_path / "ref", REFERENCE), put(tmp_path / "src", SOURCE)
    for name, lines in SYSTEMS.items():
        score.main(
            ["--task", "st", "--lang", "de", "--ref", ref, "--src", src]
            + ["--hyp", put(tmp_path / name / "text", lines), "--out", str(tmp_path / name)]
            + ["--metrics", "comet22", "cometkiwi", "--comet_models"]
            + [f"{kind}={models / kind}" for kind in ("comet22", "cometkiwi")]
        )
        samples = [
            {"src": s, "mt": h, "ref": r} for s, h, r in zip(SOURCE, lines, REFERENCE, strict=True)
        ]
        entries = read_entries(tmp_path / name / "score_comet/utterances.jsonl")
        result = json.loads((tmp_path / name / "score_comet/score.json").read_text())
        for number, (kind, program) in enumerate(
            [("comet22", "tiny_comet22.py"), ("cometkiwi", "tiny_kiwi.py")]
        ):
            own = json.loads(comets_own(program, "score", models / kind, said=json.dumps(samples)))
            found = [entry["statistics"][kind][0] for entry in entries]
            assert found == pytest.approx(own, abs=1e-6)
            assert len(set(own)) == 4
            value = result["scores"][number]["value"]
            assert value == pytest.approx(100 * sum(own) / 4, abs=1e-4)
    capsys.readouterr()
    compare.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "COMET-22" in capsys.readouterr().out
