import json

import numpy as np
import pytest

from espnet_spire.utils.curves import plot_training, read_history, smooth, split_losses
from espnet_spire.utils.errors import SpireError


def history(path, *entries, tail=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return path


def test_read_history(tmp_path):
    path = history(
        tmp_path / "h.jsonl",
        {"step": 1, "loss": 5.0, "lr": 0.1},
        {"step": 2, "loss": 4.0},
        {"step": 3, "loss": 9.0, "share_of_peak": None},
        {"step": 2, "loss": 3.5, "valid_loss": None},
        {"step": 2, "valid_loss": 4.5},
        {"step": 4, "loss": float("nan")},
        tail='{"step": 5, "lo',
    )
    assert read_history(path) == {
        "loss": {1: 5.0, 2: 3.5, 3: 9.0},
        "valid_loss": {2: 4.5},
        "lr": {1: 0.1},
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no loss in it"),
        ('{"step": 1}\n', "no loss in it"),
        ('{"step": 1, "loss": 2}\nrubbish\n', "line 2"),
        ('{"loss": 2}\n', "line 1"),
        ('{"step": 1, "loss": "two"}\n', "line 1"),
        ("[1]\n", "line 1"),
    ],
)
def test_bad_history(tmp_path, text, message):
    path = tmp_path / "h.jsonl"
    path.write_text(text)
    with pytest.raises(SpireError, match=message) as caught:
        plot_training(path, tmp_path / "l.png", "t")
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


def test_losses_by_task_and_language():
    names = ("loss", "valid_loss_st", "loss_st_multi_turn", "loss_st.en-de", "loss_asr", "lr")
    tasks, langs = split_losses({name: {1: float(n)} for n, name in enumerate(names)})
    assert tasks == {"st_multi_turn": {1: 2.0}, "asr": {1: 4.0}}
    assert langs == {"st en-de": {1: 3.0}}


@pytest.mark.parametrize("kind", ["both", "train", "valid", "single"])
def test_the_picture(tmp_path, kind):
    from matplotlib.image import imread

    entries = [
        {"step": i, "loss": 5 / i, "loss_asr": 4 / i, "loss_st.en-de": 6 / i, "lr": 1e-3}
        for i in range(1, 100 if kind != "single" else 2)
    ]
    valid = [{"step": i, "valid_loss": 6 / i} for i in (20, 60)]
    chosen = {"both": entries + valid, "valid": valid}.get(kind, entries)
    plot_training(history(tmp_path / "h.jsonl", *chosen), tmp_path / "l.png", "CPT")
    image = imread(tmp_path / "l.png")
    assert image.shape[:2] == (864, 1680)
    assert image[..., :3].std() > 0.05
