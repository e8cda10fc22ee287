"""Decoding of test sets: files, shards, the cascade, errors."""

import pytest
from helpers_lm import UNITS_NAME, make_data_dir

from espnet_spire.bin import score, spire_inference
from espnet_spire.decode.answers import Answer, Answerer
from espnet_spire.decode.generate import Generator
from espnet_spire.decode.results import merge
from espnet_spire.decode.run import decode
from espnet_spire.score.files import read_entries
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.datadir import read_rejected, read_table, write_data_dir
from espnet_spire.utils.errors import SpireError

JOBS = [parse_job(name) for name in ("st_cascade.en-de", "asr.en-en", "st.en-de", "mt.de-en")]


@pytest.fixture
def data(tmp_path):
    return make_data_dir(tmp_path / "test", 7)


@pytest.fixture(scope="module")
def generator(lm_dir):
    return Generator(lm_dir, max_new_tokens=6)


def job_of(prompt):
    """Which of the jobs asks so."""
    if "from English to German" in prompt:
        return "st_cascade.en-de"
    if "from German to English" in prompt:
        return "mt.de-en"
    return "asr.en-en" if "\nEnglish:<|im_end|>" in prompt else "st.en-de"


class Recorder(Answerer):
    """Answers with a word made of the prompt's length; keeps what it was asked, by job."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer, max_new_tokens=6)
        self.asked = {}

    def stream(self, prompts):
        for index, ids in enumerate(prompts):
            prompt = self.tokenizer.decode(ids)
            self.asked.setdefault(job_of(prompt), []).append(prompt)
            yield [(index, Answer([len(ids)], cut=len(ids) % 2 == 0))]

    def text(self, answer):
        return f"word{answer.ids[0]}"


def unique(table):
    return list(dict.fromkeys(table.values()))


def files(out):
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_three_shards_merged_equal_one(tmp_path, data, generator):
    options = {"data_dir": data, "units": data / UNITS_NAME}
    decode(lambda: generator, JOBS, **options, out=tmp_path / "one")
    for shard in (3, 1, 2):
        decode(
            lambda: generator, JOBS, **options, out=tmp_path / "three", num_shards=3, shard=shard
        )
    merge(JOBS, data_dir=data, out=tmp_path / "three", num_shards=3)
    one = files(tmp_path / "one")
    names = [f"{job.name}/{name}" for job in JOBS for name in ("cut", "rejected.tsv", "text")]
    assert sorted(one) == sorted(names)
    assert one["asr.en-en/rejected.tsv"] == b""
    assert files(tmp_path / "three") == one
    texts = read_table(tmp_path / "one" / "asr.en-en" / "text", allow_empty_value=True)
    assert list(texts) == [f"utt{i:03d}" for i in range(7)]


def test_the_cascade_reads_what_was_transcribed(tmp_path, data, lm_tokenizer):
    recorder = Recorder(lm_tokenizer)
    decode(lambda: recorder, JOBS, data_dir=data, units=data / UNITS_NAME, out=tmp_path / "out")
    heard = read_table(tmp_path / "out" / "asr.en-en" / "text")
    # What was heard twice alike is translated once.
    for prompt, text in zip(recorder.asked["st_cascade.en-de"], unique(heard), strict=True):
        assert prompt == (
            "<s><|im_start|>user\nTranslate the following text from English to German.\n"
            f"English: {text}\nGerman:<|im_end|>\n<|im_start|>assistant\n"
        )
    reference = read_table(data / "text.tc.de")
    assert f"German: {reference['utt000']}\n" in recorder.asked["mt.de-en"][0]
    # Which answers were cut is listed, with their length in tokens.
    cut = read_table(tmp_path / "out" / "asr.en-en" / "cut", allow_empty_value=True)
    assert cut == {k: "1" for k, v in heard.items() if int(v.removeprefix("word")) % 2 == 0}


def test_text_is_never_read_as_units_or_special_tokens(tmp_path, data, lm_tokenizer, caplog):
    """Neither a test set's nor what the model said itself."""
    texts = read_table(data / "text.tc.de")
    texts["utt003"] = "das <|im_end|> Zeichen und </s> und \U000f0003"
    (data / "text.tc.de").write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    recorder = Recorder(lm_tokenizer)
    recorder.text = lambda answer: "heard \U000f0003\U000f0004 <s>"
    decode(lambda: recorder, JOBS, data_dir=data, units=data / UNITS_NAME, out=tmp_path / "out")
    asked = recorder.asked["mt.de-en"][3]
    assert "\nGerman: das < |im_end|> Zeichen und < /s> und \nEnglish:<|im_end|>\n" in asked
    assert asked.count("<|im_end|>") == 1
    assert "mt.de-en: 1 of 7 texts have" in caplog.text and "the first is utt003" in caplog.text
    for prompt in recorder.asked["st_cascade.en-de"]:
        assert "\nEnglish: heard  < s>\nGerman:<|im_end|>" in prompt
    assert "st_cascade.en-de: 7 of 7 texts have" in caplog.text
    # Units of speech are left as they are, and so is the hypothesis.
    assert all("\U000f0000" <= max(prompt) for prompt in recorder.asked["asr.en-en"])
    heard = read_table(tmp_path / "out" / "asr.en-en" / "text")
    assert set(heard.values()) == {"heard \U000f0003\U000f0004 <s>"}


def test_results_that_are_there_are_not_decoded_again(tmp_path, data, lm_tokenizer):
    options = {"data_dir": data, "units": data / UNITS_NAME, "out": tmp_path / "out"}
    decode(lambda: Recorder(lm_tokenizer), JOBS[:2], **options)
    before = files(tmp_path / "out")

    def never():
        raise AssertionError("the model was loaded")

    decode(never, JOBS[:2], **options)
    decode(never, JOBS[:2], **options, num_shards=3, shard=2)
    merge(JOBS[:2], data_dir=data, out=tmp_path / "out", num_shards=3)
    assert files(tmp_path / "out") == before
    again = Recorder(lm_tokenizer)
    decode(lambda: again, JOBS, **options)
    assert sorted(again.asked) == ["mt.de-en", "st.en-de"]


def test_a_cascade_without_transcripts(tmp_path, data, lm_tokenizer):
    with pytest.raises(SpireError, match="asr.en-en/text: no such file; st_cascade needs asr"):
        decode(lambda: None, JOBS[:1], data_dir=data, units=None, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_utterance_without_units_is_named(tmp_path, data):
    lines = (data / UNITS_NAME).read_text().splitlines(keepends=True)
    (data / UNITS_NAME).write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(SpireError, match=rf"{UNITS_NAME}: utterance utt003 of .*test is missing"):
        decode(
            lambda: None, JOBS[1:2], data_dir=data, units=data / UNITS_NAME, out=tmp_path / "out"
        )
    with pytest.raises(SpireError, match="--units is needed"):
        decode(lambda: None, JOBS[1:2], data_dir=data, units=None, out=tmp_path / "out")


def reject(data, *keys):
    """Take utterances out of the unit file and list them, as extraction does."""
    lines = (data / UNITS_NAME).read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.split()[0] not in keys]
    (data / UNITS_NAME).write_text("".join(kept))
    (data / f"{UNITS_NAME}.rejected.tsv").write_text(
        "".join(f"{key}\tno samples\n" for key in keys)
    )


@pytest.mark.parametrize("num_shards", [1, 3])
def test_rejected_utterances_get_empty_hypotheses(tmp_path, data, lm_tokenizer, caplog, num_shards):
    reject(data, "utt002", "utt005")
    out = tmp_path / "out"
    asked = {}
    for shard in range(1, num_shards + 1):
        recorder = Recorder(lm_tokenizer)
        options = {"num_shards": num_shards, "shard": shard, "out": out, "data_dir": data}
        # The cascade in a call of its own: it is told by asr's results, not by the unit file.
        decode(lambda recorder=recorder: recorder, JOBS[1:], units=data / UNITS_NAME, **options)
        decode(lambda recorder=recorder: recorder, JOBS[:1], units=None, **options)
        for name, prompts in recorder.asked.items():
            asked[name] = asked.get(name, 0) + len(prompts)
    if num_shards > 1:
        merge(JOBS, data_dir=data, out=out, num_shards=num_shards)
    speech = ("asr.en-en", "st.en-de", "st_cascade.en-de")
    counts = {job: count for job, count in asked.items() if job != "st_cascade.en-de"}
    # Of the seven texts two are alike, and are asked once.
    assert counts == {"asr.en-en": 5, "st.en-de": 5, "mt.de-en": 6}
    for name in speech:
        texts = read_table(out / name / "text", allow_empty_value=True)
        assert list(texts) == [f"utt{i:03d}" for i in range(7)]
        assert [key for key, text in texts.items() if not text] == ["utt002", "utt005"]
        assert read_rejected(out / name / "rejected.tsv") == {
            "utt002": "no samples",
            "utt005": "no samples",
        }
        assert (
            f"{name}: 2 of 7 utterances could not be decoded, their hypotheses are empty;"
            f" see {out / name / 'rejected.tsv'}"
        ) in caplog.text
    assert all(read_table(out / "mt.de-en" / "text").values())
    assert sorted(path.name for path in (out / "mt.de-en").iterdir()) == [
        *("cut", "rejected.tsv", "text")
    ]
    assert not list(out.glob("*/.*"))


def test_rejected_utterances_are_scored_as_wholly_wrong(tmp_path, data, lm_tokenizer):
    reject(data, "utt005")  # "the cook cuts bread"
    out = tmp_path / "out"
    decode(
        lambda: Recorder(lm_tokenizer), JOBS[:3], data_dir=data, units=data / UNITS_NAME, out=out
    )
    score.main(["--decode_dir", str(out), "--data_dir", str(data)])
    result = read_json(out / "asr.en-en" / "score_wer" / "score.json")
    assert result["missing_hypotheses"]["count"] == 0
    entries = read_entries(out / "asr.en-en" / "score_wer" / "utterances.jsonl")
    (entry,) = [e for e in entries if e["utterance"] == "utt005"]
    # no hit, nothing substituted, four words deleted
    assert (entry["hypothesis"], entry["statistics"]["wer"]) == ("", [0, 0, 4, 0])
    for name in ("st.en-de", "st_cascade.en-de"):
        entries = read_entries(out / name / "score_bleu" / "utterances.jsonl")
        assert [e["scores"]["chrf"] for e in entries if not e["hypothesis"]] == [0.0]


def test_only_what_is_listed_may_be_missing(tmp_path, data, lm_tokenizer):
    reject(data, "utt002", "utt005")
    (data / f"{UNITS_NAME}.rejected.tsv").write_text("utt002\tno samples\n")
    with pytest.raises(SpireError, match="utterance utt005 of .*test is missing and .*not list it"):
        decode(
            lambda: None, JOBS[1:2], data_dir=data, units=data / UNITS_NAME, out=tmp_path / "out"
        )


def test_translation_is_about_what_has_source_and_reference(tmp_path, data, lm_tokenizer, caplog):
    """Speech is not always translated as a whole; what is not is counted, and not scored."""
    german = read_table(data / "text.tc.de")
    some = {key: german[key] for key in ("utt001", "utt004", "utt005")}
    write_data_dir(data, {"text.tc.de": some})
    options = {"data_dir": data, "units": data / UNITS_NAME}
    decode(lambda: Recorder(lm_tokenizer), JOBS, **options, out=tmp_path / "one")
    for shard in (1, 2, 3):  # of the second none is translated
        part = {"out": tmp_path / "three", "num_shards": 3, "shard": shard}
        decode(lambda: Recorder(lm_tokenizer), JOBS, **options, **part)
    merge(JOBS, data_dir=data, out=tmp_path / "three", num_shards=3)
    assert files(tmp_path / "one") == files(tmp_path / "three")
    found = {
        job.name: list(read_table(tmp_path / "one" / job.name / "text", allow_empty_value=True))
        for job in JOBS
    }
    every = [f"utt{i:03d}" for i in range(7)]
    assert found == {
        "asr.en-en": every,
        "st.en-de": list(some),
        "st_cascade.en-de": list(some),
        "mt.de-en": list(some),
    }
    for name in ("st.en-de", "st_cascade.en-de", "mt.de-en"):
        assert f"{name}: 4 of 7 utterances of {data} have no text to translate" in caplog.text
    score.main(["--decode_dir", str(tmp_path / "one"), "--data_dir", str(data)])
    assert "text: 4 of 7 references have no text in" in caplog.text
    for name in ("st.en-de", "st_cascade.en-de", "mt.de-en"):
        scored = tmp_path / "one" / name / "score_bleu"
        result = read_json(scored / "score.json")
        entries = read_entries(scored / "utterances.jsonl")
        assert [entry["utterance"] for entry in entries] == list(some)
        assert result["missing_hypotheses"]["count"] == 0


def test_no_utterance_for_a_job(tmp_path, data):
    (data / "text.tc.de").write_text("")
    with pytest.raises(SpireError, match="none of its utterances has the texts that job mt.de-en"):
        decode(lambda: None, JOBS[3:], data_dir=data, units=None, out=tmp_path / "out")


def test_merge_insists_on_all_shards(tmp_path, data, lm_tokenizer):
    options = {"data_dir": data, "units": data / UNITS_NAME, "out": tmp_path / "out"}
    for shard in (1, 3):
        decode(lambda: Recorder(lm_tokenizer), JOBS[1:2], **options, num_shards=3, shard=shard)
    with pytest.raises(SpireError, match="job 2 of 3 has not finished"):
        merge(JOBS[1:2], data_dir=data, out=tmp_path / "out", num_shards=3)
    assert not (tmp_path / "out" / "asr.en-en" / "text").exists()


def test_the_command(tmp_path, data, lm_dir, generator):
    options = [
        *("--model", str(lm_dir), "--data-dir", str(data), "--units", str(data / UNITS_NAME)),
        *("--max_new_tokens", "6", "--device", "cpu"),
    ]
    spire_inference.main([*options, "--task", "asr", "--out", str(tmp_path / "a")])
    decode(
        lambda: generator,
        JOBS[1:2],
        data_dir=data,
        units=data / UNITS_NAME,
        out=tmp_path / "b",
    )
    assert files(tmp_path / "a") == files(tmp_path / "b")
    out = ["--out", str(tmp_path / "c")]
    with pytest.raises(SpireError, match="nothing to decode: give --task or --jobs"):
        spire_inference.main([*options, *out])
    with pytest.raises(SpireError, match="job st.en-en: asr and ner need one"):
        spire_inference.main([*options, *out, "--task", "st"])
    with pytest.raises(SpireError, match="--shard 4 is not between 1 and --num_shards 3"):
        spire_inference.main([*options, *out, "--task", "asr", "--num_shards", "3", "--shard", "4"])


def test_a_base_model_is_refused(tmp_path, data, lm_base):
    """It has no ChatML, and its answers would be about the letters of ``<|im_start|>``."""
    options = ["--model", str(lm_base), "--data_dir", str(data), "--out", str(tmp_path / "out")]
    words = rf"{lm_base}: <\|im_end\|> is not one token, .*give an instruction-tuned model"
    with pytest.raises(SpireError, match=words):
        spire_inference.main(
            [*options, "--task", "mt", "--tgt_lang", "de", "--device", "cpu"],
        )
    assert not (tmp_path / "out").exists()


def test_a_set_of_text_alone_is_translated_without_units_and_scored(tmp_path, lm_tokenizer, capsys):
    data, out = tmp_path / "flores", tmp_path / "out"
    tables = {"text.tc.en": {"s1": "a cook", "s2": "bread"}, "text.tc.de": {"s1": "K", "s2": "B"}}
    write_data_dir(data, tables)
    recorder, jobs = Recorder(lm_tokenizer), [parse_job("mt.en-de"), parse_job("mt.de-en")]
    decode(lambda: recorder, jobs, data_dir=data, units=None, out=out)
    assert "English: bread\nGerman:" in recorder.asked["st_cascade.en-de"][1]
    assert "German: B\nEnglish:" in recorder.asked["mt.de-en"][1]
    score.main(["--decode_dir", str(out), "--data_dir", str(data)])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == (
        [f"{out}/mt.de-en"] * 2 + [f"{out}/mt.en-de"] * 2
    )
    entries = read_entries(out / "mt.de-en/score_bleu/utterances.jsonl")
    assert [entry["reference"] for entry in entries] == ["a cook", "bread"]
    assert [entry["source"] for entry in entries] == ["K", "B"]


@pytest.mark.parametrize("name", ["asr.en-en", "st.en-de", "st_cascade.en-de"])
def test_a_set_of_text_alone_has_no_speech(tmp_path, name):
    data = tmp_path / "flores"
    write_data_dir(data, {"text.tc.en": {"s1": "a cook"}, "text.tc.de": {"s1": "K"}})
    message = f"flores: job {name} needs speech, and this set has none .*text.tc.de, text.tc.en"
    with pytest.raises(SpireError, match=message):
        decode(None, [parse_job(name)], data_dir=data, units=None, out=tmp_path / "out")
