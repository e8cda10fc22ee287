import wave

import pytest

from espnet_spire.units.statistics import (
    as_json,
    count_units,
    frame_counter,
    markdown_table,
    total_of,
)
from espnet_spire.utils.errors import SpireError


def write_set(directory, samples):
    """A data directory of silence, lengths in the headers alone."""
    directory.mkdir()
    lines = []
    for key, count in sorted(samples.items()):
        with wave.open(str(directory / f"{key}.wav"), "wb") as stream:
            stream.setparams((1, 2, 16000, count, "NONE", ""))
            stream.writeframes(bytes(2 * count))
        lines.append(f"{key} {directory / key}.wav\n")
    (directory / "wav.scp").write_text("".join(lines))
    return directory


def write_units(path, **lines):
    rows = (f"{key} {line}".rstrip() + "\n" for key, line in sorted(lines.items()))
    path.write_text("".join(rows))
    return path


def reject(units, **reasons):
    lines = (f"{key}\t{reason}\n" for key, reason in sorted(reasons.items()))
    units.with_name(f"{units.name}.rejected.tsv").write_text("".join(lines))
    return units


def count(data_dir, units, description=None):
    missing = {}
    row = count_units(
        "a set",
        data_dir,
        units,
        frames_of=frame_counter(description),
        on_missing=missing.__setitem__,
    )
    return row, missing


# 1040 samples make (1040 - 400) // 320 + 1 = 3 frames, 1039 make 2, 2000 make 6
SAMPLES = {"a": 1040, "b": 1039, "c": 399, "d": 2000, "e": 800}


@pytest.fixture
def data_dir(tmp_path):
    return write_set(tmp_path / "set", SAMPLES)


def test_row_by_hand(data_dir, tmp_path):
    units = write_units(tmp_path / "u", a="7 3", b="5", d="1 2 1 9", e="")
    row, missing = count(data_dir, reject(units, c="399 samples are shorter than one frame"))
    assert row == ("a set", 3, 1040 + 1039 + 2000, 3 + 2 + 6, 2 + 1 + 4, 2)
    assert missing == {
        "c": "399 samples are shorter than one frame",
        "e": f"its line in {tmp_path / 'u'} is empty",
    }
    seconds = 4079 / 16000
    assert as_json(row) == {
        "name": "a set",
        "utterances": 3,
        "hours": pytest.approx(seconds / 3600),
        "units_before_merging": 11,
        "units": 7,
        "units_per_second": pytest.approx(7 / seconds),
        "reduction": pytest.approx(4 / 11),
        "utterances_without_units": 2,
    }


def test_kept_repeats_give_the_same_row(data_dir, tmp_path):
    rest = {"c": "x", "e": "y"}
    merged = reject(write_units(tmp_path / "merged", a="7 3", b="5", d="1 2 1 9"), **rest)
    kept = reject(write_units(tmp_path / "kept", a="7 3 3", b="5 5", d="1 1 2 1 9 9"), **rest)
    assert count(data_dir, merged)[0] == count(data_dir, kept)[0]


def test_unreadable_audio(data_dir, tmp_path):
    (data_dir / "b.wav").write_bytes(b"RIFF nothing")
    units = {"a": "1", "d": "1"}
    rest = {"b": "unreadable audio", "c": "x", "e": "y"}
    row, missing = count(data_dir, reject(write_units(tmp_path / "u", **units), **rest))
    assert row.utterances == 2 and row.without_units == 3
    assert missing == rest
    with pytest.raises(SpireError, match="utterance b has units, but its length .*b.wav"):
        count(data_dir, write_units(tmp_path / "u", **{**units, "b": "1"}))


def test_an_utterance_that_neither_file_has(data_dir, tmp_path):
    """Units of another set, or of a set that has grown since: never counted in silence."""
    units = reject(write_units(tmp_path / "u", a="1", d="1", e="1"), b="x")
    with pytest.raises(SpireError, match="u: utterance c of .*set is missing and u.rejected.tsv"):
        count(data_dir, units)
    with pytest.raises(SpireError, match="u: utterance a of .*set is missing"):
        count(data_dir, write_units(tmp_path / "u", A="1", aa="1"))


def test_a_subset_of_what_was_extracted(tmp_path):
    part = write_set(tmp_path / "part", {"a": 1040, "d": 2000})
    units = write_units(tmp_path / "u", A="1", a="7 3", b="5", d="1 2 1 9", z="3")
    assert count(part, units) == (("a set", 2, 3040, 9, 6, 0), {})


def test_rounded_lengths_are_no_error(tmp_path):
    """51380 samples are 160 frames; the 3.2 s that utt2dur says of them are 159."""
    data_dir = write_set(tmp_path / "set", {"a": 51380})
    units = write_units(tmp_path / "u", a=" ".join(map(str, range(160))))
    assert count(data_dir, units)[0] == ("a set", 1, 51380, 160, 160, 0)
    (data_dir / "utt2dur").write_text("a 3.2\n")
    assert count(data_dir, units)[0] == ("a set", 1, 51200, 160, 160, 0)
    merged = write_units(tmp_path / "merged", a="1 2")
    assert count(data_dir, merged)[0] == ("a set", 1, 51200, 159, 2, 0)
    # 1 % and 0.05 s are let pass: 51200 + 512 + 800 samples are 163 frames
    for many, fits in ((163, True), (164, False)):
        units = write_units(tmp_path / "u", a=" ".join(["5"] * many))
        if fits:
            assert count(data_dir, units)[0].frames == 163
        else:
            with pytest.raises(SpireError, match="164 units, but its 51200 samples make 159"):
                count(data_dir, units)


def test_more_units_than_frames(data_dir, tmp_path):
    with pytest.raises(SpireError, match="utterance b has 3 units, but its 1039 samples make 2"):
        count(data_dir, write_units(tmp_path / "u", a="1", b="1 2 1"))
    with pytest.raises(SpireError, match="u: b: 'x' is not a sequence of integers"):
        count(data_dir, write_units(tmp_path / "u", a="1", b="x"))


def test_frames_of_other_encoders():
    assert [frame_counter()(n) for n in (399, 400, 719, 720, 16000)] == [0, 1, 1, 2, 49]
    unknown = {"encoder_type": None, "pool_frames": None}
    assert frame_counter(unknown)(16000) == 49
    pooled = frame_counter({"encoder_type": "hubert", "pool_frames": 2})
    # 49 frames are 24 pairs and one alone
    assert [pooled(n) for n in (399, 400, 720, 16000)] == [0, 1, 1, 25]
    # two spectral frames of 25 ms, 10 ms apart, each 20 ms
    spectral = frame_counter({"encoder_type": "wav2vec2-bert", "pool_frames": 1})
    assert [spectral(n) for n in (559, 560, 879, 880)] == [0, 1, 1, 2]


def test_total_and_table(data_dir, tmp_path):
    units = reject(write_units(tmp_path / "u", a="7 3", d="1 2 1 9"), b="x", c="y", e="z")
    first, _ = count(data_dir, units)
    second = first._replace(name="big|one", utterances=2_500_000, samples=5100 * 3600 * 16000)
    second = second._replace(frames=918_000_000, units=645_000_000, without_units=0)
    total = total_of([first, second])
    assert total == (
        *("Total", 2_500_002, 3040 + 5100 * 3600 * 16000, 918_000_009, 645_000_006, 3),
    )
    lines = markdown_table([first, second, total]).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    assert [cell.strip("| ") for cell in cells[3]] == [
        *("big\\|one", "2.5M", "5.1K", "918M", "645M", "35.1", "29.7 %", "0")
    ]
    assert [cell.strip("| ") for cell in cells[4]][-1] == "3"


def test_nothing_at_all(data_dir, tmp_path):
    everything = dict.fromkeys(SAMPLES, "silence")
    row, missing = count(data_dir, reject(write_units(tmp_path / "u"), **everything))
    assert row == ("a set", 0, 0, 0, 0, 5) and missing == everything
    assert (row.units_per_second, row.reduction) == (None, None)
    assert markdown_table([row]).splitlines()[2].count(" - ") == 2
    assert total_of([]) == ("Total", 0, 0, 0, 0, 0)
