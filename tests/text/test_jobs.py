"""Names of jobs, asked for by users and found on disk."""

import pytest

from espnet_spire.text.jobs import Job, check_job, match_job, parse_job
from espnet_spire.utils.errors import SpireError


def test_parse():
    assert parse_job("st_cascade.en-zh") == Job("st_cascade", "en", "zh")
    assert parse_job("asr.en-en").name == "asr.en-en"
    assert parse_job("st_multi_turn.en-de") == Job("st_multi_turn", "en", "de")
    assert parse_job("ape.en-de").task == "ape" and parse_job("ner.de-de").tgt == "de"


@pytest.mark.parametrize(
    "name, words",
    [
        ("st", "not TASK.SRC-TGT"),
        ("st.ende", "not TASK.SRC-TGT"),
        ("tts.en-de", "not TASK.SRC-TGT .*asr, mt, st, st_multi_turn, st_cascade"),
        ("", "not TASK.SRC-TGT"),
        ("st.en-xx", "language 'xx' is unknown"),
        ("asr.en-de", "asr and ner need one language"),
        ("ner.en-de", "asr and ner need one language"),
        ("mt.de-de", "other tasks two"),
        ("st_multi_turn.de-de", "other tasks two"),
    ],
)
def test_bad_jobs(name, words):
    with pytest.raises(SpireError, match=words):
        parse_job(name)


def test_check_job():
    assert check_job(Job("asr", "en", "en")) == Job("asr", "en", "en")
    with pytest.raises(SpireError, match="job st.en-en"):
        check_job(Job("st", "en", "en"))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("asr.en-en", ("asr", "en", "en")),
        ("st_cascade.en-zh", ("st_cascade", "en", "zh")),
        ("st.en_de", None),
        ("tts.en-en", None),
        ("score_wer", None),
        ("mt.en-de.bak", None),
        ("st.en-sv", ("st", "en", "sv")),  # to be scored, though no language of the LM
        ("st_cascade.EN-de", None),
    ],
)
def test_match(name, expected):
    assert match_job(name) == expected
