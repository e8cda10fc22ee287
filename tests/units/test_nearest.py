"""Nearest centres, against distances in float64."""

import numpy as np
import pytest
import torch

from espnet_spire.units.nearest import (
    NearestCentre,
    Rows,
    row_maximum,
    square_distances,
    widened_dim,
)

TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, 50))
    frames = centres[rng.integers(300, size=2500)] + 0.7 * rng.standard_normal((2500, 50))
    return frames.astype(np.float16), centres.astype(np.float32)


def exact(frames, centres):
    frames, centres = frames.astype(np.float64), centres.astype(np.float64)
    return ((frames[:, None] - centres[None]) ** 2).sum(axis=2)


def test_float32(problem):
    frames, centres = problem
    expected = exact(frames, centres)
    found = NearestCentre(torch.from_numpy(centres), torch.float32)(torch.from_numpy(frames), 0.0)
    assert (found.labels.numpy() == expected.argmin(axis=1)).all()
    np.testing.assert_allclose(found.distances, expected.min(axis=1), rtol=1e-4)


@pytest.mark.parametrize("radius", [0.0, 15.0, 25.0, 40.0])  # distances are about 25
def test_bfloat16_loses_next_to_nothing(problem, radius):
    frames, centres = problem
    expected = exact(frames, centres)
    nearest = NearestCentre(torch.from_numpy(centres), torch.bfloat16)
    found = nearest(torch.from_numpy(frames), radius)
    chosen = expected[np.arange(len(frames)), found.labels.numpy()]
    assert (found.labels.numpy() == expected.argmin(axis=1)).mean() > 0.98
    assert chosen.mean() / expected.min(axis=1).mean() < 1.001
    np.testing.assert_allclose(found.distances, chosen, rtol=0.03, atol=0.2)


def test_a_good_radius_is_better_than_plain_bfloat16():
    rng = np.random.default_rng(0)
    frames = 3 * rng.standard_normal((2500, 8)).astype(np.float16)
    centres = 3 * rng.standard_normal((1000, 8)).astype(np.float32)
    centres = torch.from_numpy(centres).bfloat16().float().numpy()
    frames = torch.from_numpy(frames).bfloat16().float().numpy()
    expected = exact(frames, centres)
    best = expected.argmin(axis=1)
    x, c = torch.from_numpy(frames).bfloat16(), torch.from_numpy(centres).bfloat16()
    plain = (x @ c.T - 0.5 * c.float().square().sum(dim=1).bfloat16()).argmax(dim=1).numpy()
    radius = expected.min(axis=1).mean()
    found = NearestCentre(c.float(), torch.bfloat16)(torch.from_numpy(frames), radius)
    # the rest is ties after rounding to 8 bits
    assert (found.labels.numpy() != best).sum() < (plain != best).sum() / 4


@pytest.mark.parametrize("dtype", TYPES)
def test_a_radius_for_each_row(problem, dtype):
    frames, centres = (torch.from_numpy(array) for array in problem)
    rows = Rows(frames[:100], dtype)
    nearest = NearestCentre(centres, dtype)
    radii = torch.from_numpy(exact(*problem)[20:40].min(axis=1)).float()
    found = nearest.of(rows, slice(20, 40), radii)
    np.testing.assert_array_equal(found.labels, exact(*problem)[20:40].argmin(axis=1))
    np.testing.assert_allclose(found.distances, radii, rtol=0.02)


@pytest.mark.parametrize("dtype", TYPES)
def test_gains_by_definition(problem, dtype):
    frames, centres = problem
    squares = exact(frames, centres)
    before = squares[:1500, :10].min(axis=1)
    expected = np.maximum(before[:, None] - squares[:1500, 10:40], 0).sum(axis=0)
    candidates = NearestCentre(torch.from_numpy(centres[10:40]), dtype)
    rows = Rows(torch.from_numpy(frames), dtype)
    gains = candidates.gains(rows, torch.from_numpy(before).float())
    np.testing.assert_allclose(gains, expected, rtol=0.02)


@pytest.mark.parametrize("dtype", TYPES)
def test_row_maximum_of_any_signs(dtype):
    scores = torch.tensor(
        [[-3.0, -1.0, -2.0], [-3.0, 2.0, 5.0], [0.0, -1.0, -7.0], [-1.0, -0.0, -2.0]], dtype=dtype
    )
    found = row_maximum(scores)
    assert found.labels.tolist() == [1, 2, 0, 1]
    assert found.distances.tolist() == [-1.0, 5.0, 0.0, 0.0]
    many = torch.randn(500, 333, generator=torch.Generator().manual_seed(0)).to(dtype)
    many[::2] = -many[::2].abs()
    assert (row_maximum(many).distances == many.float().amax(dim=1)).all()


def test_square_distances(problem):
    frames, centres = (torch.from_numpy(array) for array in problem)
    labels = torch.arange(len(frames)) % 300
    expected = exact(*problem)[np.arange(len(frames)), labels.numpy()]
    np.testing.assert_allclose(square_distances(frames, centres, labels), expected, rtol=1e-5)


def test_width():
    assert [widened_dim(dim) for dim in (1, 26, 27, 39, 1024)] == [32, 32, 64, 64, 1056]
