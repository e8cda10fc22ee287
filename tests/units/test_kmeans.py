"""k-means: what it learns from, that it finds what is there, and that a seed fixes it."""

import numpy as np
import pytest
import torch

from espnet_spire.bin import learn_kmeans
from espnet_spire.units import kmeans
from espnet_spire.units.codebook import load_codebook
from espnet_spire.units.encoder import _describe
from espnet_spire.units.kmeans import (
    collect_frames,
    learn_codebook,
    perplexity,
    sample_utterances,
)
from espnet_spire.utils.errors import SpireError

SECOND = 16000


class LevelEncoder:
    """Feature of a frame: the mean and the spread of its samples, so that tests can plan them."""

    dim = 2
    description = _describe("level", "level", 0, "none", 0.0, 2)

    def __call__(self, batch):
        result = []
        for samples in batch:
            frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::320]
            features = np.stack([frames.mean(axis=1), frames.std(axis=1)], axis=1)
            result.append(torch.from_numpy(features.astype(np.float32)))
        return result


def constant(level, seconds):
    return np.full(int(seconds * SECOND), level)


def learn(directories, **changes):
    settings = {
        "num_clusters": 4,
        "hours": 1.0,
        "max_per_speaker": None,
        "seed": 0,
        "max_bytes": 2**24,
    }
    return learn_codebook(LevelEncoder(), directories, **{**settings, **changes})


@pytest.fixture
def two_corpora(tmp_path, make_data_dir):
    """Corpus a at levels near 0.1 and 0.2, corpus b near 0.6 and 0.7; 49 frames an utterance."""
    rng = np.random.default_rng(0)

    def corpus(name, levels):
        utterances = {
            f"{name}{number:02d}": levels[number % 2] + 0.002 * rng.standard_normal(SECOND)
            for number in range(20)
        }
        speakers = {key: f"{name}-spk{int(key[1:]) // 8}" for key in utterances}
        return make_data_dir(tmp_path / name, utterances, speakers=speakers)

    return [corpus("a", (0.1, 0.2)), corpus("b", (0.6, 0.7))]


def test_finds_the_clusters_that_are_there(two_corpora):
    codebook = learn(two_corpora, passes=20)
    assert codebook.num_clusters == 4
    levels = sorted(codebook.centroids[:, 0].tolist())
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.6, 0.7], atol=2e-3)
    description = codebook.description
    # 40 utterances of 49 frames, evenly over four clusters
    assert description["frames"] == 40 * 49
    assert description["dead_share"] == 0
    assert description["perplexity"] == pytest.approx(4, abs=0.05)
    # both inertias are the spread inside a cluster: the frame means' variance and a bit
    assert 0 < description["inertia"] < 1e-5
    assert description["held_out_inertia"] == pytest.approx(description["inertia"], rel=0.5)
    assert (description["num_clusters"], description["seed"], description["layer"]) == (4, 0, 0)


def test_frames_of_all_corpora_are_shuffled_before_seeding(two_corpora, monkeypatch):
    seen = {}

    class Recorder(kmeans.MiniBatchKMeans):
        def fit(self, frames):
            seen["frames"] = frames.copy()
            return super().fit(frames)

    monkeypatch.setattr(kmeans, "MiniBatchKMeans", Recorder)
    learn(two_corpora)
    from_b = seen["frames"][:, 0] > 0.4
    assert len(from_b) == 40 * 49 * 19 // 20
    for stretch in np.array_split(from_b, 5):  # about 372 frames: 5 standard deviations are 0.13
        assert 0.37 < stretch.mean() < 0.63
    switches = np.mean(from_b[1:] != from_b[:-1])  # sorted: 0.0005, by utterance: 0.01
    assert 0.45 < switches < 0.55


def test_utterances_of_all_corpora_are_shuffled(two_corpora):
    keys = [chosen.key for chosen in sample_utterances(two_corpora, max_per_speaker=None, seed=1)]
    assert sorted(keys) == [f"{name}{number:02d}" for name in "ab" for number in range(20)]
    first = sum(key.startswith("a") for key in keys[:20])
    assert 4 <= first <= 16
    again = [c.key for c in sample_utterances(two_corpora, max_per_speaker=None, seed=1)]
    other = [c.key for c in sample_utterances(two_corpora, max_per_speaker=None, seed=2)]
    assert keys == again != other


def test_at_most_n_of_a_speaker(two_corpora):
    chosen = sample_utterances(two_corpora, max_per_speaker=5, seed=0)
    counts = {}
    for utterance in chosen:
        speaker = utterance.key[0], int(utterance.key[1:]) // 8
        counts[speaker] = counts.get(speaker, 0) + 1
    # speakers read 8, 8 and 4 utterances of each corpus
    assert counts == {
        ("a", 0): 5, ("a", 1): 5, ("a", 2): 4, ("b", 0): 5, ("b", 1): 5, ("b", 2): 4,
    }  # fmt: skip
    # and not always the first of them
    assert any(int(utterance.key[1:]) % 8 > 4 for utterance in chosen)


def test_the_same_name_in_two_corpora_is_two_speakers(tmp_path, make_data_dir):
    directories = [
        make_data_dir(tmp_path / name, {f"{name}{n}": constant(0.1, 0.1) for n in range(3)})
        for name in "ab"
    ]
    chosen = sample_utterances(directories, max_per_speaker=2, seed=0)
    assert sorted(utterance.key[0] for utterance in chosen) == ["a", "a", "b", "b"]


def test_speakers_must_be_known(two_corpora):
    (two_corpora[0] / "utt2spk").write_text("a00 s\n")
    with pytest.raises(SpireError, match="utt2spk: utterance a.. is missing"):
        sample_utterances(two_corpora, max_per_speaker=2, seed=0)


def test_hours_budget(two_corpora):
    chosen = sample_utterances(two_corpora, max_per_speaker=None, seed=0)
    frames = collect_frames(
        LevelEncoder(), chosen, hours=10 / 3600, max_bytes=2**24, batch_seconds=4
    )
    assert frames.shape == (10 * 49, 2)  # ten utterances of a second
    assert frames.dtype == np.float32


def test_memory_budget_thins_out_but_keeps_all_utterances(two_corpora):
    chosen = sample_utterances(two_corpora, max_per_speaker=None, seed=0)
    limit = 400
    frames = collect_frames(
        LevelEncoder(), chosen, hours=1, max_bytes=limit * 2 * 4, batch_seconds=2
    )
    assert limit / 4 < len(frames) <= limit
    share_b = np.mean(frames[:, 0] > 0.4)
    assert 0.35 < share_b < 0.65


def test_short_utterances_are_passed_over(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {"long": constant(0.1, 0.5), "short": np.zeros(399)})
    chosen = sample_utterances([directory], max_per_speaker=None, seed=0)
    frames = collect_frames(LevelEncoder(), chosen, hours=1, max_bytes=2**20, batch_seconds=1)
    assert len(frames) == 24
    only_short = make_data_dir(tmp_path / "e", {"short": np.zeros(399)})
    with pytest.raises(SpireError, match="no frames to learn from"):
        learn([only_short])


def test_too_little_audio_for_k(tmp_path, make_data_dir):
    # 21 frames, one of them held out: 20 are not enough for 21 clusters
    directory = make_data_dir(tmp_path / "d", {"u": np.linspace(0, 0.5, 400 + 20 * 320)})
    with pytest.raises(SpireError, match="20 frames cannot make --num_clusters 21"):
        learn([directory], num_clusters=21)
    assert learn([directory], num_clusters=20).num_clusters == 20


def test_perplexity_by_hand():
    assert perplexity(np.array([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert perplexity(np.array([7, 0])) == pytest.approx(1)
    # entropy of (1/2, 1/4, 1/4) is 1.5 bits
    assert perplexity(np.array([4, 2, 2])) == pytest.approx(2**1.5)


def test_the_same_seed_gives_the_same_bytes(tmp_path, make_data_dir, make_audio, capsys):
    directories = [
        str(
            make_data_dir(
                tmp_path / name, {f"{name}{n}": make_audio(1, n + 10 * i) for n in (1, 2)}
            )
        )
        for i, name in enumerate("ab")
    ]

    def codebook(name, seed):
        out = tmp_path / name
        options = ["--encoder", "mfcc", "--layer", "0", "--num-clusters", "8", "--out", str(out)]
        learn_kmeans.main(["--data_dir", *directories, *options, "--seed", seed])
        return [(out / file).read_bytes() for file in ("codebook.safetensors", "codebook.json")]

    assert codebook("one", "3") == codebook("two", "3")
    assert codebook("one", "3")[0] != codebook("three", "4")[0]
    assert "frames 196, inertia " in capsys.readouterr().out  # 4 utterances of 49 frames
    loaded = load_codebook(tmp_path / "one")
    assert loaded.centroids.shape == (8, 39)
    assert loaded.description["encoder_type"] == "mfcc"
    assert loaded.description["seed"] == 3


def test_command_on_fewer_frames_than_can_be_held_out(tmp_path, make_data_dir, make_audio, capsys):
    directory = make_data_dir(tmp_path / "d", {"u": make_audio(0.3, 0)})  # 14 frames
    learn_kmeans.main(
        ["--data_dir", str(directory), "--encoder", "mfcc", "--layer", "0"]
        + ["--num_clusters", "2", "--out", str(tmp_path / "book")]
    )
    assert load_codebook(tmp_path / "book").description["held_out_inertia"] is None
    assert "held_out_inertia" not in capsys.readouterr().out
