import os
import signal

import pytest

from espnet_spire.utils.stopping import ANNOUNCED, noted_signals, stop_wanted


@pytest.mark.parametrize("number", ANNOUNCED)
def test_a_signal_is_noted_and_kills_nothing(number):
    before = signal.getsignal(number)
    with noted_signals():
        assert not stop_wanted()
        os.kill(os.getpid(), number)
        assert stop_wanted()
    assert signal.getsignal(number) is before
    with noted_signals():
        assert not stop_wanted()
