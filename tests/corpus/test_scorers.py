"""Scorers are found by name: adding one is adding one file."""

import json

import pytest
from helpers_lm import make_data_dir
from helpers_server import StubServer

from espnet_spire.bin import pseudo_label
from espnet_spire.corpus.scorers import describe, find_scorers
from espnet_spire.utils.datadir import read_table

ADDED = '''"""Lengths, for a test."""


def add_options(parser):
    parser.add_argument("--lengths_of", type=float, default=100)


def identity(args):
    return {"lengths_of": args.lengths_of}


def make(args, device, local_model):
    return Lengths(args.lengths_of, device)


class Lengths:
    def __init__(self, of, device):
        assert device == "cpu"
        self.of = of

    def __call__(self, sources, translations, src, tgt):
        return [len(source) / self.of for source in sources]

    def close(self):
        pass
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    (tmp_path / "added_scorers").mkdir()
    (tmp_path / "added_scorers/__init__.py").write_text("")
    (tmp_path / "added_scorers/lengths.py").write_text(ADDED)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = (*pseudo_label.SCORER_PACKAGES, "added_scorers")
    monkeypatch.setattr(pseudo_label, "SCORER_PACKAGES", found)
    return found


def test_they_are_found_by_their_files(packages):
    scorers = find_scorers(packages)
    assert set(scorers) == {"cometkiwi", "standin_dual_xent", "lengths"}
    for module in scorers.values():
        assert all(callable(getattr(module, name)) for name in ("add_options", "identity", "make"))
    assert describe(scorers).endswith("; lengths: Lengths, for a test")
    # What stands in for the real one says so.
    assert "standin_dual_xent: STAND-IN for CometKiwi" in describe(scorers)


def test_an_added_one_scores(packages, tmp_path, lm_dir, lm_tokenizer):
    data = make_data_dir(tmp_path / "train", 6)
    brot = lm_tokenizer("das Brot", add_special_tokens=False).input_ids
    with StubServer(lambda prompt: ([*brot, 2], "stop")) as server:
        command = ["--model", str(lm_dir), "--data_dir", str(data), "--tgt_langs", "de"]
        command += ["--out", str(tmp_path / "o"), "--server", server.url, "--device", "cpu"]
        command += ["--scorer", "lengths", "--threshold", "0.3", "--prompt_style", "plain"]
        pseudo_label.main(command)
        scores = read_table(tmp_path / "o/train.de/scores")
        # "the old farmer feeds a brown horse" and "the cook cuts bread"
        assert scores["utt000"] == "0.3400" and scores["utt005"] == "0.1900"
        assert "utt005" not in read_table(tmp_path / "o/train.de/text.tc.de")
        # Its options are part of what scores are kept by, and none of what translations are.
        pseudo_label.main([*command, "--lengths_of", "50"])
        assert read_table(tmp_path / "o/train.de/scores")["utt000"] == "0.6800"
        assert len(server.requests) == 6
    report = json.loads((tmp_path / "o/report.json").read_text())
    assert report["scored_by"] == {"lengths_of": 50.0}
