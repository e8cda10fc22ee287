"""Pseudo-labels: translation, threshold, shards."""

import pytest
from helpers_lm import make_data_dir

from espnet_spire.bin import pseudo_label
from espnet_spire.corpus.pseudo import label, select, translate
from espnet_spire.decode.generate import Answer
from espnet_spire.utils.datadir import read_rejected, read_table
from espnet_spire.utils.errors import SpireError

TEXTS = {"a": "one bread", "b": "two bread", "c": "three bread", "d": "four", "e": "five"}


class Shouter:
    """Translates by writing the source in capitals; what is "four" never ends."""

    def __init__(self, tokenizer):
        self.tokenizer, self.asked = tokenizer, []

    def __call__(self, prompts, desc):
        self.asked += [self.tokenizer.decode(ids) for ids in prompts]
        sources = [
            text.split("English: ")[1].split("\n")[0] for text in self.asked[-len(prompts) :]
        ]
        return [Answer([source], cut=source == "four") for source in sources]

    def text(self, answer):
        return answer.ids[0].upper()


def scorer(sources, translations, src, tgt):
    assert (src, tgt) == ("en", "de")
    for source, translation in zip(sources, translations, strict=True):
        assert translation == ("" if source == "four" else source.upper())
    values = {"one bread": 0.9, "two bread": 0.85, "three bread": 0.8499, "four": 0.0, "five": 0.1}
    return [values[source] for source in sources]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "text").write_text("".join(f"{k} {v}\n" for k, v in TEXTS.items()))
    return tmp_path / "train"


def run_label(generator, data, out, num_shards=1, shard=1):
    options = {"src": "en", "style": "plain", "num_shards": num_shards, "shard": shard}
    label(generator, scorer, data, {"de": out}, **options)


def test_prompts_of_both_styles(lm_tokenizer):
    generator = Shouter(lm_tokenizer)
    assert translate(generator, TEXTS, "en", "de", style="chatml")["d"] == ""
    assert translate(generator, {"a": "x y"}, "en", "de", style="plain") == {"a": "X Y"}
    assert generator.asked[0] == (
        "<s><|im_start|>user\nTranslate the following text from English to German.\n"
        "English: one bread\nGerman:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert generator.asked[-1] == "<s> English: x y\nGerman:"


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_threshold_keeps_and_rejects_with_reasons(tmp_path, data, lm_tokenizer, num_shards):
    out = tmp_path / "train.de"
    for shard in range(num_shards, 0, -1):
        run_label(Shouter(lm_tokenizer), data, out, num_shards, shard)
    assert select(data, out, "de", threshold=0.85, num_shards=num_shards) == 2 / 5
    assert read_table(out / "text.tc.de") == {"a": "ONE BREAD", "b": "TWO BREAD"}
    assert read_rejected(out / "rejected.tsv") == {
        "c": "score 0.8499 is below 0.85: THREE BREAD",
        "d": "no translation within the limit of new tokens",
        "e": "score 0.1000 is below 0.85: FIVE",
    }
    assert read_table(out / "scores") == {
        **{"a": "0.9000", "b": "0.8500", "c": "0.8499"},
        **{"d": "0.0000", "e": "0.1000"},
    }
    assert sorted(path.name for path in out.iterdir()) == ["rejected.tsv", "scores", "text.tc.de"]


def test_transcripts_are_never_read_as_units_or_special_tokens(tmp_path, data, lm_tokenizer):
    (data / "text").write_text("a one <|im_end|>\U000f0003 two\nb three\n")
    generator, scored = Shouter(lm_tokenizer), []

    def record(sources, translations, src, tgt):
        scored.extend(zip(sources, translations, strict=True))
        return [0.9] * len(sources)

    options = {"src": "en", "num_shards": 1, "shard": 1}
    label(generator, record, data, {"de": tmp_path / "o"}, style="chatml", **options)
    assert scored == [("one < |im_end|> two", "ONE < |IM_END|> TWO"), ("three", "THREE")]
    assert "\nEnglish: one < |im_end|> two\nGerman:<|im_end|>\n" in generator.asked[0]
    assert generator.asked[0].count("<|im_end|>") == 1


def test_a_base_model_needs_the_plain_style(tmp_path, lm_base):
    data = make_data_dir(tmp_path / "train", 2)
    options = ["--model", str(lm_base), "--data_dir", str(data), "--tgt_langs", "de"]
    options += ["--max_new_tokens", "2", "--device", "cpu", "--threshold", "0"]
    with pytest.raises(SpireError, match="is not one token, .* or --prompt_style plain$"):
        pseudo_label.main([*options, "--out", str(tmp_path / "o")])
    with pytest.raises(SpireError, match="no translation scores 0.0"):
        pseudo_label.main([*options, "--out", str(tmp_path / "o"), "--prompt_style", "plain"])


def test_a_shard_that_is_there_is_not_translated_again(tmp_path, data, lm_tokenizer):
    run_label(Shouter(lm_tokenizer), data, tmp_path / "o", 2, 1)
    generator = Shouter(lm_tokenizer)
    run_label(generator, data, tmp_path / "o", 2, 1)
    assert generator.asked == []
    with pytest.raises(SpireError, match="job 2 of 2 has not finished"):
        select(data, tmp_path / "o", "de", threshold=0.5, num_shards=2)


def test_nothing_good_enough(tmp_path, data, lm_tokenizer):
    run_label(Shouter(lm_tokenizer), data, tmp_path / "o")
    with pytest.raises(SpireError, match="no translation scores 0.95; see .*rejected.tsv"):
        select(data, tmp_path / "o", "de", threshold=0.95, num_shards=1)
    # The file that the error names is there, and a lower threshold needs no new translation.
    assert len(read_rejected(tmp_path / "o" / "rejected.tsv")) == 5
    assert select(data, tmp_path / "o", "de", threshold=0.05, num_shards=1) == 4 / 5


def test_an_utterance_that_was_not_translated(tmp_path, data, lm_tokenizer):
    run_label(Shouter(lm_tokenizer), data, tmp_path / "o")
    with open(data / "text", "a") as stream:
        stream.write("f six\n")
    with pytest.raises(SpireError, match="utterance f of .* was not translated; run again"):
        select(data, tmp_path / "o", "de", threshold=0.5, num_shards=1)


def test_the_command_with_a_real_model(tmp_path, lm_dir):
    data = make_data_dir(tmp_path / "train", 5)
    options = [
        *("--model", str(lm_dir), "--data_dir", str(data), "--tgt_langs", "de", "fr"),
        *("--threshold", "0", "--max_new_tokens", "4", "--prompt_style", "plain"),
    ]
    # An untrained model comes to no end within four tokens, whatever the threshold.
    with pytest.raises(SpireError, match="no translation scores 0.0; see"):
        pseudo_label.main([*options, "--out", str(tmp_path / "one")])
    rejected = read_rejected(tmp_path / "one" / "train.de" / "rejected.tsv")
    assert rejected == {
        f"utt{i:03d}": "no translation within the limit of new tokens" for i in range(5)
    }
    # Shards, then the merge, end in the same.
    command = [*options, "--out", str(tmp_path / "two"), "--num_shards", "2"]
    for shard in ("1", "2"):
        pseudo_label.main([*command, "--shard", shard])
    with pytest.raises(SpireError, match="no translation scores 0.0; see"):
        pseudo_label.main([*command, "--merge"])
    assert read_rejected(tmp_path / "two" / "train.de" / "rejected.tsv") == rejected
