import json

import numpy as np
import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.plots import (
    plot_kmeans,
    plot_loss,
    plot_unit_totals,
    plot_unit_use,
    read_history,
    smooth,
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


def history(path, *entries, tail=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return path


def test_read_history(tmp_path):
    path = history(
        tmp_path / "h.jsonl",
        {"step": 1, "loss": 5.0, "lr": 0.1},
        {"step": 2, "loss": 4.0},
        {"step": 3, "loss": 9.0},
        {"step": 2, "loss": 3.5, "valid_loss": None},
        {"step": 2, "valid_loss": 4.5},
        {"step": 4, "loss": float("nan")},
        tail='{"step": 5, "lo',
    )
    assert read_history(path) == {"loss": {1: 5.0, 2: 3.5, 3: 9.0}, "valid_loss": {2: 4.5}}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no loss in it"),
        ('{"step": 1}\n', "no loss in it"),
        ('{"step": 1, "loss": 2}\nrubbish\n', "line 2"),
        ('{"loss": 2}\n', "line 1"),
        ("[1]\n", "line 1"),
    ],
)
def test_bad_history(tmp_path, text, message):
    path = tmp_path / "h.jsonl"
    path.write_text(text)
    with pytest.raises(SpireError, match=message) as caught:
        plot_loss(path, tmp_path / "l.png", "t")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "l.png").exists()
    with pytest.raises(SpireError, match="no such file"):
        read_history(tmp_path / "none")


def test_smooth():
    assert smooth([0.0, 3.0, 6.0, 0.0], 3) == [1.5, 3.0, 3.0, 3.0]
    assert smooth([1.0, 2.0], 1) == [1.0, 2.0]
    values = np.random.default_rng(0).normal(size=50)
    # numpy's convolution, away from the ends
    expected = np.convolve(values, np.ones(7) / 7, mode="valid")
    assert np.allclose(smooth(values, 7)[3:-3], expected)


@pytest.mark.parametrize("kind", ["both", "train", "valid", "single"])
def test_loss_plot(tmp_path, kind):
    entries = [{"step": i, "loss": 5 / i} for i in range(1, 100 if kind != "single" else 2)]
    valid = [{"step": i, "valid_loss": 6 / i} for i in (20, 60)]
    chosen = {"both": entries + valid, "valid": valid}.get(kind, entries)
    plot_loss(history(tmp_path / "h.jsonl", *chosen), tmp_path / "l.png", "CPT")
    assert pixels(tmp_path / "l.png").shape[:2] == (540, 960)


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
