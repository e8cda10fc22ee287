"""Which utterances k-means learns from."""

import numpy as np
import pytest

from espnet_spire.units.sampling import (
    read_sample,
    sample_utterances,
    speaker_limits,
    write_sample,
)
from espnet_spire.utils.errors import SpireError

SECOND = 16000


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, make_data_dir):
    """Two corpora of 20 utterances of a second; speakers read 8, 8 and 4 of each."""
    root = tmp_path_factory.mktemp("corpora")
    directories = []
    for name in "ab":
        utterances = {f"{name}{number:02d}": np.zeros(SECOND) for number in range(20)}
        speakers = {key: f"spk{int(key[1:]) // 8}" for key in utterances}
        directories.append(make_data_dir(root / name, utterances, speakers=speakers))
    return directories


def keys(*args, **options):
    return [item.key for item in sample_utterances(*args, **{"hours": 1, "seed": 0, **options})]


def test_all_corpora_in_one_random_order(corpora):
    order = keys(corpora, seed=1)
    assert sorted(order) == [f"{name}{number:02d}" for name in "ab" for number in range(20)]
    assert 4 <= sum(key.startswith("a") for key in order[:20]) <= 16
    assert order == keys(corpora, seed=1) != keys(corpora, seed=2)


def test_hours_are_used_up_by_the_first_in_order(corpora):
    everything = keys(corpora)
    for seconds in (1, 9, 39):
        assert keys(corpora, hours=seconds / 3600) == everything[:seconds]
    # the utterance that crosses the limit belongs
    assert keys(corpora, hours=9.5 / 3600) == everything[:10]


def test_at_most_n_of_a_speaker(corpora):
    chosen = keys(corpora, max_per_speaker=[5])
    counts = {}
    for key in chosen:
        speaker = key[0], int(key[1:]) // 8
        counts[speaker] = counts.get(speaker, 0) + 1
    # the same speaker name in two corpora is two speakers
    assert counts == {
        ("a", 0): 5, ("a", 1): 5, ("a", 2): 4, ("b", 0): 5, ("b", 1): 5, ("b", 2): 4,
    }  # fmt: skip
    assert any(int(key[1:]) % 8 > 4 for key in chosen)  # not the first of them only
    # those that come first in the order without a limit
    everything = keys(corpora)
    assert chosen == [key for key in everything if key in chosen]
    first = [key for key in everything if key.startswith("a") and int(key[1:]) < 8][:5]
    assert set(first) <= set(chosen)


def test_a_limit_for_each_corpus(corpora):
    chosen = keys(corpora, max_per_speaker=[2, 0])
    assert sum(key.startswith("a") for key in chosen) == 6
    assert sum(key.startswith("b") for key in chosen) == 20
    assert speaker_limits("abc", [8, 250, 0]) == [8, 250, None]
    assert speaker_limits("abc", []) == [None] * 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_per_speaker": [1, 2, 3]}, "3 values of --max_per_speaker for 2 --data_dir"),
        ({"max_per_speaker": [-1]}, "--max_per_speaker -1"),
        ({"hours": 0}, "--hours 0"),
        ({"hours": -2}, "--hours -2"),
        ({"hours": float("nan")}, "--hours nan"),
    ],
)
def test_bad_options(corpora, options, message):
    with pytest.raises(SpireError, match=message):
        keys(corpora, **options)


def test_speakers_must_be_known(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {key: np.zeros(SECOND) for key in ("u1", "u2")})
    (directory / "utt2spk").write_text("u1 s\n")
    assert len(keys([directory])) == 2  # nobody asks for speakers
    with pytest.raises(SpireError, match="utt2spk: utterance u2 is missing"):
        keys([directory], max_per_speaker=[2])


def test_utterances_without_a_length_are_drawn_with_a_reason(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {f"u{n}": np.zeros(SECOND) for n in range(4)})
    (directory / "audio" / "u2.wav").write_bytes(b"not audio")
    chosen = sample_utterances([directory], hours=1, seed=0, max_per_speaker=[9])
    assert {item.key for item in chosen if item.reason} == {"u2"}
    assert {item.num_samples for item in chosen if not item.reason} == {SECOND}


def test_limits_at_their_edges(tmp_path, make_data_dir):
    """One utterance a speaker, limits above any count, and the same choice as by hand."""
    directory = make_data_dir(tmp_path / "d", {f"u{n}": np.zeros(SECOND) for n in range(9)})
    everything = keys([directory])
    (directory / "utt2spk").write_text("".join(f"u{n} u{n}\n" for n in range(9)))
    assert keys([directory], max_per_speaker=[1]) == everything
    (directory / "utt2spk").write_text("".join(f"u{n} s{n % 2}\n" for n in range(9)))
    for limit in (1, 2, 4, 5, 9, 100):
        expected, counts = [], {"0": 0, "1": 0}
        for key in everything:
            speaker = str(int(key[1:]) % 2)
            counts[speaker] += 1
            if counts[speaker] <= limit:
                expected.append(key)
        assert keys([directory], max_per_speaker=[limit]) == expected


def test_a_limit_takes_little_memory(tmp_path, make_data_dir):
    """A speaker an utterance, as in many corpora: whole utterances are not kept for them."""
    import tracemalloc

    count = 5000
    directory = make_data_dir(tmp_path / "d", {"u": np.zeros(SECOND)})
    names = [f"a-speaker-with-a-long-name-{number:07d}" for number in range(count)]
    wav = directory / "audio" / "u.wav"
    for name, value in (("wav.scp", wav), ("utt2num_samples", SECOND)):
        (directory / name).write_text("".join(f"{key} {value}\n" for key in names))
    (directory / "utt2spk").write_text("".join(f"{key} {key}\n" for key in names))
    tracemalloc.start()
    chosen = keys([directory], hours=10 / 3600, max_per_speaker=[2])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert chosen == keys([directory], hours=10 / 3600) and len(chosen) == 10
    assert peak < 200 * count  # a whole utterance takes more than 1000 bytes


def test_a_sample_that_was_written_down(tmp_path, make_data_dir):
    directories = [
        make_data_dir(tmp_path / name, {f"u{n}": np.zeros(SECOND) for n in range(4)})
        for name in "ab"
    ]
    (directories[0] / "audio" / "u2.wav").write_bytes(b"not audio")
    drawn = sample_utterances(directories, hours=1, seed=0)
    path = tmp_path / "work" / "sample.jsonl"
    write_sample(path, drawn)
    assert read_sample(path, directories) == drawn
    # other lengths now, more utterances, and another promise of a length: the sample stays
    (directories[0] / "audio" / "u1.wav").write_bytes(b"")
    audio = directories[1] / "audio" / "u0.wav"
    with open(directories[1] / "wav.scp", "a") as stream:
        stream.write(f"u9 {audio}\n")
    (directories[0] / "utt2dur").write_text("".join(f"u{n} 1.5\n" for n in range(4)))
    again = read_sample(path, directories)
    assert [item._replace(source=None) for item in again] == [
        item._replace(source=None) for item in drawn
    ]
    promised = {item.source.expected.seconds for item in again if item.corpus == 0}
    assert promised == {1.5}


def test_a_sample_whose_data_changed(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {f"u{n}": np.zeros(SECOND) for n in range(3)})
    path = tmp_path / "work" / "sample.jsonl"
    write_sample(path, sample_utterances([directory], hours=1, seed=0))
    lines = (directory / "wav.scp").read_text().splitlines(keepends=True)
    (directory / "wav.scp").write_text("".join(lines[:2]))
    with pytest.raises(SpireError, match="d: utterance u2 of the sample is gone; .*/work to begin"):
        read_sample(path, [directory])
    (directory / "wav.scp").write_text("".join([*lines[:2], lines[2].replace("u2.wav", "u1.wav")]))
    with pytest.raises(SpireError, match=r"audio of utterance u2 was .*u2.wav.* now it is .*u1"):
        read_sample(path, [directory])
    (directory / "wav.scp").write_text("".join(lines))
    (directory / "segments").write_text("".join(f"u{n} u{n} 0 0.5\n" for n in range(3)))
    with pytest.raises(SpireError, match=r"utterance u0 was .*0.0, None\) .* 0.0, 0.5\)"):
        read_sample(path, [directory])
    path.write_text("{}\n")
    with pytest.raises(SpireError, match="sample.jsonl: not a sample; remove"):
        read_sample(path, [directory])
