"""Names against those that ISO and CLDR publish."""

import subprocess
import sys

import pytest

from espnet_spire.text import prompts
from espnet_spire.text.jobs import parse_job
from espnet_spire.text.languages import common_code, language_name, same_language
from espnet_spire.utils.errors import SpireError

# The source languages of IWSLT's low-resource tasks, and their targets.
NAMES = {
    "aeb": "Tunisian Arabic",
    "apc": "North Levantine Arabic",
    "bem": "Bemba",
    "fon": "Fon",
    "gle": "Irish",
    "ga": "Irish",
    "bho": "Bhojpuri",
    "hi": "Hindi",
    "est": "Estonian",
    "et": "Estonian",
    "mlt": "Maltese",
    "mt": "Maltese",
    "mr": "Marathi",
    "que": "Quechua",
    "qu": "Quechua",
    "eng": "English",
    "spa": "Spanish",
    "sv": "Swedish",
}


@pytest.mark.parametrize("code, name", NAMES.items())
def test_names_of_other_languages(code, name):
    assert language_name(code) == name


@pytest.mark.parametrize("code", ["xx", "zzz", "und", "mul", "qaa", "EN", "e", "engl", "", "en-US"])
def test_what_is_no_language(code):
    with pytest.raises(SpireError, match=f"language '{code}' is unknown: an ISO 639-1 or 639-3"):
        language_name(code)


def test_one_language_may_have_two_codes():
    assert [common_code(code) for code in ("gle", "ga", "eng", "zho", "bem")] == [
        *("ga", "ga", "en", "zh", "bem")
    ]
    assert same_language("gle", "ga") and same_language("en", "eng")
    assert not same_language("aeb", "ar") and not same_language("mt", "mr")


def test_prompts_name_them():
    assert prompts.asr_plain_prompt([0], "aeb").endswith("\nTunisian Arabic:")
    assert prompts.mt_instruction("bem", "en", "x").startswith(
        "Translate the following text from Bemba to English.\nBemba: x"
    )


def test_jobs_of_three_letters():
    assert parse_job("st_cascade.aeb-en") == ("st_cascade", "aeb", "en")
    assert parse_job("asr.bem-bem").name == "asr.bem-bem"
    with pytest.raises(SpireError, match="job st.ga-gle: ga and gle are codes of one language"):
        parse_job("st.ga-gle")


def test_without_the_package_the_ten_still_have_names():
    code = (
        "import sys; sys.modules['langcodes'] = None\n"
        "from espnet_spire.text.languages import language_name\n"
        "print(language_name('de'))\n"
        "language_name('bem')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "German\n"
    assert "pip install langcodes language_data" in done.stderr
