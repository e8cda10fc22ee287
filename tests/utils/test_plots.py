import numpy as np
import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.plots import (
    plot_kmeans,
    plot_unit_totals,
    plot_unit_use,
    unit_use,
)


def pixels(path):
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)


def test_unit_use_by_hand():
    even = unit_use([5, 5, 5, 5])
    assert (even.dead, even.perplexity) == (0, pytest.approx(4))
    # entropy of (1/2, 1/4, 1/4) is 1.5 bits
    use = unit_use([0, 2, 1, 1, 0])
    assert (use.dead, use.perplexity) == (pytest.approx(0.4), pytest.approx(2**1.5))


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [[1, 2]]])
def test_bad_counts(counts, tmp_path):
    with pytest.raises(SpireError):
        plot_unit_use(counts, tmp_path / "u.png", "t")
    assert list(tmp_path.iterdir()) == []


def test_unit_plot(tmp_path):
    counts = np.random.default_rng(0).poisson(20, 5000)
    use = plot_unit_use(counts, tmp_path / "deep" / "u.png", "Units")
    assert use == unit_use(counts)
    image = pixels(tmp_path / "deep" / "u.png")
    assert image.shape[:2] == (540, 960)
    assert image[..., :3].std() > 0.1
    plot_unit_use(counts, tmp_path / "again.png", "Units")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "deep" / "u.png").read_bytes()


def totals(name, hours, units):
    frames = round(hours * 3600 * 50)
    return {
        "name": name,
        "hours": hours,
        "units_before_merging": frames,
        "units": units,
        "units_per_second": units / (hours * 3600) if hours else None,
        "reduction": 1 - units / frames if frames else None,
    }


@pytest.mark.parametrize("count", [1, 8, 30])
def test_unit_totals_plot(tmp_path, count):
    rows = [totals(f"set {i}", 10.0 + i, 1_200_000 + 100_000 * i) for i in range(count)]
    rows[0] = totals("nothing", 0.0, 0) if count > 1 else rows[0]
    total = totals("Total", 100.0, 12_000_000)
    plot_unit_totals(rows, total, 50.0, tmp_path / "t.png")
    image = pixels(tmp_path / "t.png")
    assert image.shape[1] == 1200 and image.shape[0] == max(384, round(120 * (1.3 + 0.55 * count)))
    assert image[..., :3].std() > 0.1


def test_unit_totals_plot_of_nothing(tmp_path):
    nothing = totals("none", 0.0, 0)
    plot_unit_totals([nothing], nothing, 25.0, tmp_path / "t.png")
    assert pixels(tmp_path / "t.png").shape[:2] == (384, 1200)


@pytest.mark.parametrize("inertia", [[9.0, 7.0, 6.5], [None, None]])
def test_kmeans_plot(tmp_path, inertia):
    history = [{"pass": n, "held_out_inertia": value} for n, value in enumerate(inertia)]
    counts = np.random.default_rng(0).poisson(2, 500)
    for name in ("k.png", "again.png"):
        plot_kmeans(history, counts, tmp_path / name, "500 clusters")
    image = pixels(tmp_path / "k.png")
    assert image[..., :3].std() > 0.1
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "k.png").read_bytes()
