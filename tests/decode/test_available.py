"""What a test set can be asked depends on its files."""

import pytest

from espnet_spire.decode.available import possible_jobs
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.errors import SpireError

JOBS = [
    parse_job(name)
    for name in ("asr.en-en", "st.en-de", "st_cascade.en-fr", "mt.en-de", "mt.de-en", "mt.fr-de")
]


def names(directory, *files):
    for file in files:
        (directory / file).write_text("a b\n")
    return [job.name for job in possible_jobs(directory, JOBS, "en")]


def test_speech_with_one_translation(tmp_path):
    found = names(tmp_path, "wav.scp", "text", "text.tc.de")
    assert found == ["asr.en-en", "st.en-de", "mt.en-de", "mt.de-en"]


def test_transcripts_alone(tmp_path):
    assert names(tmp_path, "wav.scp", "text") == ["asr.en-en"]


def test_text_alone(tmp_path):
    found = names(tmp_path, "text.tc.en", "text.tc.de", "text.tc.fr")
    assert found == ["mt.en-de", "mt.de-en", "mt.fr-de"]


def test_a_set_that_is_made_for_one_direction(tmp_path):
    (tmp_path / "jobs").write_text("mt.de-en\n")
    assert names(tmp_path, "text.tc.en", "text.tc.de") == ["mt.de-en"]


def test_speech_in_another_language(tmp_path):
    (tmp_path / "wav.scp").write_text("a b\n")
    (tmp_path / "text").write_text("a b\n")
    jobs = [parse_job("asr.en-en"), parse_job("asr.de-de")]
    assert [job.name for job in possible_jobs(tmp_path, jobs, "de")] == ["asr.de-de"]


def test_no_such_directory(tmp_path):
    with pytest.raises(SpireError, match="no such data directory"):
        possible_jobs(tmp_path / "no", JOBS, "en")


def test_post_editing_and_named_entities(tmp_path):
    jobs = [parse_job(name) for name in ("ape.en-de", "ape.de-en", "ner.de-de", "ner.en-en")]
    for name in ("text.tc.en", "text.tc.de", "text.mt.de", "text.input.de", "text.tokens.de"):
        (tmp_path / name).write_text("a b\n")
    assert [job.name for job in possible_jobs(tmp_path, jobs, "en")] == ["ape.en-de", "ner.de-de"]
