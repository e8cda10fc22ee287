"""Stage 6 of the recipe: jobs, a server, the report, and what a changed option costs."""

import json

from helpers_lm import make_data_dir
from helpers_server import StubServer

from espnet_spire.utils.datadir import read_table


def test_stage_6_with_a_server(empty_recipe, lm_dir, lm_tokenizer):
    recipe = empty_recipe
    make_data_dir(recipe.path / "dump/raw/train", 12)
    brot = lm_tokenizer("das Brot", add_special_tokens=False).input_ids

    def run(*more):
        done = recipe.run(
            *("--stage", "6", "--stop_stage", "6", "--inference_nj", "2", "--pseudo_set", "train"),
            *("--pseudo_langs", "de fr", "--pseudo_model", str(lm_dir)),
            *("--pseudo_server", f"{server.url} {server.url}/", "--pseudo_server_model", "tower"),
            *("--pseudo_max_utterances", "9", *more),
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    with StubServer(lambda prompt: ([*brot, 2], "stop")) as server:
        run()
        out = recipe.path / "dump/pseudo"
        made = {path.name for path in out.iterdir() if not path.name.startswith(".")}
        assert made == {"train.de", "train.fr", "report.json", "report.md", "scores.png"}
        assert len(read_table(out / "train.fr/text.tc.fr")) == 9
        asked = len(server.requests)
        assert asked <= 12 and {body["model"] for _, body in server.requests} == {"tower"}
        assert "6 pseudo-labels: up to date" in run()
        # Another threshold: the tables are made again, of what is kept.
        scores = sorted(map(float, read_table(out / "train.de/scores").values()))
        said = run("--pseudo_threshold", str(scores[4]))
        assert "train.de was made from other inputs; moved to dump/pseudo/.stale/train.de-" in said
        kept = len(read_table(out / "train.de/text.tc.de"))
        assert kept == sum(score >= scores[4] for score in scores) < 9
        assert json.loads((out / "report.json").read_text())["threshold"] == scores[4]
        assert len(server.requests) == asked
        # More utterances cost at most what is new in them.
        run("--pseudo_max_utterances", "")
        assert len(server.requests) == 12
        assert len(read_table(out / "train.de/text.tc.de")) == 12
