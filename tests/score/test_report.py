import json
import re

import pytest

from espnet_spire.bin import report as bin_report
from espnet_spire.score import report
from espnet_spire.score.report import Result, Target, ablate, check_target, orders
from espnet_spire.utils.errors import SpireError


def result(variant, task, pair, metric, value, **more):
    src, tgt = pair.split("-")
    known = {"set": "test", "tag": "k", "inference": "greedy"}
    return Result(
        variant=variant, task=task, src=src, tgt=tgt, metric=metric, value=value,
        signature=f"sig-{metric}", **{**known, **more},
    )  # fmt: skip


def put_score(exp, directory, pair, score_dir, **values):
    path = exp / directory / pair / score_dir / "score.json"
    path.parent.mkdir(parents=True)
    scores = [{"metric": m, "value": v, "signature": f"a|b:{m}"} for m, v in values.items()]
    path.write_text(json.dumps({"scores": scores}), encoding="utf-8")
    return path


@pytest.fixture
def exp(tmp_path):
    exp = tmp_path / "exp"
    full, base = "spire_it_spirefull_mini_1/greedy/test", "spire_cpt_mini_1/greedy/test"
    put_score(exp, full, "asr.en-en", "score_wer", wer=4.25)
    put_score(exp, full, "asr.en-en", "score_cer", cer=1.5)
    put_score(exp, full, "mt.en-de", "score_bleu", bleu=97.0, chrf=98.0)
    put_score(exp, full, "st.en-de", "score_bleu", bleu=88.0, chrf=90.0)
    put_score(exp, full, "st_cascade.en-de", "score_bleu", bleu=93.0, chrf=95.0)
    put_score(exp, "spire_it_towerfull_mini_1/greedy/test", "asr.en-en", "score_wer", wer=9)
    put_score(exp, base, "asr.en-en", "score_wer", wer=35.0)
    put_score(exp, "spire_it_spirefull_mini_1/.greedy.tmp.7/test", "asr.en-en", "score_wer", wer=1)
    put_score(exp, "spire_other/greedy/test", "asr.en-en", "score_wer", wer=2)
    (exp / ".timing.json").write_text('{"10 it": 50.5, "1 corpus": 9, "8 cpt": 60}')
    (exp / "kmeans").mkdir()
    (exp / "kmeans/use.png").write_bytes(b"")
    (exp / "kmeans/images").mkdir()
    (exp / "kmeans/images/lr.png").write_bytes(b"")
    return exp


def test_collect(exp):
    found = [
        (r.variant, r.tag, r.inference, r.task, r.metric, r.value) for r in report.collect(exp)
    ]
    run = ("mini_1", "greedy")
    assert found == [
        ("spirebase", *run, "asr", "wer", 35.0),
        ("spirefull", *run, "asr", "wer", 4.25),
        ("spirefull", *run, "asr", "cer", 1.5),
        ("spirefull", *run, "mt", "bleu", 97.0),
        ("spirefull", *run, "mt", "chrf", 98.0),
        ("spirefull", *run, "st", "bleu", 88.0),
        ("spirefull", *run, "st", "chrf", 90.0),
        ("spirefull", *run, "st_cascade", "bleu", 93.0),
        ("spirefull", *run, "st_cascade", "chrf", 95.0),
        ("towerfull", *run, "asr", "wer", 9.0),
    ]


def test_collect_errors(tmp_path):
    with pytest.raises(SpireError, match="no such experiment directory"):
        report.collect(tmp_path / "exp")
    with pytest.raises(SpireError, match="no score in it"):
        report.collect(tmp_path)
    path = put_score(tmp_path, "spire_it_spirefull_k/g/test", "asr.en-en", "score_wer", wer=1)
    for broken, message in (("{", "not valid JSON"), ('{"a": 1}', "not a score file")):
        path.write_text(broken)
        with pytest.raises(SpireError, match=f"score.json: {message}"):
            report.collect(tmp_path)


def test_seconds_are_in_the_order_of_the_stages(exp, tmp_path):
    assert list(report.read_seconds(exp).items()) == [
        ("1 corpus", 9),
        ("8 cpt", 60),
        ("10 it", 50.5),
    ]
    assert report.read_seconds(tmp_path) == {}
    (exp / ".timing.json").write_text("[1]")
    with pytest.raises(SpireError, match="timing.json"):
        report.read_seconds(exp)


def test_environment():
    import platform
    from importlib.metadata import version

    env = report.environment()
    assert env["python"] == platform.python_version()
    assert env["sacrebleu"] == version("sacrebleu")
    assert env["cores"] >= 1
    assert env["cpu"]
    assert {"platform", "torch", "torchaudio", "espnet", "transformers", "deepspeed"} <= set(env)
    json.dumps(env)


def test_command(exp, tmp_path, capsys):
    targets = tmp_path / "targets.yaml"
    targets.write_text(
        "- {variant: spirefull, task: asr, src: en, tgt: en, metric: wer, at_most: 6}\n"
        "- {variant: spirefull, task: st, src: en, tgt: de, metric: bleu, at_least: 90.5}\n"
        "- {variant: spirefull, task: st, src: en, tgt: fr, metric: bleu, at_least: 90}\n"
    )
    out, json_file = tmp_path / "RESULTS.md", exp / "results.json"
    bin_report.main(
        ["--expdir", str(exp), "--out", str(out), "--results_json", str(json_file)]
        + ["--title", "My mini", "--targets", str(targets)]
    )
    written = json.loads(json_file.read_text(encoding="utf-8"))
    assert set(written) == {"results", "seconds", "environment"}
    assert written["results"][1] == {
        "variant": "spirefull",
        "task": "asr",
        "set": "test",
        "src": "en",
        "tgt": "en",
        "metric": "wer",
        "value": 4.25,
        "signature": "a|b:wer",
        "tag": "mini_1",
        "inference": "greedy",
        "low": None,
        "high": None,
    }
    page = out.read_text(encoding="utf-8")
    assert page.startswith("# My mini\n")
    assert "- SpireFull ASR en WER at most 6: met, 4.25 on test (by 1.75;" in page
    assert "BLEU at least 90.5: MISSED, 88.00 on test (by 2.50;" in page
    assert "en→fr BLEU at least 90: not measured" in page
    assert "| MT | test | en→de | - | - | 97.0 | 98.0 |" in page
    assert "| SpireFull | 4.2 | 97.0 | - | 88.0 | 93.0 |" in page
    assert "| TowerFull | 9.0 | - | - | - | - |" in page
    assert (
        "as in the paper: TowerFull's WER is above SpireFull's (TowerFull 9.0, SpireFull 4.2)"
        in page
    )
    assert "NOT as in the paper" not in page
    assert "- BLEU (de): `a|b:bleu`" in page
    assert "[exp/kmeans/use.png](exp/kmeans/use.png)" in page and "lr.png" not in page
    assert "| total | 119.5 |" in page
    terminal = capsys.readouterr().out
    assert "\x1b" not in terminal
    assert re.search(r"^SpireFull  ASR +test  en +4\.2 +1\.5 +- +-$", terminal, re.M)
    assert "MISSED" in terminal


def test_intervals_are_on_the_page(tmp_path, capsys):
    path = put_score(tmp_path, "spire_it_spirefull_k/g/test", "mt.en-de", "score_bleu", bleu=30.0)
    content = json.loads(path.read_text())
    content["scores"][0]["interval"] = {"low": 28.94, "high": 31.16}
    content["scores"].append({"metric": "ter", "value": 50, "signature": "s"})
    path.write_text(json.dumps(content))
    (bleu, ter) = report.collect(tmp_path)
    assert (bleu.low, bleu.high, ter.low) == (28.94, 31.16, None)
    bin_report.main(["--expdir", str(tmp_path), "--out", str(tmp_path / "R.md")])
    page = (tmp_path / "R.md").read_text(encoding="utf-8")
    assert "| MT | test | en→de | 30.0 [28.9, 31.2] | 50.0 |" in page
    assert "95 % bootstrap intervals over utterances; TER: lower is better." in page
    assert "[28.9" not in capsys.readouterr().out


def test_report_is_the_same_twice(exp, tmp_path):
    pages = []
    for _ in range(2):
        bin_report.main(["--expdir", str(exp), "--out", str(tmp_path / "R.md")])
        pages.append((tmp_path / "R.md").read_bytes())
    assert pages[0] == pages[1]


def test_plain_table_is_aligned():
    table = report.plain_table([["a", "b"], ["xx", "1.0"], ["y", "10.0"]], text_columns=1)
    assert table.splitlines() == ["a      b", "--  ----", "xx   1.0", "y   10.0"]


def test_two_runs_of_a_variant_are_told_apart():
    rows = report.score_rows(
        [result("spirefull", "asr", "en-en", "wer", v, tag=t) for t, v in (("x", 1), ("y", 2))]
    )
    assert [row[0] for row in rows[1:]] == ["SpireFull (x, greedy)", "SpireFull (y, greedy)"]


def full_set(full, tower, blocks, pseudo):
    cells = [
        ("asr", "en-en", "wer"),
        ("mt", "en-de", "bleu"),
        ("mt", "de-en", "bleu"),
        ("st", "en-de", "bleu"),
        ("st_cascade", "en-de", "bleu"),
    ]
    table = {
        "spirefull": full,
        "towerfull": tower,
        "spirenoblocks": blocks,
        "spirenopseudo": pseudo,
    }
    return [
        result(variant, *cell, value)
        for variant, values in table.items()
        for cell, value in zip(cells, values, strict=True)
    ]


def test_orders_as_in_the_paper():
    lines = orders(
        ablate(
            full_set(
                (4, 97, 98, 88, 93), (9, 97, 98, 80, 90), (4, 50, 60, 88, 60), (4, 97, 98, 20, 93)
            )
        )
    )
    assert len(lines) == 5
    assert all(line.startswith("as in the paper: ") for line in lines)
    assert "SpireNoBlocks 60.0, SpireFull 98.0" in lines[2]


def test_orders_not_as_in_the_paper():
    lines = orders(
        ablate(
            full_set(
                (4, 97, 98, 88, 80), (4, 97, 98, 80, 90), (4, 97, 99, 88, 60), (4, 97, 98, 44, 93)
            )
        )
    )
    # equal WER, equal and better MT, exactly half of the BLEU, cascade below direct
    assert len(lines) == 5
    assert all(line.startswith("NOT as in the paper: ") for line in lines)


def test_ablation_averages_what_all_have():
    results = [
        result("spirefull", "mt", "en-de", "bleu", 90),
        result("spirefull", "mt", "en-fr", "bleu", 80),
        result("spirefull", "mt", "en-zh", "bleu", 10),
        result("spirefull", "mt", "de-en", "bleu", 70),
        result("spirenoblocks", "mt", "en-de", "bleu", 40),
        result("spirenoblocks", "mt", "en-fr", "bleu", 20),
        result("spirebase", "mt", "en-de", "bleu", 1),
    ]
    ablation = ablate(results)
    assert ablation.values == {
        "spirefull": [None, 85, 70, None, None],
        "spirenoblocks": [None, 30, None, None, None],
    }
    assert ablation.basis[1] == ["test en→de", "test en→fr"]
    assert ablation.left_out[1] == ["test en→zh"]


def test_orders_only_of_what_is_there():
    assert orders(ablate([result("spirefull", "asr", "en-en", "wer", 4)])) == []


@pytest.mark.parametrize("value, word", [(6.0, "met"), (6.01, "MISSED"), (0.0, "met")])
def test_bound_itself_is_met(value, word):
    target = Target("spirefull", "asr", "en", "en", "wer", at_most=6)
    (line,) = check_target(target, [result("spirefull", "asr", "en-en", "wer", value)])
    assert f": {word}, " in line


@pytest.mark.parametrize(
    "yaml_text, message",
    [
        ("a: 1", "a list of targets"),
        ("- x", "target 1: {variant"),
        ("- {variant: v, task: asr, src: no, tgt: en, metric: wer, at_most: 1}", "src is missing"),
        ("- {variant: v, task: asr, src: en, tgt: en, metric: wer}", "at_most, at_least"),
        ("- {variant: v, task: asr, src: en, tgt: en, metric: wer, at_most: x}", "at_most"),
        (
            "- {variant: v, task: asr, src: en, tgt: en, metric: wer, at_most: 1, at_least: 1}",
            "one of at_most",
        ),
        ("- {variant: v, task: a, src: en, tgt: en, metric: m, at_mots: 1}", "unknown key at_mots"),
        ("- [", "not valid YAML"),
    ],
)
def test_bad_targets(tmp_path, yaml_text, message):
    path = tmp_path / "targets.yaml"
    path.write_text(yaml_text)
    with pytest.raises(SpireError, match=message) as caught:
        report.read_targets(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_targets(tmp_path):
    with pytest.raises(SpireError, match="no such file"):
        report.read_targets(tmp_path / "none.yaml")


def test_totals_keep_variants_apart():
    seconds = {"4 units": 10.0, "8 CPT": 100.0, "10 IT spirefull": 50.0, "10 IT towerfull": 40.0}
    assert report.totals(seconds) == {
        "total, shared by variants": 110.0,
        "total, only SpireFull": 50.0,
        "total, only TowerFull": 40.0,
        "total": 200.0,
    }
    assert report.totals({"a": 1.0}) == {"total": 1.0}


def test_distilled_models_stand_beside_the_others(exp):
    run = "spire_it_spirefull_kd_mini_1/greedy/test"
    put_score(exp, run, "st.en-de", "score_bleu", bleu=91.0, chrf=92.0)
    results = report.collect(exp)
    (found,) = [r for r in results if r.variant == "spirefull_kd" and r.metric == "bleu"]
    assert (found.tag, found.value) == ("mini_1", 91.0)
    assert list(report.ablate(results).values) == ["spirefull", "spirefull_kd", "towerfull"]
    page = report.markdown(results, {}, {}, title="T")
    assert "| SpireFull, distilled | - | - | - | 91.0 | - |" in page and "paper, Table 9" in page
    page = report.markdown(results, {}, {}, title="T", speech_lang="de")
    assert "paper, Table 9" not in page  # which is of English speech
    seconds = {"10 IT spirefull": 3.0, "10 IT spirefull_kd": 4.0, "8 CPT": 5.0}
    assert report.totals(seconds) == {
        "total, shared by variants": 5.0,
        "total, only SpireFull": 3.0,
        "total, only SpireFull, distilled": 4.0,
        "total": 12.0,
    }
