import base64
import io

import numpy as np
import pytest
import soundfile
from helpers_tables import put_audio

from espnet_spire.score.tables.clips import Clips
from espnet_spire.utils.errors import SpireError

MIB = 2**20
KEYS = [("test", "u2"), ("test", "u1")]


@pytest.fixture
def raw(tmp_path):
    put_audio(tmp_path / "raw/test", {"u1": 1.0, "u2": 2.0})
    return tmp_path / "raw"


def test_audio_is_heard_again_and_small(raw):
    clips = Clips(raw, max_bytes=MIB)
    found = clips.of(KEYS)
    assert list(found) == KEYS and clips.notes == []
    clip = found[("test", "u2")]
    assert clip["units"] == "3 14 15" and clip["seconds"] == 2.0
    kind, _, coded = clip["audio"].partition(",")
    assert kind == "data:audio/mpeg;base64" and len(coded) < 20000
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(coded)))
    assert rate == 16000 and abs(len(wave) - 32000) < 3000
    spectrum = np.abs(np.fft.rfft(wave[4000:20000]))
    assert np.argmax(spectrum) == 440  # the tone, in Hz: it is a second that was transformed


def test_a_budget(raw):
    size = len(Clips(raw, max_bytes=MIB).of(KEYS)[KEYS[0]]["audio"])
    clips = Clips(raw, max_bytes=size)
    found = clips.of(KEYS)
    assert "audio" in found[KEYS[0]] and "audio" not in found[KEYS[1]]  # the most wanted first
    assert clips.notes == [
        f"1 of 2 utterances have no audio here: they are left out: {size / MIB:g} MiB is the limit"
        " (--max_audio_mib)"
    ]


def test_links(raw, tmp_path):
    clips = Clips(raw, max_bytes=0, link_from=tmp_path / "pages")
    assert clips.of(KEYS)[("test", "u1")]["audio"] == "../raw/test/audio/u1.flac"
    (raw / "test/segments").write_text("u1 u1 0.0 0.5\nu2 u2 0.5 1.0\n")
    assert "audio" not in clips.of(KEYS)[("test", "u1")]
    assert "2 of 2 utterances have no audio here: they are no whole files" in clips.notes[0]


def test_what_is_not_there_is_said(raw):
    clips = Clips(raw, max_bytes=MIB)
    found = clips.of([("flores", "a"), ("test", "u1"), ("test", "unknown")])
    assert found[("flores", "a")] == found[("test", "unknown")] == {}
    assert clips.notes == [f"no audio of flores: {raw}/flores has no wav.scp"]
    (raw / "test/audio/u1.flac").write_bytes(b"nothing")
    clips = Clips(raw, max_bytes=MIB)
    assert "audio" not in clips.of(KEYS)[("test", "u1")]
    assert "1 utterances cannot be heard" in clips.notes[0] and "u1.flac" in clips.notes[0]


def test_which_units(raw):
    put_audio(raw / "other", {"u1": 0.1})
    (raw / "other/text.rm.k_bpe").write_text("u1 9\n")
    (raw / "other/text.rm.k_bpe.rejected.tsv").write_text("")
    key = ("other", "u1")
    clips = Clips(raw, max_bytes=MIB)
    assert "units" not in clips.of([key])[key]
    assert clips.notes == ["no units of other: which of text.rm.k, text.rm.k_bpe? (--units_name)"]
    assert Clips(raw, max_bytes=MIB, units_name="text.rm.k_bpe").of([key])[key]["units"] == "9"
    with pytest.raises(SpireError, match="text.rm.x: no such file"):
        Clips(raw, max_bytes=MIB, units_name="text.rm.x").of([key])
