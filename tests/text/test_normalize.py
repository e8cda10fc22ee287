import socket
import subprocess
import sys

import pytest

from espnet_spire.text.normalize import normalizer


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Mr. Park's colour, um, IS grey!", "mister park is color is gray"),
        ("It costs twenty five dollars.", "it costs $25"),
        ("we won't, [laughter] (sighs) ok", "we will not ok"),
        ("  two   spaces\t", "2 spaces"),
        ("", ""),
        ("[noise] uh", ""),
    ],
)
def test_english(text, expected):
    assert normalizer("en")[0](text) == expected


@pytest.mark.parametrize(
    "lang, text, expected",
    [
        ("de", "Die Straße ist GRÖSSER, über 3.5!", "die straße ist grösser über 3 5"),
        ("fr", "L'été (bruit) arrive.", "l été arrive"),
        ("zh", "你好，世界。", "你好 世界"),
        ("de", "Mr. colour", "mr colour"),
        ("ru", "...", ""),
    ],
)
def test_basic(lang, text, expected):
    assert normalizer(lang)[0](text) == expected


def test_names_say_which_and_which_version():
    from importlib.metadata import version

    package = f"whisper_normalizer-{version('whisper_normalizer')}"
    assert normalizer("en")[1] == f"whisper-english@{package}"
    assert normalizer("zh")[1] == normalizer("de")[1] == f"whisper-basic@{package}"


def test_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    normalizer.cache_clear()
    assert normalizer("en")[0]("A") == "a"


def test_import_is_light():
    code = (
        "import sys, espnet_spire.text.normalize as n; n.normalizer('en')[0]('a'); "
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
