"""Drawing: by hand on small distributions; seeds that depend on what is asked alone."""

import math

import pytest
import torch

from espnet_spire.decode.search import Search, draw, draws
from espnet_spire.utils.errors import SpireError

# Probabilities 0.5, 0.3, 0.2 of the tokens 2, 0, 1.
LOGITS = torch.tensor([[math.log(0.3), math.log(0.2), math.log(0.5), -torch.inf]])


def drawn(number, **settings):
    search = Search(do_sample=True, **settings)
    return int(draw(LOGITS, torch.tensor([number]), search)[0])


@pytest.mark.parametrize(
    "number, token", [(0.0, 2), (0.49, 2), (0.51, 0), (0.79, 0), (0.81, 1), (1.0, 1)]
)
def test_the_likeliest_first(number, token):
    assert drawn(number) == token


@pytest.mark.parametrize(
    "top_p, number, token",
    [
        (0.4, 1.0, 2),  # the likeliest always stays
        (0.6, 0.99, 0),  # 0.5 and 0.3 of 0.8
        (0.6, 0.62, 2),  # 0.62 * 0.8 = 0.496
        (0.6, 0.64, 0),  # 0.512
        (0.85, 1.0, 1),
    ],
)
def test_top_p(top_p, number, token):
    assert drawn(number, top_p=top_p) == token


def test_temperature():
    # Squared: 0.25, 0.09, 0.04 of 0.38.
    assert drawn(0.65, temperature=0.5) == 2 and drawn(0.67, temperature=0.5) == 0


def test_shares_of_many_draws():
    numbers = draws(Search(do_sample=True, seed=3), [1, 2], 20000)
    tokens = draw(LOGITS.expand(20000, -1), numbers, Search(do_sample=True))
    shares = torch.bincount(tokens, minlength=4) / 20000
    assert torch.allclose(shares, torch.tensor([0.3, 0.2, 0.5, 0.0]), atol=0.015)


def test_numbers_depend_on_seed_and_prompt():
    one = draws(Search(do_sample=True, seed=1), [1, 23], 4)
    assert torch.equal(one, draws(Search(do_sample=True, seed=1), [1, 23], 4))
    assert not torch.equal(one, draws(Search(do_sample=True, seed=2), [1, 23], 4))
    assert not torch.equal(one, draws(Search(do_sample=True, seed=1), [12, 3], 4))
    assert 0 <= Search(seed=5).seed_of([1]) < 2**63


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_beams": 0}, "--num_beams 0"),
        ({"num_beams": 2, "do_sample": True}, "leave one"),
        ({"temperature": 0.7}, "--temperature and --top_p are for --do_sample"),
        ({"do_sample": True, "temperature": 0.0}, "--temperature 0.0: must be more than 0"),
        ({"do_sample": True, "top_p": 1.1}, "--top_p 1.1: must be more than 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SpireError, match=message):
        Search(**settings).check()
