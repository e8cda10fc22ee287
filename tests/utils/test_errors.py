"""Errors that users can do something about."""

import pytest

from espnet_spire.utils.errors import SpireError, model_error


@pytest.mark.parametrize("name", ["/no/such", "./no", "exp/spire/hf"])
def test_a_directory_that_is_not_there(name):
    error = model_error(name, ValueError("Repo id must be in the form …"))
    assert isinstance(error, SpireError) and str(error) == f"--model {name}: no such directory"


def test_a_name_on_the_hub_and_a_broken_directory(tmp_path):
    error = OSError("not cached\nsecond line")
    assert str(model_error("someone/model", error)) == "--model someone/model: not cached"
    assert str(model_error(str(tmp_path), error)) == f"--model {tmp_path}: not cached"
    assert str(model_error("m", KeyError())) == "--model m: KeyError"
