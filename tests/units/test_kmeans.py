"""From data directories to a codebook: what it is learned from, what it says, what is refused."""

import tempfile
import threading
import time

import numpy as np
import pytest
import torch

from espnet_spire.units import kmeans
from espnet_spire.units.kmeans import (
    Options,
    cluster,
    collect,
    is_published,
    plan_learning,
    publish,
)
from espnet_spire.units.workdir import work_directory
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
    # 64 MiB for frames and work space
    return Options(**{"num_clusters": 4, "hours": 1.0, "max_gib": 1.0625, **changes})


def learn(
    directories, *, work=None, encoder=None, max_rejected=0.001, rejected_file=None, **changes
):
    """All of it in one process."""
    encoder = encoder or LevelEncoder()
    with tempfile.TemporaryDirectory() as temporary:
        work = work or temporary
        plan = plan_learning(LevelEncoder.description, directories, options_of(**changes), work)
        collect(encoder, plan, work)
        return cluster(plan, work, max_rejected=max_rejected, rejected_file=rejected_file)


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
    learned = learn(two_corpora, passes=20, backend=backend, kmeans_dtype=dtype)
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
        ({"max_gib": 1.001}, "--max_gib: 4 clusters .* at least"),
        ({"max_gib": 0.5}, "--max_gib: 4 clusters .* at least"),
        ({"max_gib": -1.0}, "--max_gib -1.0: must be more than 0"),
        ({"max_gib": float("nan")}, "--max_gib nan"),
        ({"backend": "sklearn", "full_batch": True}, "--backend sklearn: knows no --full_batch"),
        ({"backend": "sklearn", "kmeans_dtype": "bfloat16"}, "knows no --kmeans_dtype bfloat16"),
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
        (options_of(max_gib=3.0), "begun with max_gib 1.0625, now 3.0"),
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
    with pytest.raises(SpireError, match="d: utterance u2 of the sample is gone; put it back"):
        plan_learning(LevelEncoder.description, [directory], options_of(), tmp_path / "w")


def test_clustering_before_collecting(two_corpora, tmp_path):
    plan = plan_learning(LevelEncoder.description, two_corpora, options_of(), tmp_path / "w")
    with pytest.raises(SpireError, match="job 1 of 2 has not finished"):
        cluster(plan, tmp_path / "w", num_shards=2)


def test_options_of_torch_alone_choose_it(two_corpora, tmp_path):
    for number, (changes, backend) in enumerate(
        [
            ({}, "sklearn"),
            ({"full_batch": True}, "torch"),
            ({"kmeans_dtype": "bfloat16"}, "torch"),
            ({"kmeans_dtype": "float32"}, "sklearn"),  # which is what it computes in
        ]
    ):
        work = tmp_path / str(number)
        options = options_of(**changes)
        plan = plan_learning(LevelEncoder.description, two_corpora, options, work)
        assert plan.options.backend == backend


def test_lengths_are_read_once(two_corpora, tmp_path, monkeypatch):
    first = plan_learning(LevelEncoder.description, two_corpora, options_of(), tmp_path / "w")
    monkeypatch.setattr(kmeans, "sample_utterances", None)
    again = plan_learning(LevelEncoder.description, two_corpora, options_of(), tmp_path / "w")
    assert again == first


def test_jobs_that_begin_at_once_draw_one_sample(two_corpora, tmp_path, monkeypatch):
    draw = kmeans.sample_utterances
    draws, plans = [], []

    def slowly(*args, **options):
        draws.append(1)
        time.sleep(0.3)
        return draw(*args, **options)

    monkeypatch.setattr(kmeans, "sample_utterances", slowly)

    def job():
        plans.append(
            plan_learning(LevelEncoder.description, two_corpora, options_of(), tmp_path / "w")
        )

    threads = [threading.Thread(target=job) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(draws) == 1 and len(plans) == 3
    assert plans[0] == plans[1] == plans[2]


def test_batches_are_as_they_were_begun(two_corpora, tmp_path):
    """A GPU's default must not stop who merges on a machine without one."""
    begin = (LevelEncoder.description, two_corpora)
    plan = plan_learning(*begin, options_of(), tmp_path / "w", usual_batch_seconds=3.0)
    for seconds, usual in ((None, 40.0), (None, None), (3.0, 40.0)):
        options = options_of(batch_seconds=seconds)
        again = plan_learning(*begin, options, tmp_path / "w", usual_batch_seconds=usual)
        assert again == plan and again.options.batch_seconds == 3.0
    with pytest.raises(SpireError, match="begun with batch_seconds 3.0, now 4.0"):
        plan_learning(*begin, options_of(batch_seconds=4.0), tmp_path / "w")
    with pytest.raises(SpireError, match="new: no job has begun yet"):
        plan_learning(*begin, options_of(), tmp_path / "new", usual_batch_seconds=None)
    assert not (tmp_path / "new").exists()


def test_another_encoder_at_the_same_place(two_corpora, tmp_path):
    work = tmp_path / "w"

    class Trained(LevelEncoder):
        def __init__(self, weights):
            self.description = {**LevelEncoder.description, "weights": weights}

    learned = learn(two_corpora, work=work, encoder=Trained("a1"))
    # what describe_encoder tells, without loading, has none
    assert learned.codebook.description["weights"] == "a1"
    assert "weights" not in learned.codebook.description["settings"]
    with pytest.raises(SpireError, match="w: begun with weights a1, now b2: .* remove the direc"):
        learn(two_corpora, work=work, encoder=Trained("b2"))
    with pytest.raises(SpireError, match="begun with weights a1, now None"):
        learn(two_corpora, work=work)
    again = learn(two_corpora, work=work, encoder=Trained("a1"))
    assert again.codebook.description == learned.codebook.description


def test_mended_audio_is_clustered_anew(tmp_path, make_data_dir, caplog):
    """The checkpoint is of other frames."""
    directory = make_data_dir(
        tmp_path / "d", {f"u{n}": constant(0.1 * n, 0.5) for n in range(1, 5)}
    )
    good = (directory / "audio" / "u2.wav").read_bytes()
    (directory / "audio" / "u2.wav").write_bytes(b"RIFF")
    work = tmp_path / "w"
    with pytest.raises(SpireError, match="1 of 4 utterances .* mend them and start again"):
        learn([directory], work=work)
    learned = learn([directory], work=work, max_rejected=1, num_clusters=4)
    assert learned.codebook.description["frames"] == 3 * 24
    (directory / "audio" / "u2.wav").write_bytes(good)
    learned = learn([directory], work=work, num_clusters=4)
    assert learned.codebook.description["frames"] == 4 * 24
    levels = sorted(learned.codebook.centroids[:, 0].tolist())
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.3, 0.4], atol=1e-3)
    assert "frames have changed since" in caplog.text


def test_reasons_of_a_key_in_two_corpora(tmp_path, make_data_dir):
    directories = [
        make_data_dir(tmp_path / name, {"long": constant(0.1, 0.5), "u": np.zeros(length)})
        for name, length in (("a", 399), ("b", 300))
    ]
    listed = tmp_path / "rejected.tsv"
    with pytest.raises(SpireError, match="2 of 4 utterances are unusable, first u: "):
        learn(directories, rejected_file=listed)
    (key, reasons), *more = (line.split("\t") for line in listed.read_text().splitlines())
    assert key == "u" and not more
    assert "399 samples" in reasons and "; " in reasons and "300 samples" in reasons


def test_what_a_codebook_was_learned_with(two_corpora, tmp_path):
    description = LevelEncoder.description
    out = tmp_path / "book"
    assert not is_published(out, description, two_corpora, options_of())
    publish(learn(two_corpora, seed=2), out)
    same = options_of(seed=2)
    assert is_published(out, description, two_corpora, same)
    assert is_published(out, {**description, "weights": None}, two_corpora, same)
    assert is_published(out, description, two_corpora, same._replace(batch_seconds=40.0))
    assert not is_published(out, description, two_corpora, same._replace(batch_seconds=4.0))
    assert not is_published(out, description, two_corpora, same._replace(seed=3))
    assert not is_published(out, {**description, "layer": 1}, two_corpora, same)
    assert not is_published(out, description, two_corpora[:1], same)
    assert not is_published(out, description, two_corpora, same, {"dtype": "bfloat16"})
