"""eSpeak NG: the same samples always, and what the settings do."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

from espnet_spire.mini import espeak  # noqa: E402
from espnet_spire.mini.toy_corpus import VOICES as OF_CORPUS  # noqa: E402
from espnet_spire.utils.errors import SpireError  # noqa: E402

TEXT = "The young doctor bought a red umbrella at the market."
# Breathy variants draw random noise, klatt is another synthesizer: both have state of their own.
VOICES = ["en-us", "en-us+f3", "en+m8", "en-us+klatt2", "en-us+f5"]


def pitch_of(samples):
    """Median fundamental frequency in Hz of the loud frames, by autocorrelation."""
    size, found = 1024, []
    x = samples.astype(np.float64)
    low, high = espeak.SAMPLE_RATE // 400, espeak.SAMPLE_RATE // 60
    for start in range(0, len(x) - 2 * size, size):
        frame = x[start : start + 2 * size]
        if frame.std() < x.std():
            continue
        auto = np.correlate(frame, frame, "full")[len(frame) - 1 :]
        found.append(espeak.SAMPLE_RATE / (low + auto[low:high].argmax()))
    return np.median(found)


def test_same_samples_in_any_order():
    first = {voice: espeak.synthesize(TEXT, voice) for voice in VOICES}
    for voice in reversed(VOICES):
        again = espeak.synthesize(TEXT, voice)
        assert np.array_equal(first[voice], again), voice
    assert first["en-us"].dtype == np.int16 and first["en-us"].ndim == 1
    assert 2.0 < len(first["en-us"]) / espeak.SAMPLE_RATE < 5.0


def test_same_samples_in_another_process():
    code = (
        "import hashlib; from espnet_spire.mini.espeak import synthesize\n"
        "print(hashlib.sha256(synthesize('Good morning.', 'en-us+f3').tobytes()).hexdigest())"
    )
    import hashlib

    espeak.synthesize(TEXT, "en+m8", pitch=90)
    here = hashlib.sha256(espeak.synthesize("Good morning.", "en-us+f3").tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_settings_change_the_sound():
    plain = espeak.synthesize(TEXT, "en-us+m3")
    assert len(espeak.synthesize(TEXT, "en-us+m3", rate=260)) < 0.8 * len(plain)
    assert pitch_of(espeak.synthesize(TEXT, "en-us+m3", pitch=90)) > 1.2 * pitch_of(plain)
    quiet = espeak.synthesize(TEXT, "en-us+m3", volume=50)
    assert np.abs(quiet.astype(int)).max() < 0.7 * np.abs(plain.astype(int)).max()
    # Women's variants are higher than men's.
    assert pitch_of(espeak.synthesize(TEXT, "en-us+f1")) > 1.3 * pitch_of(plain)


@pytest.mark.parametrize("train, test", OF_CORPUS.values(), ids=OF_CORPUS)
def test_voices_of_the_corpus_are_there_and_differ(train, test):
    voices = train + test
    assert len(train) >= 10 and len(test) == 2
    assert len(set(voices)) == len(voices)
    assert not {v.split("+")[1] for v in test} & {v.split("+")[1] for v in train}
    assert {voice.split("+")[1] for voice in voices} <= set(espeak.variants())
    sounds = {espeak.synthesize("Good morning.", voice).tobytes() for voice in voices}
    assert len(sounds) == len(voices)


@pytest.mark.parametrize("voice", ["xx-nowhere", "en-us+nobody", "", "+f1"])
def test_unknown_voice(voice):
    with pytest.raises(SpireError, match="voice"):
        espeak.synthesize(TEXT, voice)
    assert len(espeak.synthesize("Yes.", "en-us"))


def test_bad_values():
    with pytest.raises(SpireError, match="rate 20 is not between 80 and 450"):
        espeak.synthesize(TEXT, "en-us", rate=20)
    with pytest.raises(SpireError, match="NUL"):
        espeak.synthesize("a\0b", "en-us")
    for nothing in ("", "   "):
        with pytest.raises(SpireError, match="nothing to hear"):
            espeak.synthesize(nothing, "en-us")


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpireError, match=r"pip install 'espnet_spire\[mini\]'"):
        espeak.synthesize(TEXT, "en-us")
