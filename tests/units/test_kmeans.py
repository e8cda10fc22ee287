"""From data directories to a codebook: what it is learned from, what it says, what is refused."""

import numpy as np
import pytest
import torch

from espnet_spire.units import kmeans
from espnet_spire.units.kmeans import (
    Options,
    cluster,
    learn_codebook,
    plan_learning,
    work_directory,
)
from espnet_spire.utils.errors import SpireError

SECOND = 16000
KINDS = [("sklearn", "float32"), ("torch", "float32"), ("torch", "bfloat16")]


class LevelEncoder:
    """Feature of a frame: the mean and the spread of its samples, so that tests can plan them."""

    dim = 2
    description = {
        "encoder": "level",
        "encoder_type": "level",
        "layer": 0,
        "normalization": "none",
        "normalization_eps": 0.0,
        "pooling": "none",
        "pool_frames": 1,
        "frame_rate": 50.0,
        "dim": 2,
    }

    def num_frames(self, num_samples):
        return max(0, (num_samples - 400) // 320 + 1)

    def __call__(self, batch):
        result = []
        for samples in batch:
            frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::320]
            features = np.stack([frames.mean(axis=1), frames.std(axis=1)], axis=1)
            result.append(torch.from_numpy(features.astype(np.float32)))
        return result


def constant(level, seconds):
    return np.full(int(seconds * SECOND), level)


def options_of(**changes):
    return Options(**{"num_clusters": 4, "hours": 1.0, "max_bytes": 2**26, **changes})


def learn(directories, *, dtype="auto", max_rejected=0.001, rejected_file=None, **changes):
    return learn_codebook(
        LevelEncoder(),
        directories,
        options_of(**changes),
        dtype=dtype,
        max_rejected=max_rejected,
        rejected_file=rejected_file,
    )


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory, make_data_dir):
    """Corpus a at levels near 0.1 and 0.2, corpus b near 0.6 and 0.7; 49 frames an utterance."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("corpora")

    def corpus(name, levels):
        utterances = {
            f"{name}{number:02d}": levels[number % 2] + 0.002 * rng.standard_normal(SECOND)
            for number in range(20)
        }
        return make_data_dir(root / name, utterances)

    return [corpus("a", (0.1, 0.2)), corpus("b", (0.6, 0.7))]


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_finds_the_clusters_that_are_there(two_corpora, backend, dtype):
    learned = learn(two_corpora, passes=20, backend=backend, dtype=dtype)
    codebook, description = learned.codebook, learned.codebook.description
    levels = sorted(codebook.centroids[:, 0].tolist())
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.6, 0.7], atol=2e-3)
    # 40 utterances of 49 frames, evenly over four clusters; one in twenty was held out
    assert description["frames"] == 40 * 49
    assert learned.use.sum() == 40 * 49 - 98
    assert description["hours"] == round(40 / 3600, 4)
    assert description["dead_share"] == 0
    assert description["perplexity"] == pytest.approx(4, abs=0.05)
    # both inertias are the spread inside a cluster: the frame means' variance and a bit
    assert 0 < description["inertia"] < 1e-5
    assert description["held_out_inertia"] == pytest.approx(description["inertia"], rel=0.5)
    assert description["held_out_inertia"] == description["history"][-1]["held_out_inertia"]
    assert [entry["pass"] for entry in description["history"]] == list(
        range(len(description["history"]))
    )
    expected = {**LevelEncoder.description, "num_clusters": 4, "seed": 0, "backend": backend}
    assert expected.items() <= description.items()


@pytest.mark.parametrize("backend", ["sklearn", "torch"])
def test_the_common_mean_does_not_matter(two_corpora, backend, monkeypatch):
    """Features far from 0 lose their differences in products; the mean is taken off first."""
    plain = learn(two_corpora, backend=backend, passes=3).codebook
    encode = LevelEncoder.__call__
    monkeypatch.setattr(
        LevelEncoder, "__call__", lambda self, batch: [rows + 64 for rows in encode(self, batch)]
    )
    moved = learn(two_corpora, backend=backend, passes=3, num_clusters=4).codebook
    # float16 near 64 has steps of 1/16
    tolerance = 0.04 if backend == "torch" else 2e-3
    for centroid in plain.centroids + 64:
        assert (moved.centroids - centroid).abs().amax(dim=1).min() < tolerance


def test_frames_are_thinned_out_to_fit(two_corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(kmeans, "frame_capacity", lambda *_: 400)
    options = options_of(seed=3)
    plan = plan_learning(LevelEncoder.description, two_corpora, options, tmp_path / "w")
    # of 40 seconds at 50 frames a second
    assert plan.collection.keep == pytest.approx(0.99 * 400 / 2000)
    learned = learn(two_corpora, seed=3)
    assert 330 < learned.codebook.description["frames"] <= 400
    assert learned.codebook.description["hours"] == round(40 / 3600, 4)
    # of all utterances still
    levels = sorted(learned.codebook.centroids[:, 0].tolist())
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.6, 0.7], atol=2e-3)


def test_short_utterances_are_listed(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {"long": constant(0.1, 0.5), "short": np.zeros(399)})
    listed = tmp_path / "rejected.tsv"
    with pytest.raises(SpireError, match="1 of 2 utterances are unusable, first short: 399 "):
        learn([directory], rejected_file=listed)
    assert listed.read_text() == "short\t399 samples are shorter than one frame\n"
    learned = learn([directory], max_rejected=0.5)
    assert learned.codebook.description["frames"] == 24
    only_short = make_data_dir(tmp_path / "e", {"short": np.zeros(399)})
    with pytest.raises(SpireError, match="no frames to learn from"):
        learn([only_short], max_rejected=1)


def test_too_little_audio_for_k(tmp_path, make_data_dir):
    # 21 frames, one of them held out: 20 are not enough for 21 clusters
    directory = make_data_dir(tmp_path / "d", {"u": np.linspace(0, 0.5, 400 + 20 * 320)})
    with pytest.raises(SpireError, match="20 frames cannot make --num_clusters 21"):
        learn([directory], num_clusters=21)
    assert learn([directory], num_clusters=20).codebook.num_clusters == 20


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_clusters": 0}, "--num_clusters 0: must be more than 0"),
        ({"hours": -1.0}, "--hours -1.0: must be more than 0"),
        ({"passes": 0}, "--passes 0"),
        ({"seed": -1}, "--seed -1: must be 0 or more"),
        ({"seed": 2**31}, "--seed 2147483648: must be 2147483647 or less"),
        ({"tol": float("nan")}, "--tol nan"),
        ({"batch_seconds": 0.0}, "--batch_seconds 0"),
        ({"backend": "faiss"}, "--backend faiss: choose auto, sklearn, torch"),
        ({"max_bytes": 2**20}, "--max_gib: 4 clusters .* at least"),
        ({"max_bytes": -1}, "--max_gib: 4 clusters .* at least"),
    ],
)
def test_bad_options(two_corpora, changes, message):
    with pytest.raises(SpireError, match=message):
        learn(two_corpora, **changes)


def test_work_of_other_options_is_not_mixed(two_corpora, tmp_path):
    work = work_directory(tmp_path / "book")
    assert work == tmp_path / "book.work"
    description = LevelEncoder.description
    plan_learning(description, two_corpora, options_of(), work)
    plan_learning(description, two_corpora, options_of(), work)
    for changed, message in (
        (options_of(seed=1), "book.work: begun with seed 0, now 1: .* or remove the directory"),
        (options_of(num_clusters=5), "begun with num_clusters 4, now 5"),
        (options_of(max_per_speaker=(3,)), r"begun with max_per_speaker \[\], now \[3\]"),
        (options_of(max_bytes=2**27), "begun with max_gib 0.0625, now 0.125"),
    ):
        with pytest.raises(SpireError, match=message):
            plan_learning(description, two_corpora, changed, work)
    with pytest.raises(SpireError, match="begun with layer 0, now 3"):
        plan_learning({**description, "layer": 3}, two_corpora, options_of(), work)
    with pytest.raises(SpireError, match="begun with data_dir"):
        plan_learning(description, two_corpora[:1], options_of(), work)


def test_data_that_changed_meanwhile(tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {f"u{n}": constant(0.1, 0.5) for n in range(3)})
    plan_learning(LevelEncoder.description, [directory], options_of(), tmp_path / "w")
    lines = (directory / "wav.scp").read_text().splitlines(keepends=True)
    (directory / "wav.scp").write_text("".join(lines[:2]))
    with pytest.raises(SpireError, match="w: the data directories have changed since it was begun"):
        plan_learning(LevelEncoder.description, [directory], options_of(), tmp_path / "w")


def test_clustering_before_collecting(two_corpora, tmp_path):
    plan = plan_learning(LevelEncoder.description, two_corpora, options_of(), tmp_path / "w")
    with pytest.raises(SpireError, match="job 1 of 2 has not finished"):
        cluster(plan, tmp_path / "w", num_shards=2)
