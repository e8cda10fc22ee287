"""What AbsTask holds in place of the LLM."""

import pytest

from espnet_spire.model.shell import SpireShell


def test_the_shell_trains_nothing():
    shell = SpireShell("some/model")
    assert sum(p.numel() for p in shell.parameters()) == 1
    with pytest.raises(RuntimeError, match="SpireTrainer"):
        shell()
    assert "some/model" in repr(shell)
