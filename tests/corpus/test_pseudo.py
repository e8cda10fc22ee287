"""Pseudo-labels: choice of utterances, translation, threshold, shards, and what is done once."""

import json

import pytest
from helpers_lm import make_data_dir
from helpers_server import StubServer

from espnet_spire.bin import pseudo_label
from espnet_spire.corpus.pseudo import Settings, label, read_texts, select, select_utterances
from espnet_spire.decode.answers import Answer, Answerer
from espnet_spire.utils.datadir import read_rejected, read_table
from espnet_spire.utils.errors import SpireError

TEXTS = {
    **{"a": "one bread", "b": "two bread", "c": "three bread", "d": "four", "e": "five"},
    **{"f": "one bread", "g": "six"},
}
VALUES = {"one bread": 0.9, "two bread": 0.85, "three bread": 0.8499, "five": 0.1}


class Shouter(Answerer):
    """Translates by writing the source in capitals; "four" never ends, of "six" nothing comes."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer, 100)
        self.asked = []

    def stream(self, prompts):
        for index, prompt in enumerate(prompts):
            self.asked.append(self.tokenizer.decode(self.encode(prompt)))
            source = self.asked[-1].split("English: ")[1].split("\n")[0]
            said = "" if source == "six" else source.upper()
            yield [(index, Answer([7] * len(source), source == "four", said))]

    @property
    def sources(self):
        return [text.split("English: ")[1].split("\n")[0] for text in self.asked]


class Scorer:
    """Gives :data:`VALUES`, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, sources, translations, src, tgt):
        self.asked += [(tgt, *pair) for pair in zip(sources, translations, strict=True)]
        return [VALUES[source] for source in sources]

    def close(self):
        pass


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "text").write_text("".join(f"{k} {v}\n" for k, v in TEXTS.items()))
    return tmp_path / "train"


def settings(**changes):
    given = {"src": "en", "style": "plain", "translator": "m", "scorer": "s"}
    given = {**given, "max_new_tokens": 9, "special_tokens": ("<|im_end|>", "<s>"), **changes}
    return Settings(**given)


class Work:
    """One start of all jobs: what they asked for, and the tables in the end."""

    def __init__(self, tokenizer, data, out, tgts=("de",), num_shards=1, threshold=0.85, **given):
        self.generator, self.scorer = Shouter(tokenizer), Scorer()
        chosen = settings(**given)
        texts, total = read_texts(data, chosen, None, 0)
        for shard in range(num_shards, 0, -1):
            label(
                *(chosen, texts.values(), out, tgts),
                *(lambda: self.generator, lambda: self.scorer),
                num_shards=num_shards,
                shard=shard,
            )
        self.counts = {
            tgt: select(chosen, data, texts, out, tgt, threshold=threshold, utterances=total)
            for tgt in tgts
        }


# Which utterances -----------------------------------------------------------------------------


def test_the_choice_is_random_nested_and_of_any_order():
    keys = [f"utt{number:04d}" for number in range(1000)]
    small, total = select_utterances(keys, 100, seed=5)
    large, _ = select_utterances(reversed(keys), 300, seed=5)
    assert total == 1000 and len(small) == 100 and len(large) == 300 and small < large
    assert select_utterances(keys, None, 5) == select_utterances(keys, 1000, 5) == (set(keys), 1000)
    assert select_utterances(keys, 2000, 5) == (set(keys), 1000)
    other, _ = select_utterances(keys, 100, seed=6)
    assert 2 < len(small & other) < 25  # 10 by chance
    # It takes from everywhere: 30 of each 100 that follow each other, within 5 deviations.
    tens = [sum(key.startswith(f"utt{number:02d}") for key in large) for number in range(10)]
    assert sum(tens) == 300 and all(8 < count < 53 for count in tens)


def test_the_choice_leaves_the_ranges_of_a_mixture_as_they_are():
    """Were it made by the same places, all of it would be in the range of direct prompts."""
    from espnet_spire.train.selection import sample_position

    chosen, _ = select_utterances([f"utt{number}" for number in range(4000)], 1000, seed=0)
    direct = sum(sample_position(0, "range", key) < 0.5 for key in chosen)
    assert 420 < direct < 580  # 500, within 5 deviations


def test_reading_the_chosen(data):
    texts, total = read_texts(data, settings(), 3, 1)
    assert total == 7 and len(texts) == 3 and texts.items() <= TEXTS.items()
    assert list(texts) == sorted(texts)


# Translation, scores, threshold ---------------------------------------------------------------


def test_prompts_of_both_styles(tmp_path, data, lm_tokenizer):
    work = Work(lm_tokenizer, data, tmp_path, style="chatml")
    assert work.generator.asked[0] == (
        "<s><|im_start|>user\nTranslate the following text from English to German.\n"
        "English: one bread\nGerman:<|im_end|>\n<|im_start|>assistant\n"
    )
    work = Work(lm_tokenizer, data, tmp_path)
    assert work.generator.asked[0] == "<s> English: one bread\nGerman:"


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_threshold_keeps_and_rejects_with_reasons(tmp_path, data, lm_tokenizer, num_shards):
    work = Work(lm_tokenizer, data, tmp_path / "o", num_shards=num_shards)
    out = tmp_path / "o" / "train.de"
    assert read_table(out / "text.tc.de") == {"a": "ONE BREAD", "b": "TWO BREAD", "f": "ONE BREAD"}
    assert read_rejected(out / "rejected.tsv") == {
        "c": "score 0.8499 is below 0.85: THREE BREAD",
        "d": "no translation within the limit of new tokens",
        "e": "score 0.1000 is below 0.85: FIVE",
        "g": "the translation is empty",
    }
    assert read_table(out / "scores") == {
        **{"a": "0.9000", "b": "0.8500", "c": "0.8499", "e": "0.1000", "f": "0.9000"}
    }
    assert sorted(path.name for path in out.iterdir()) == ["rejected.tsv", "scores", "text.tc.de"]
    counts = work.counts["de"]
    assert counts[:10] == ("train", "de", 7, 7, 6, 9 + 9 + 11 + 4 + 4 + 9 + 3, 1, 1, 5, 3)
    assert counts.total == pytest.approx(0.9 + 0.85 + 0.8499 + 0.1 + 0.9)
    # Bins of 0.025: 0.1 in the fifth; 0.8499 below the threshold's border, 0.85 above.
    filled = {place: count for place, count in enumerate(counts.histogram) if count}
    assert len(counts.histogram) == 40 and filled == {4: 1, 33: 1, 34: 1, 36: 2}
    # Once each, in whatever job, and nothing that cannot be used was scored.
    assert sorted(work.generator.sources) == sorted(set(TEXTS.values()))
    assert sorted(source for _, source, _ in work.scorer.asked) == sorted(VALUES)


def test_transcripts_are_never_read_as_units_or_special_tokens(tmp_path, data, lm_tokenizer):
    (data / "text").write_text("a one <|im_end|>\U000f0003 two\n")
    VALUES["one < |im_end|> two"] = 0.9
    work = Work(lm_tokenizer, data, tmp_path, style="chatml")
    assert work.scorer.asked == [("de", "one < |im_end|> two", "ONE < |IM_END|> TWO")]
    assert "\nEnglish: one < |im_end|> two\nGerman:<|im_end|>\n" in work.generator.asked[0]
    assert work.generator.asked[0].count("<|im_end|>") == 1


def test_a_score_that_is_no_number(tmp_path, data, lm_tokenizer, monkeypatch):
    monkeypatch.setitem(VALUES, "two bread", float("nan"))
    with pytest.raises(SpireError, match="the score of 'two bread' into de is nan"):
        Work(lm_tokenizer, data, tmp_path)


# Nothing twice --------------------------------------------------------------------------------


def test_what_was_translated_and_scored_is_not_done_again(tmp_path, data, lm_tokenizer):
    def run(**given):
        work = Work(lm_tokenizer, data, tmp_path / "o", **given)
        return sorted(work.generator.sources), sorted(work.scorer.asked)

    everything = sorted(set(TEXTS.values()))
    assert run()[0] == everything
    assert run() == run(threshold=0.05) == run(num_shards=3) == run(num_shards=2) == ([], [])
    # Another language costs that language, another utterance that utterance.
    translated, scored = run(tgts=("de", "fr"), num_shards=2)
    assert translated == everything and {tgt for tgt, *_ in scored} == {"fr"}
    with open(data / "text", "a") as stream:
        stream.write("h two bread\ni seven\n")
    VALUES["seven"] = 0.99
    assert run(tgts=("fr", "de")) == (
        ["seven"] * 2,
        [("de", "seven", "SEVEN"), ("fr", "seven", "SEVEN")],
    )
    # What the results depend on does cost something.
    assert run(scorer="other")[0] == [] and run(scorer="third", num_shards=2)[1]
    for change in ({"translator": "n"}, {"max_new_tokens": 8}, {"style": "chatml"}):
        translated, scored = run(**change)
        assert len(translated) == 7 and scored == []  # it says the same, which has its score


def test_corpora_that_share_transcripts(tmp_path, data, lm_tokenizer):
    Work(lm_tokenizer, data, tmp_path / "o")
    data.rename(data.with_name("other"))
    work = Work(lm_tokenizer, data.with_name("other"), tmp_path / "o")
    assert work.generator.asked == [] and work.counts["de"].kept == 3


def test_a_job_that_has_not_finished(tmp_path, data, lm_tokenizer):
    chosen, generator = settings(), Shouter(lm_tokenizer)
    texts, _ = read_texts(data, chosen, None, 0)
    given = (chosen, texts.values(), tmp_path, ["de"], lambda: generator, Scorer)
    label(*given, num_shards=2, shard=1)
    with pytest.raises(SpireError, match="utterance . of .*train was not translated: a job has"):
        select(chosen, data, texts, tmp_path, "de", threshold=0.5, utterances=7)
    label(*given, num_shards=2, shard=2)
    with pytest.raises(SpireError, match="the translation of utterance a was not scored: a job"):
        other = settings(scorer="other")
        select(other, data, texts, tmp_path, "de", threshold=0.5, utterances=7)


def test_a_scorer_that_is_not_there_is_noticed_before_translating(tmp_path, data, lm_tokenizer):
    def no_scorer():
        raise SpireError("no scorer")

    generator = Shouter(lm_tokenizer)
    with pytest.raises(SpireError, match="no scorer"):
        label(
            *(settings(), TEXTS.values(), tmp_path, ["de"], lambda: generator, no_scorer),
            num_shards=1,
            shard=1,
        )
    assert generator.asked == []


# The command ----------------------------------------------------------------------------------


def options(model, data, *more):
    given = ["--model", str(model), "--data_dir", str(data), "--tgt_langs", "de", "fr"]
    given += ["--device", "cpu", "--scorer", "standin_dual_xent", "--threshold", "0"]
    return [*given, "--max_new_tokens", "4", "--prompt_style", "plain", *more]


def test_a_base_model_needs_the_plain_style(tmp_path, lm_base):
    data = make_data_dir(tmp_path / "train", 2)
    command = options(lm_base, data, "--out", str(tmp_path / "o"))
    with pytest.raises(SpireError, match="is not one token, .* or --prompt_style plain$"):
        pseudo_label.main([*command, "--prompt_style", "chatml"])
    with pytest.raises(SpireError, match="no translation scores 0.0"):
        pseudo_label.main(command)


def test_the_command_with_a_real_model(tmp_path, lm_dir):
    data = make_data_dir(tmp_path / "train", 5)
    command = options(lm_dir, data)
    # An untrained model comes to no end within four tokens, whatever the threshold.
    with pytest.raises(SpireError, match="train.de: no translation scores 0.0; see .*report.md"):
        pseudo_label.main([*command, "--out", str(tmp_path / "one")])
    rejected = read_rejected(tmp_path / "one" / "train.de" / "rejected.tsv")
    assert rejected == {
        f"utt{i:03d}": "no translation within the limit of new tokens" for i in range(5)
    }
    # The report is there to choose another threshold by.
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    assert [(row["lang"], row["cut"], row["kept"]) for row in report["rows"]] == [
        ("de", 5, 0),
        ("fr", 5, 0),
    ]
    assert report["rows"][0]["tokens"] == 20 and report["rows"][0]["mean_score"] is None
    # Shards, then the merge, end in the same.
    command += ["--out", str(tmp_path / "two"), "--num_shards", "2"]
    for shard in ("1", "2"):
        pseudo_label.main([*command, "--shard", shard])
    assert not (tmp_path / "two" / "train.de").exists()
    with pytest.raises(SpireError, match="no translation scores 0.0; see"):
        pseudo_label.main([*command, "--merge"])
    assert read_rejected(tmp_path / "two" / "train.de" / "rejected.tsv") == rejected


def test_the_command_with_a_server(tmp_path, lm_dir, lm_tokenizer):
    """Translated there, scored here: all of it over HTTP, nothing of it twice."""
    data = make_data_dir(tmp_path / "train", 12)
    brot = lm_tokenizer("das Brot", add_special_tokens=False).input_ids
    with StubServer(lambda prompt: ([*brot, 2], "stop")) as server:
        command = options(lm_dir, data, "--out", str(tmp_path / "o"), "--max_utterances", "8")
        command += ["--server", server.url, "--server_model", "tower", "--server_concurrency", "3"]
        pseudo_label.main(command)
        # Six sentences twice over; 8 of 12 utterances have 4 to 6 of them, into two languages.
        asked = [body for _, body in server.requests]
        texts = {lm_tokenizer.decode(body["prompt"]) for body in asked}
        assert 8 <= len(asked) == len(texts) <= 12
        assert {body["model"] for body in asked} == {"tower"}
        assert all(body["prompt"].count(lm_tokenizer.bos_token_id) == 1 for body in asked)
        pseudo_label.main([*command, "--max_utterances", "12"])
        assert len(server.requests) == 12
        pseudo_label.main([*command, "--server_model", "tower-2"])
        assert len(server.requests) > 12
    kept = read_table(tmp_path / "o" / "train.fr" / "text.tc.fr")
    assert len(kept) == 8 and set(kept.values()) == {"das Brot"}
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["rows"][0]["utterances"] == 12 and report["rows"][0]["selected"] == 8
    assert report["translator"]["server_model"] == "tower-2"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--max_utterances", "0"], "--max_utterances 0: at least 1"),
        (["--shard", "2"], "--shard 2 is not between 1 and --num_shards 1"),
        (["--data_dir", "a/train", "b/train"], "two are named train"),
        (["--model", "/"], "--model /: "),
        (["--data_dir", "no/such"], "no/such/text: no such file"),
        (["--scorer", "cometkiwi", "--comet_model", "/no/such"], "/no/such: no such checkpoint"),
    ],
)
def test_impossible_options(tmp_path, lm_dir, monkeypatch, more, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = make_data_dir(tmp_path / "train", 2)
    with pytest.raises(SpireError, match=message):
        pseudo_label.main([*options(lm_dir, data, "--out", str(tmp_path / "o")), *more])
