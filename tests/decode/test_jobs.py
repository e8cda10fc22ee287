"""What is asked of the model, letter by letter."""

import pytest

from espnet_spire.decode.answers import Answer, Answerer
from espnet_spire.decode.jobs import job_keys, job_turns, order_jobs, tags_of, translation_turn
from espnet_spire.text.jobs import parse_job
from espnet_spire.text.prompts import Turn
from espnet_spire.utils.errors import SpireError

UNITS = {"u1": "3 19", "u2": "0"}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text").write_text("u1 a cook\nu2 some bread\n")
    (tmp_path / "text.tc.de").write_text("u1 ein Koch\nu2 Brot\n")
    return tmp_path


def never():
    raise AssertionError("nobody asked for transcripts")


def test_transcription_comes_first():
    jobs = [parse_job(n) for n in ("st_cascade.en-de", "st.en-de", "mt.en-de", "asr.en-en")]
    assert [job.task for job in order_jobs(jobs)] == ["asr", "mt", "st", "st_cascade"]


def test_prompts_of_speech_tasks(data):
    assert job_turns(parse_job("asr.en-en"), data, UNITS, never, "en") == {
        "u1": [Turn("user", "Speech: \U000f0003\U000f0013\nEnglish:")],
        "u2": [Turn("user", "Speech: \U000f0000\nEnglish:")],
    }
    turns = job_turns(parse_job("st.en-zh"), data, UNITS, never, "en")
    assert turns["u2"] == [Turn("user", "Speech: \U000f0000\nChinese:")]
    with pytest.raises(SpireError, match="job st.de-en: the speech is in en"):
        job_turns(parse_job("st.de-en"), data, UNITS, never, "en")


def test_prompts_of_translation(data):
    ask = "Translate the following text from {} to {}.\n{}: {}\n{}:"
    turns = job_turns(parse_job("mt.en-de"), data, {}, never, "en")
    assert turns["u1"] == [
        Turn("user", ask.format("English", "German", "English", "a cook", "German"))
    ]
    turns = job_turns(parse_job("mt.de-en"), data, {}, never, "en")
    assert turns["u1"] == [
        Turn("user", ask.format("German", "English", "German", "ein Koch", "English"))
    ]
    heard = {"u1": "a crook", "u2": ""}
    turns = job_turns(parse_job("st_cascade.en-de"), data, {}, lambda: heard, "en")
    assert turns["u1"] == [
        Turn("user", ask.format("English", "German", "English", "a crook", "German"))
    ]
    assert turns["u2"][0].content.endswith("English: \nGerman:")


def test_a_missing_translation(data):
    with pytest.raises(SpireError, match="text.tc.fr: no such file"):
        job_turns(parse_job("mt.fr-en"), data, {}, never, "en")


def test_which_utterances_a_job_is_about(data):
    """``u3`` has no German, and ``u2`` no French; there are no references in Dutch at all."""
    (data / "wav.scp").write_text("u1 a.wav\nu2 b.wav\nu3 c.wav\n")
    (data / "text.tc.fr").write_text("u1 un cuisinier\nu3\n")
    keys = ["u3", "u2", "u1"]

    def about(name):
        return job_keys(parse_job(name), data, keys, "en")

    assert about("asr.en-en") == keys
    assert about("st.en-de") == about("mt.en-de") == about("mt.de-en") == ["u2", "u1"]
    assert about("st_cascade.en-fr") == ["u3", "u1"]
    assert about("mt.fr-de") == ["u1"]
    assert about("st.en-nl") == keys


def test_two_turns_ask_for_the_transcript_first(data, lm_tokenizer):
    turns = job_turns(parse_job("st_multi_turn.en-de"), data, UNITS, never, "en")
    assert turns["u2"] == [Turn("user", "Speech: \U000f0000\nEnglish:")]

    class Said(Answerer):
        def stream(self, prompts):
            raise AssertionError("nothing is asked here")

        def text(self, answer):
            return "the </s> cook \U000f0003"

    follow_up = translation_turn(Said(lm_tokenizer, 5), list(turns.values()), "de")
    assert follow_up(1, Answer([7], False)) == [
        *turns["u2"],
        # What was heard is text, whatever it is.
        Turn("assistant", "the < /s> cook "),
        Turn("user", "German:"),
    ]


def test_post_editing(tmp_path):
    (tmp_path / "text.tc.en").write_text("s1 a cook\ns2 some bread\ns3 c\n")
    (tmp_path / "text.tc.de").write_text("s1 ein Koch\ns2 Brot\ns3 c\n")
    (tmp_path / "text.mt.de").write_text("s1 ein Kuh\ns2\n")
    job = parse_job("ape.en-de")
    turns = job_turns(job, tmp_path, {}, never, "en")
    assert turns["s1"][0].content.endswith(
        "\nSource (English): a cook\nTranslation (German): ein Kuh\nPost-edited: "
    )
    assert "\nTranslation (German): \nPost-edited: " in turns["s2"][0].content
    assert job_keys(job, tmp_path, ["s1", "s2", "s3"], "en") == list(turns) == ["s1", "s2"]


def test_named_entities(tmp_path):
    (tmp_path / "text.input.de").write_text('s1 ["Lima", "ist"]\n')
    (tmp_path / "text.tokens.de").write_text('s1 ["Lima", "ist"]\n')
    job = parse_job("ner.de-de")
    turns = job_turns(job, tmp_path, {}, never, "en")
    assert 'in the following list of tokens "["Lima", "ist"]".\n' in turns["s1"][0].content
    assert job_keys(job, tmp_path, ["s1"], "en") == ["s1"]


@pytest.mark.parametrize(
    "answer, tags",
    [
        ('[("Lima", "B-Location"), ("is", "O"), ("it", "O")]', "B-Location O O"),
        ('[("Lima", "B-Location")]', "B-Location O O"),  # what is lacking is outside
        ('[("a", "O"), ("b", "O"), ("c", "O"), ("d", "B-Person")]', "O O O"),  # beyond: cut off
        ("Lima is a town.", "O O O"),
        ("", "O O O"),
        ('[("Lima", ""), ("is", "two words"), ("it", "I-Group")]', "O two_words I-Group"),
    ],
)
def test_tags_are_one_for_each_token(answer, tags):
    assert tags_of('["Lima", "is", "it"]', answer, "f: s1") == tags


def test_tokens_that_are_no_array():
    with pytest.raises(SpireError, match="f: s1: not a JSON array of tokens: 'Lima is'"):
        tags_of("Lima is", "", "f: s1")
