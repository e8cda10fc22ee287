"""Lhotse's manifests and recipes, real ones, become data directories."""

import subprocess
import sys
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import soundfile
from corpora import librispeech
from corpora.checks import prepare
from corpora.kaldi import RATE, ramp
from lhotse import (
    AudioSource,
    CutSet,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
)

from espnet_spire.bin.import_lhotse import main
from espnet_spire.corpus.format import Limits, format_data_dir
from espnet_spire.corpus.lhotse_manifests import open_manifests
from espnet_spire.utils.datadir import read_rejected, read_table, validate_data_dir
from espnet_spire.utils.errors import SpireError

SECOND = RATE


def tables(out):
    validate_data_dir(out)
    names = [path.name for path in out.iterdir() if path.suffix not in (".json", ".tsv")]
    return {name: read_table(out / name, allow_empty_value=True) for name in names}


def audio_of(out, formatted):
    """What stage 2 makes of a directory: key → int16 samples."""
    with ThreadPool(1) as pool:
        format_data_dir(out, formatted, limits=Limits(), pool=pool, audio_format="wav")
    scp = read_table(formatted / "wav.scp")
    return {key: soundfile.read(path, dtype="int16")[0] for key, path in scp.items()}


def wav(path, *channels):
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype="PCM_16")
    return path


def supervision(key, recording, start=0.0, duration=1.0, **more):
    given = {"text": f"text of {key}", "speaker": "spk", "channel": 0, **more}
    return SupervisionSegment(key, recording, start, duration, **given)


class Manifests:
    """Manifest files of given objects, and the command's options for them."""

    def __init__(self, tmp_path):
        self.folder = tmp_path
        self.out = tmp_path / "data" / "train"

    def of(self, recordings, supervisions):
        RecordingSet.from_recordings(recordings).to_file(self.folder / "r.jsonl.gz")
        SupervisionSet.from_segments(supervisions).to_file(self.folder / "s.jsonl.gz")
        names = {
            name: str(self.folder / f"{name[0]}.jsonl.gz")
            for name in ("recordings", "supervisions")
        }
        return [word for name, path in names.items() for word in (f"--{name}", path)]

    def of_cuts(self, cuts):
        CutSet.from_cuts(cuts).to_file(self.folder / "c.jsonl.gz")
        return ["--cuts", str(self.folder / "c.jsonl.gz")]

    def run(self, *options):
        main([*options, "--out", str(self.out)])
        return tables(self.out)

    def rejected(self, *options):
        """Everything is allowed to be unusable, but for one utterance that is fine."""
        self.run(*options, "--max_rejected", "1")
        return read_rejected(self.out / "rejected.tsv")


@pytest.fixture
def manifests(tmp_path):
    return Manifests(tmp_path)


@pytest.fixture
def mono(tmp_path):
    """Four seconds of a ramp."""
    return Recording.from_file(wav(tmp_path / "rec.wav", ramp(0, 2 * SECOND)), recording_id="rec")


def test_whole_recordings(manifests, tmp_path):
    recordings, supervisions = [], []
    for number, key in enumerate(("b", "a")):  # in no order
        recording = Recording.from_file(wav(tmp_path / f"{key} x.wav", ramp(1000 * number)))
        recordings.append(recording)
        more = {"custom": {"orig": f"Orig {key}.", "de": f"Deutsch {key}"}, "text": f"t {key}\n"}
        supervisions.append(supervision(key, recording.id, 0, recording.duration, **more))
    given = manifests.of(recordings, supervisions)
    found = manifests.run(*given)
    assert found == {
        "wav.scp": {"spk-a": f"{tmp_path}/a x.wav", "spk-b": f"{tmp_path}/b x.wav"},
        "text": {"spk-a": "t a", "spk-b": "t b"},
        "utt2spk": {"spk-a": "spk", "spk-b": "spk"},
        "spk2utt": {"spk": "spk-a spk-b"},
    }
    found = manifests.run(
        *given, "--text_field", "custom.orig", "--translation", "de=custom.de", "fr=custom.fr"
    )
    assert found["text"] == {"spk-a": "Orig a.", "spk-b": "Orig b."}
    assert found["text.tc.de"] == {"spk-a": "Deutsch a", "spk-b": "Deutsch b"}
    assert "text.tc.fr" not in found


def test_parts_of_recordings(manifests, mono, tmp_path):
    given = manifests.of(
        [mono],
        [
            supervision("spk-2", "rec", 1.5, 0.25),
            supervision("spk-1", "rec", 0.25, 0.5),
            supervision("spk-3", "rec", 0, 2.0),  # all of it
        ],
    )
    found = manifests.run(*given)
    assert found["segments"] == {
        "spk-1": "rec 0.250 0.750",
        "spk-2": "rec 1.500 1.750",
        "spk-3": "spk-3 0.000 -1",
    }
    audio = audio_of(manifests.out, tmp_path / "formatted")
    assert np.array_equal(audio["spk-1"], ramp(0, 2 * SECOND)[4000:12000])
    assert np.array_equal(audio["spk-2"], ramp(0, 2 * SECOND)[24000:28000])
    assert np.array_equal(audio["spk-3"], ramp(0, 2 * SECOND))


@pytest.mark.parametrize("files", [1, 2])
def test_channels_as_lhotse_loads_them(manifests, tmp_path, files):
    """Of one file with two channels, or of a file for each."""
    left, right = ramp(0, 2 * SECOND), ramp(3, 2 * SECOND)[::-1]
    if files == 1:
        sources = [AudioSource("file", [0, 1], str(wav(tmp_path / "both.wav", left, right)))]
    else:
        sources = [
            AudioSource("file", [0], str(wav(tmp_path / "left.wav", left))),
            AudioSource("file", [1], str(wav(tmp_path / "right.wav", right))),
        ]
    recording = Recording("call", sources, RATE, 2 * SECOND, 2.0)
    supervisions = [
        supervision("a-1", "call", 0.5, 0.5, speaker="a", channel=0),
        supervision("b-1", "call", 0.75, 1.0, speaker="b", channel=1),
        supervision("b-2", "call", 0, 2.0, speaker="b", channel=1),
    ]
    manifests.run(*manifests.of([recording], supervisions))
    audio = audio_of(manifests.out, tmp_path / "formatted")
    for one in supervisions:
        loaded = recording.load_audio(channels=one.channel, offset=one.start, duration=one.duration)
        assert np.array_equal(audio[one.id], np.round(loaded[0] * 32768).astype(np.int16))


def test_a_supervision_of_all_channels_is_their_average(manifests, tmp_path):
    path = wav(tmp_path / "both.wav", ramp(0, SECOND), ramp(100, SECOND))
    recording = Recording.from_file(path, recording_id="call")
    manifests.run(*manifests.of([recording], [supervision("a", "call", 0, 1.0, channel=[0, 1])]))
    audio = audio_of(manifests.out, tmp_path / "formatted")
    assert np.array_equal(audio["spk-a"], ramp(50, SECOND))


def test_commands_are_pipes(manifests, tmp_path):
    path = wav(tmp_path / "x.wav", ramp(7, SECOND))
    source = AudioSource("command", [0], f"cat '{path}'")
    recording = Recording("r", [source], RATE, SECOND, 1.0)
    found = manifests.run(*manifests.of([recording], [supervision("a", "r")]))
    assert found["wav.scp"] == {"spk-a": f"cat '{path}' |"}
    audio = audio_of(manifests.out, tmp_path / "formatted")
    assert np.array_equal(audio["spk-a"], ramp(7, SECOND))


def test_what_cannot_be_used_is_listed(manifests, mono, tmp_path):
    stereo = Recording.from_file(
        wav(tmp_path / "stereo.wav", ramp(0), ramp(0)), recording_id="stereo"
    )
    url = AudioSource("url", [0], "https://example.org/x.wav")
    shar = AudioSource("shar", [0], "")
    gone = AudioSource("file", [0], str(tmp_path / "gone.wav"))
    recordings = [mono, stereo, mono.perturb_speed(1.1), mono.resample(8000)]
    recordings[3].id = "resampled"
    for key, source in (("url", url), ("shar", shar), ("gone", gone)):
        recordings.append(Recording(key, [source], RATE, SECOND, 1.0))
    supervisions = [
        supervision("fine", "rec", 0, 2.0),
        supervision("fast", "rec_sp1.1"),
        supervision("resampled", "resampled", 0, 2.0),
        *(supervision(key, key) for key in ("url", "shar", "gone")),
        supervision("nowhere", "none"),
        supervision("third", "stereo", channel=2),
        supervision("late", "rec", -1, 0.5),
        supervision("silent", "rec", text=None),
        supervision("a b/c", "rec"),
    ]
    given = manifests.of(recordings, supervisions)
    rejected = manifests.rejected(*given)
    where = f"{tmp_path}/s.jsonl.gz, supervision"
    assert rejected == {
        "fast": f"the recording is changed on the fly (Speed); save its audio first ({where} 2)",
        "url": f"audio at a URL (https://example.org/x.wav); download it first ({where} 4)",
        "shar": f"audio in Lhotse Shar's archives; save it to files first ({where} 5)",
        "spk-gone": f"{tmp_path}/gone.wav: no such audio file ({where} 6)",
        "nowhere": f"recording none is not among the recordings ({where} 7)",
        "third": f"channels [2] are in none of its recording's files ({where} 8)",
        "spk-late": f"-1 s to -0.5 s is no part of a recording ({where} 9)",
        "spk-silent": f"empty transcript ({where} 10)",
    }
    assert list(read_table(manifests.out / "text")) == ["spk-a_b_c", "spk-fine", "spk-resampled"]
    with pytest.raises(SpireError, match="8 of 11 utterances are unusable"):
        manifests.run(*given)


def test_cuts(manifests, mono, tmp_path):
    whole = mono.to_cut()
    whole.id, whole.supervisions = "whole", [supervision("spk-0", "rec", 0, 2.0)]
    part = mono.to_cut().truncate(offset=0.5, duration=1.0)
    # one within the cut, one that the cut cuts
    part.id = "part"
    part.supervisions = [
        supervision("spk-1", "rec", 0.25, 0.5),
        supervision("spk-2", "rec", 0.75, 0.5),
    ]
    bare = mono.to_cut()
    bare.id = "bare"
    padded = whole.pad(duration=3.0)
    padded.id = "padded"
    given = manifests.of_cuts([whole, part, bare, padded])
    rejected = manifests.rejected(*given)
    assert rejected == {
        "bare": f"the cut has no supervision, so no text ({tmp_path}/c.jsonl.gz, cut 3)",
        "padded": "a MixedCut is no part of one recording; save its audio first"
        f" ({tmp_path}/c.jsonl.gz, cut 4)",
    }
    audio = audio_of(manifests.out, tmp_path / "formatted")
    samples = ramp(0, 2 * SECOND)
    expected = {"spk-0": samples, "spk-1": samples[12000:20000], "spk-2": samples[20000:24000]}
    assert audio.keys() == expected.keys()
    for key, one in expected.items():
        assert np.array_equal(audio[key], one), key


def test_items_are_read_when_they_are_asked_for(manifests, mono):
    manifests.of([mono], [supervision("a", "rec")])
    folder = manifests.folder
    opened = open_manifests(folder / "r.jsonl.gz", folder / "s.jsonl.gz", None)
    assert opened.recordings._items.is_lazy and opened.supervisions._items.is_lazy


def test_recipe_makes_what_our_reader_makes(manifests, tmp_path):
    root = librispeech.build(tmp_path / "Libri Speech")
    ours = prepare("librispeech", root, "test-clean", tmp_path / "ours")
    theirs = manifests.run(
        *("--recipe", "librispeech", "--corpus_dir", str(root / "LibriSpeech"), "--test_set"),
        *("--option", "dataset_parts=[test-clean, dev-clean]", "--part", "test-clean"),
    )
    assert theirs == ours
    assert [path.name for path in manifests.out.parent.iterdir()] == ["train"]


def test_yesno(manifests, tmp_path):
    """60 files at 8 kHz; the text is in their names."""
    corpus = tmp_path / "waves_yesno"
    corpus.mkdir()
    for number in range(60):
        digits = "_".join(f"{number * 4:08b}")
        soundfile.write(corpus / f"{digits}.wav", ramp(number, 800), 8000, subtype="PCM_16")
    given = ["--recipe", "yesno", "--corpus_dir", str(corpus)]
    with pytest.raises(SpireError, match="prepare_yesno: --part is missing; there are train, test"):
        manifests.run(*given)
    with pytest.raises(SpireError, match="prepare_yesno: no part 'dev'; there are train, test"):
        manifests.run(*given, "--part", "dev")
    found = manifests.run(*given, "--part", "test")
    assert len(found["text"]) == 30
    key = "0_0_0_0_0_1_0_0"  # the second file
    assert found["text"][key] == "NO NO NO NO NO YES NO NO"
    assert found["wav.scp"][key] == f"{corpus}/{key}.wav"
    assert found["utt2spk"][key] == key  # lhotse's recipe names no speaker


def test_recipes_that_cannot_be_run(manifests, tmp_path):
    given = ["--corpus_dir", str(tmp_path), "--recipe"]
    with pytest.raises(SpireError, match="lhotse has no recipe 'nothing'; it has adept, aishell"):
        manifests.run(*given, "nothing")
    with pytest.raises(SpireError, match="prepare_yesno has no option 'lang'; it has corpus_dir"):
        manifests.run(*given, "yesno", "--option", "lang=en")
    with pytest.raises(SpireError, match=f"prepare_yesno failed on {tmp_path}: AssertionError"):
        manifests.run(*given, "yesno", "--part", "test")
    with pytest.raises(SpireError, match="none: no such directory"):
        manifests.run("--corpus_dir", str(tmp_path / "none"), "--recipe", "yesno")
    with pytest.raises(SpireError, match="--recipe needs --corpus_dir"):
        manifests.run("--recipe", "yesno")


def test_manifests_that_are_none(manifests, mono, tmp_path):
    given = manifests.of([mono], [supervision("a", "rec", 0, 2.0)])
    with pytest.raises(SpireError, match="has a SupervisionSet, a RecordingSet was expected"):
        manifests.run("--recordings", given[3], *given[2:])
    with pytest.raises(SpireError, match="none.jsonl: no such file"):
        manifests.run("--recordings", str(tmp_path / "none.jsonl"), *given[2:])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SpireError, match="empty.jsonl: the manifest is empty"):
        manifests.run("--cuts", str(tmp_path / "empty.jsonl"))
    (tmp_path / "text.jsonl").write_text("no manifest\n")
    with pytest.raises(SpireError, match="text.jsonl: not a manifest of lhotse"):
        manifests.run("--cuts", str(tmp_path / "text.jsonl"))
    supervision("a", "rec")
    broken = tmp_path / "broken.jsonl"
    SupervisionSet.from_segments([supervision("a", "rec", 0, 2.0)]).to_file(broken)
    with open(broken, "a") as stream:
        stream.write('{"id": "b", "reco\n')
    with pytest.raises(SpireError, match="broken.jsonl, line 2: JSONDecodeError"):
        manifests.run(*given[:2], "--supervisions", str(broken))
    for few in ([], given[:2], [*given, "--cuts", "c"]):
        with pytest.raises(SpireError, match="name --recordings and --supervisions, or --cuts, or"):
            manifests.run(*few)


def test_without_lhotse_it_says_how_to_install_it(tmp_path):
    (tmp_path / "lhotse.py").write_text("raise ImportError('No module named lhotse')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from espnet_spire.bin.import_lhotse import main\n"
        "from espnet_spire.utils.cli import run\nrun(main)"
    )
    command = [sys.executable, "-c", script, "--recipe", "yesno", "--corpus_dir", "/", "--out", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: lhotse cannot be imported (No module named lhotse):"
        " pip install 'espnet_spire[lhotse]'"
    )
