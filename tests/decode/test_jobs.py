"""What is asked of the model, letter by letter."""

import pytest

from espnet_spire.decode.jobs import job_keys, job_turns, order_jobs
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
