"""Clustering of frames in memory: both back-ends find what is there, repeatably, through kills."""

import numpy as np
import pytest
import torch

from espnet_spire.units import clustering
from espnet_spire.units.clustering import (
    Settings,
    choose_backend,
    choose_dtype,
    frame_capacity,
    learn_centres,
    measure_use,
    read_checkpoint,
)
from espnet_spire.units.seeding import draw, seed_centres
from espnet_spire.utils.errors import SpireError

KINDS = [
    ("sklearn", torch.float32),
    ("torch", torch.float32),
    ("torch", torch.bfloat16),
]


@pytest.fixture(scope="module")
def blobs():
    """6000 frames around 60 far points, of uneven weight, and the points."""
    rng = np.random.default_rng(0)
    points = 8 * rng.standard_normal((60, 20))
    points -= points.mean(axis=0)
    weights = 1 / np.arange(3, 63)
    which = rng.choice(60, 6000, p=weights / weights.sum())
    return (points[which] + rng.standard_normal((6000, 20))).astype(np.float32), points


def frames_of(blobs, backend):
    frames = blobs[0].astype(np.float32 if backend == "sklearn" else np.float16)
    return frames[300:], frames[:300]


def settings_of(backend, dtype, **changes):
    return Settings(**{"num_clusters": 60, "backend": backend, "dtype": dtype, **changes})


@pytest.mark.parametrize("backend, dtype", KINDS)
@pytest.mark.parametrize("full_batch", [False, True])
def test_finds_the_points(blobs, backend, dtype, full_batch):
    training, held_out = frames_of(blobs, backend)
    settings = settings_of(backend, dtype, passes=15, full_batch=full_batch)
    state = learn_centres(training, held_out, settings)
    inertia = [entry["held_out_inertia"] for entry in state.history]
    assert inertia[-1] <= inertia[0]
    # as good as scikit-learn's own Lloyd's with the same number of clusters, to 5 %
    from sklearn.cluster import KMeans

    best = KMeans(60, n_init=1, random_state=0).fit(training.astype(np.float32))
    expected = -best.score(held_out.astype(np.float32)) / len(held_out)
    assert inertia[-1] < 1.05 * expected
    # and what it says of itself is so
    squares = ((held_out[:, None].astype(np.float64) - state.centres.numpy()[None]) ** 2).sum(2)
    assert inertia[-1] == pytest.approx(squares.min(axis=1).mean(), rel=1e-3)
    use = measure_use(training, state, settings)
    squares = ((training[:, None].astype(np.float64) - state.centres.numpy()[None]) ** 2).sum(2)
    np.testing.assert_allclose(
        use.counts, np.bincount(squares.argmin(axis=1), minlength=60), atol=8
    )
    assert use.inertia == pytest.approx(squares.min(axis=1).mean(), rel=1e-3)


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_a_seed_fixes_every_bit(blobs, backend, dtype):
    training, held_out = frames_of(blobs, backend)
    first, again, other = (
        learn_centres(training, held_out, settings_of(backend, dtype, passes=2, tol=0.0, seed=seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.centres, again.centres)
    assert first.history == again.history
    assert not torch.equal(first.centres, other.centres)


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_goes_on_after_a_kill_at_any_pass(blobs, backend, dtype, tmp_path, monkeypatch):
    training, held_out = frames_of(blobs, backend)
    settings = settings_of(backend, dtype, passes=3, tol=0.0)
    undisturbed = learn_centres(training, held_out, settings, tmp_path / "whole")
    write = clustering.write_checkpoint
    path = tmp_path / "killed"

    def write_and_die(*args):
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(clustering, "write_checkpoint", write_and_die)
    for passes in (0, 1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            learn_centres(training, held_out, settings, path)
        assert read_checkpoint(path, settings).passes == passes
    state = learn_centres(training, held_out, settings, path)
    assert torch.equal(state.centres, undisturbed.centres)
    assert state.history == undisturbed.history
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_checkpoint_of_other_settings(blobs, tmp_path):
    training, held_out = frames_of(blobs, "torch")
    settings = settings_of("torch", torch.float32, passes=1)
    learn_centres(training, held_out, settings, tmp_path / "c")
    with pytest.raises(SpireError, match="c: begun with dtype float32, now bfloat16"):
        learn_centres(training, held_out, settings._replace(dtype=torch.bfloat16), tmp_path / "c")


def test_checkpoint_of_another_gpu_or_of_other_frames(blobs, tmp_path):
    training, held_out = frames_of(blobs, "torch")
    settings = settings_of("torch", torch.float32, passes=1, device="cpu:0", frames="one")
    state = learn_centres(training, held_out, settings, tmp_path / "c")
    found = read_checkpoint(tmp_path / "c", settings._replace(device="cpu"))
    assert torch.equal(found.centres, state.centres)
    with pytest.raises(SpireError, match="begun with device cpu, now cuda"):
        read_checkpoint(tmp_path / "c", settings._replace(device="cuda:1"))
    assert read_checkpoint(tmp_path / "c", settings._replace(frames="two")) is None


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_dead_clusters_get_far_frames(backend, dtype, tmp_path):
    """A centre that no frame is near is put where frames are far from all others."""
    rng = np.random.default_rng(0)
    near = rng.standard_normal((900, 4))
    far = rng.standard_normal((100, 4)) + 50
    frames = rng.permutation(np.concatenate([near, far]))
    frames = frames.astype(np.float32 if backend == "sklearn" else np.float16)
    settings = settings_of(backend, dtype, num_clusters=3, passes=2, tol=0.0)
    centres = torch.tensor([[0.0] * 4, [1.0] * 4, [-900.0] * 4])
    entry = {"held_out_inertia": None}
    state = clustering.State(centres, torch.tensor([500.0, 499.0, 1.0]), 1000.0, [entry])
    one_pass = clustering._sklearn_pass if backend == "sklearn" else clustering._torch_pass
    training = torch.from_numpy(frames)
    done = one_pass(training, state, settings)
    assert done.counts.tolist()[2] == 0
    after = clustering._after_pass(training, training[:0], done, state, settings)
    assert after.history[-1]["reseeded"] == 1
    assert after.history[-1]["dead_share"] == pytest.approx(1 / 3)
    # it was a frame; one of those that are far more often than their share
    assert (after.centres[2] == training.float()).all(dim=1).any()
    assert one_pass(training, after, settings).counts[2] > 0


def test_stops_when_it_is_good_enough(blobs):
    training, held_out = frames_of(blobs, "torch")
    settings = settings_of("torch", torch.float32, passes=50, tol=0.01)
    state = learn_centres(training, held_out, settings)
    assert state.finished and 1 <= state.passes < 50
    *_, before, last = (entry["held_out_inertia"] for entry in state.history)
    assert before - last < 0.01 * before
    # nothing held out: nothing to stop by
    assert learn_centres(training, held_out[:0], settings._replace(passes=4)).passes == 4


def test_more_clusters_than_frames(blobs):
    training, held_out = frames_of(blobs, "torch")
    with pytest.raises(SpireError, match="59 frames cannot make --num_clusters 60"):
        learn_centres(training[:59], held_out, settings_of("torch", torch.float32))
    assert len(learn_centres(training[:60], held_out, settings_of("torch", torch.float32)).counts)


@pytest.mark.parametrize("backend, dtype", KINDS)
def test_frames_that_are_all_the_same(backend, dtype):
    frames = np.ones((40, 3), np.float32 if backend == "sklearn" else np.float16)
    settings = settings_of(backend, dtype, num_clusters=2, passes=2)
    state = learn_centres(frames[2:], frames[:2], settings)
    assert torch.isfinite(state.centres).all()
    assert state.history[-1]["held_out_inertia"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_seeding_finds_every_far_blob_and_knows_the_distances(dtype):
    rng = np.random.default_rng(0)
    points = 100 * rng.standard_normal((30, 10))
    which = np.arange(3000) % 30
    frames = torch.from_numpy((points[which] + rng.standard_normal((3000, 10))).astype(np.float16))
    seeds = seed_centres(frames, 30, dtype=dtype, device="cpu", seed=0)
    assert (seeds.centres[:, None] == frames.float()[None]).all(dim=2).any(dim=1).all()
    squares = torch.cdist(frames.double(), seeds.centres.double()).square()
    # far blobs: one centre each, and each frame with the centre of its blob
    assert sorted(squares.argmin(dim=0).numpy() % 30) == list(range(30))
    assert (seeds.labels == squares.argmin(dim=1)).all()
    chosen = squares.amin(dim=1)
    assert seeds.distances.mean() == pytest.approx(chosen.mean().item(), rel=1e-3)


def test_draw_follows_the_weights():
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0, 6.0])
    counts = np.zeros(5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        counts[draw(weights, 1, generator)] += 1
    # 5 standard deviations of a share are 0.056
    np.testing.assert_allclose(counts / 2000, [0, 0.1, 0.3, 0, 0.6], atol=0.056)
    assert sorted(draw(weights, 3, generator).tolist()) == [1, 2, 4]
    assert len(set(draw(weights, 5, generator).tolist())) == 5


def test_choices():
    assert choose_backend("auto", 10) == "sklearn"
    assert choose_backend("auto", 5000) == "torch"
    assert choose_backend("sklearn", 5000) == "sklearn"
    assert choose_backend("auto", 10, full_batch=True) == "torch"
    assert choose_backend("auto", 10, dtype="bfloat16") == "torch"
    assert choose_backend("auto", 10, dtype="float32") == "sklearn"
    assert choose_backend("sklearn", 10, dtype="float32") == "sklearn"
    with pytest.raises(SpireError, match="--backend sklearn: knows no --full_batch"):
        choose_backend("sklearn", 10, full_batch=True)
    assert choose_dtype("float32", "cpu", 1024) == torch.float32
    assert choose_dtype("bfloat16", "cpu", 39) == torch.bfloat16
    assert choose_dtype("auto", "cpu", 39) == torch.float32
    assert choose_dtype("auto", "cpu", 1024) in (torch.float32, torch.bfloat16)


def test_capacity():
    # the paper's K at 4 GiB: more than a million frames, and less than their bytes alone allow
    capacity = frame_capacity(4 * 2**30, 1024, 5000, "torch")
    assert 1_000_000 < capacity < 4 * 2**30 / 2048
    assert frame_capacity(4 * 2**30, 1024, 5000, "sklearn") < capacity
    assert frame_capacity(8 * 2**30, 1024, 5000, "torch") > 2 * capacity
    with pytest.raises(SpireError, match=r"--max_gib: 5000 clusters .* at least 1\.\d\d GiB"):
        frame_capacity(2**30, 1024, 5000, "torch")
