import numpy as np
import pytest

from espnet_spire.train.losses import Group, GroupLosses

GROUPS = [Group("asr", "en"), Group("st", "en-de"), Group("st", "en-fr"), Group("mono", "de")]


def names(which):
    return [f"utt{n}" for n in which]


def test_means_by_hand():
    losses = GroupLosses(GROUPS)
    losses.add([0, 1, 2, 1], np.array([4.0, 6.0, 5.0, 2.0]), np.array([2, 3, 5, 1]), keys=names)
    losses.add([0], np.array([2.0]), np.array([4]), keys=names)
    assert losses.report() == pytest.approx(
        {
            "loss": 19 / 15,
            "loss_asr": 1.0,
            "loss_st": 13 / 9,
            "loss_asr.en": 1.0,
            "loss_st.en-de": 2.0,
            "loss_st.en-fr": 1.0,
        }
    )
    assert losses.not_finite == [] and losses.sums.shape == (4, 2)


def test_documents_that_are_not_finite_are_named():
    losses = GroupLosses(GROUPS)
    losses.add([0, 1, 3], np.array([1.0, np.nan, np.inf]), np.array([1, 1, 1]), keys=names)
    assert losses.not_finite == ["utt1", "utt2"]


def test_nothing_to_add():
    losses = GroupLosses(GROUPS)
    losses.add([], np.array([]), np.array([], dtype=np.int64), keys=names)
    assert not losses.sums.any()
